// Requests: LISTEN, CONNECT and the rest.
#include <errno.h>

#include "monitor/core/coordinator_core.h"
#include "monitor/core/words.h"

namespace sluice::monitor::core {

void CoordinatorCore::handle(DomainId sender, const shm::Message& request) {
  if (!domains_.is(sender, Presence::kPresent)) return;
  if (needs_time_ && !charge(sender, request.type)) return answer(sender, request, EDQUOT);
  switch (request.type) {
    case shm::kListen:
      return listen(sender, request);
    case shm::kUnlisten:
      return unlisten(sender, request);
    case shm::kAcceptor:
      return set_acceptor(sender, request);
    case shm::kConnect:
      return connect(sender, request);
    case shm::kLeasePorts:
      return lease_ports(sender, request);
    case shm::kRing:
      return ring(request);
    case shm::kPing:
      return answer(sender, request, 0);
    case shm::kWaiting:
      return wait(sender, request);
    case shm::kIdle:
      return idle(sender, request);
    case shm::kMove:
      return move(sender, request);
    case shm::kWho:
      return who(sender, request);
    case shm::kMay:
      return may(sender, request);
    case shm::kCannotMeet:
      return cannot_meet(sender, request);
    default:
      return answer(sender, request, EOPNOTSUPP);
  }
}

void CoordinatorCore::answer(DomainId to, const shm::Message& request, uint16_t status) {
  shm::Message reply = request;
  reply.status = status;
  actions_->reply(to, reply);
}

// ---- listeners --------------------------------------------------------------------------

void CoordinatorCore::listen(DomainId from, const shm::Message& m) {
  Listener wanted{};
  wanted.address = address_of(m.words[0], m.words[1]);
  wanted.port = uint16_t(m.words[2]);
  wanted.flags = high(m.words[2]);
  wanted.backlog = low(m.words[3]);
  wanted.netns = domains_[from].identity.netns;
  wanted.uid = domains_[from].identity.uid;
  Role role = high(m.words[3]) == 1 ? Role::kOnly : Role::kHolder;

  if (wanted.port == 0) return answer(from, m, EINVAL);
  if (is_foreign(wanted) || !actions_->may_listen(from, wanted.address, wanted.port))
    return answer(from, m, EACCES);
  if (policy_ != nullptr) {
    int error = judge(attempt_of(from, wanted, kListening));
    if (error != 0) return answer(from, m, uint16_t(error));
  }
  if (domains_[from].memberships >= kListenersPerDomain) return answer(from, m, ENOSPC);
  Listener* l = joinable(wanted);
  if (l == nullptr) l = open(wanted);
  if (l == nullptr || !hold(from, *l, role)) return answer(from, m, ENOSPC);
  l->backlog = wanted.backlog;
  shm::Message reply = m;
  reply.words[0] = l->id;
  answer(from, reply, 0);
}

// What the kernel refuses to two users, with SO_REUSEPORT or without, is not accelerated.
bool CoordinatorCore::is_foreign(const Listener& wanted) {
  for (Listener* l = listeners_.first_on(wanted.port); l != nullptr; l = listeners_.next(*l))
    if (l->netns == wanted.netns && l->uid != wanted.uid && l->overlaps(wanted)) return true;
  return false;
}

// The entry of a kernel listener that came to this process by exec or otherwise.
Listener* CoordinatorCore::joinable(const Listener& wanted) {
  if (wanted.reuses_port()) return nullptr;
  for (Listener* l = listeners_.first_on(wanted.port); l != nullptr; l = listeners_.next(*l))
    if (l->netns == wanted.netns && l->address == wanted.address) return l;
  return nullptr;
}

Listener* CoordinatorCore::open(const Listener& wanted) {
  Listener* l = listeners_.create(wanted);
  if (l == nullptr) return nullptr;
  ++listeners_count_;
  l->is_name() ? actions_->set_name(shm::name_bit(key_of(l->address)), true) : actions_->set_port(l->port, true);
  // Whoever was granted a neighbour may now mean this one.
  revoke_chain(l->chain(), l->netns);
  return l;
}

bool CoordinatorCore::hold(DomainId d, Listener& l, Role role) {
  Index i = listeners_.index(l);
  // Listening again, perhaps with another backlog, does not unlearn who accepts.
  if (members_.find(d, i) != nullptr) return true;
  if (members_.add(d, i, role) == nullptr) {
    close_if_unheld(l);
    return false;
  }
  ++domains_[d].memberships;
  revoke_chain(l.chain(), l.netns);
  return true;
}

void CoordinatorCore::release(Members::Entry& member) {
  Listener& l = listeners_.at(member.listener);
  --domains_[member.domain].memberships;
  members_.remove(member);
  revoke_chain(l.chain(), l.netns);
  close_if_unheld(l);
}

void CoordinatorCore::close_if_unheld(Listener& l) {
  Index i = listeners_.index(l);
  if (members_.first_of_listener(i) != nullptr) return;
  while (auto* w = waiters_.first_of_listener(i)) leave_line(*w);
  while (auto* a = admissions_.first_of_listener(i)) drop(*a);
  listeners_.destroy(l);
  --listeners_count_;
  bool others = listeners_.first_on(l.chain()) != nullptr;
  if (l.is_name()) actions_->forget_name(l.id);
  if (!others) l.is_name() ? actions_->set_name(shm::name_bit(key_of(l.address)), false) : actions_->set_port(l.port, false);
}

void CoordinatorCore::unlisten(DomainId from, const shm::Message& m) {
  Listener* l = listeners_.find(low(m.words[0]));
  if (l == nullptr) return;
  if (auto* member = members_.find(from, listeners_.index(*l))) release(*member);
}

void CoordinatorCore::set_acceptor(DomainId from, const shm::Message& m) {
  Listener* l = listeners_.find(low(m.words[0]));
  if (l == nullptr || m.words[1] > uint64_t(Role::kAccepts)) return;
  Role role = Role(m.words[1]);
  if (auto* member = members_.find(from, listeners_.index(*l)))
    change_role(*member, role);
  else if (domains_[from].memberships >= kListenersPerDomain || !may_hold(from, *l) ||
           (policy_ != nullptr && judge(attempt_of(from, *l, kListening)) != 0) || !hold(from, *l, role))
    return;
  // It may have gone to sleep before those came who wait now, and was nobody then.
  if (role == Role::kAccepts && idleness(from, l->id) != Idleness::kBusy) call_next(*l, from);
}

// Descriptors are inherited: by children, and by what they exec under the same user.
bool CoordinatorCore::may_hold(DomainId d, const Listener& l) {
  const Identity& identity = domains_[d].identity;
  if (identity.uid != l.uid) return false;
  if (identity.netns == l.netns) return true;
  auto* m = members_.first_of_listener(listeners_.index(l));
  for (; m != nullptr; m = members_.next_of_listener(*m))
    if (domains_.descends_from(d, m->domain)) return true;
  return false;
}

void CoordinatorCore::change_role(Members::Entry& member, Role role) {
  Role old = member.payload;
  if (old == role) return;
  member.payload = role;
  const Listener& l = listeners_.at(member.listener);
  // The only holder begins to accept: the choice stays the same.
  bool alone = is_only_member(member.listener) && listeners_.first_on(l.chain()) == &l &&
               listeners_.next(l) == nullptr;
  if (alone && old == Role::kOnly && role == Role::kAccepts) return;
  revoke_chain(l.chain(), l.netns);
}

bool CoordinatorCore::is_only_member(Index listener) {
  auto* first = members_.first_of_listener(listener);
  return first != nullptr && members_.next_of_listener(*first) == nullptr;
}

// ---- connect ----------------------------------------------------------------------------

void CoordinatorCore::connect(DomainId from, const shm::Message& m) {
  Address address = address_of(m.words[0], m.words[1]);
  if (uint16_t(m.words[2]) != 0) address = destination(address);
  Destination to{address, uint16_t(m.words[2]), domains_[from].identity.netns};
  bool wants_grant = m.words[3] == 1 && !gives_no_grants_;
  if (!gather(to)) return answer(from, m, ENOENT);
  if (candidate_count_ > 0 && candidates_[0].listener->is_name() && !is_admitted(from, *candidates_[0].listener))
    return answer(from, m, EACCES);
  if (policy_ != nullptr && candidate_count_ > 0)
    if (int error = refuses_connect(from, *candidates_[0].listener); error != 0) return answer(from, m, uint16_t(error));
  const Candidate* c = m.words[5] != 0 ? numbered(m.words[5]) : choose(low(m.words[4]), high(m.words[4]));
  if (c == nullptr) return answer(from, m, EAGAIN);
  if (!may_begin_at(from, *c->listener)) return answer(from, m, ENOSPC);
  uint32_t choices = wants_grant && !is_bounded(from) && grant_all(from) ? candidate_count_ : 0;
  reply_connected(from, m, *c->listener, c->domain, address, choices);
}

void CoordinatorCore::reply_connected(DomainId to, const shm::Message& request, const Listener& l,
                                      DomainId acceptor, const Address& address, uint32_t choices) {
  shm::Message reply{request.type, 0, request.id, {}};
  AddressWords words = words_of(address);
  reply.words[0] = both(acceptor, l.id);
  reply.words[1] = both(l.backlog, choices);
  reply.words[2] = words.first;
  reply.words[3] = words.second;
  reply.words[4] = uint64_t(domains_[acceptor].identity.pid);
  actions_->reply(to, reply);
}

// Collects the acceptors of the closest listeners. False when nobody listens there.
bool CoordinatorCore::gather(const Destination& to) {
  int best = 0;
  for (Listener* l = listeners_.first_on(Listener::chain_of(to.address, to.port)); l != nullptr; l = listeners_.next(*l)) {
    int match = l->netns == to.netns ? l->match(to.address) : 0;
    if (match > best) best = match;
  }
  candidate_count_ = 0;
  if (best == 0) return false;
  gather_role(to, best, Role::kAccepts);
  if (candidate_count_ == 0) gather_role(to, best, Role::kOnly);
  return true;
}

void CoordinatorCore::gather_role(const Destination& to, int best, Role role) {
  for (Listener* l = listeners_.first_on(Listener::chain_of(to.address, to.port)); l != nullptr; l = listeners_.next(*l)) {
    if (l->netns != to.netns || l->match(to.address) != best) continue;
    Index i = listeners_.index(*l);
    if (role == Role::kOnly && !is_only_member(i)) continue;
    for (auto* m = members_.first_of_listener(i); m != nullptr; m = members_.next_of_listener(*m))
      if (m->payload == role && candidate_count_ < kMaxCandidates)
        candidates_[candidate_count_++] = {l, m->domain};
  }
}

// One that waits for connections and was not given one yet, else one that waits, else the next in
// turn.
const CoordinatorCore::Candidate* CoordinatorCore::choose(ListenerId avoid_listener,
                                                          DomainId avoid_domain) {
  if (candidate_count_ == 0) return nullptr;
  uint32_t& turn = candidates_[0].listener->turn;  // no remainders here: not every processor divides
  uint32_t at = turn < candidate_count_ ? turn : 0;
  turn = at + 1;
  const Candidate* next = nullptr;
  const Candidate* assigned = nullptr;
  for (uint32_t n = 0; n < candidate_count_; ++n) {
    const Candidate& c = candidates_[at];
    at = at + 1 < candidate_count_ ? at + 1 : 0;
    if (c.listener->id == avoid_listener && c.domain == avoid_domain) continue;
    if (candidate_count_ == 1) return &c;
    Idleness idleness = this->idleness(c.domain, c.listener->id);
    if (idleness == Idleness::kIdle) {
      assign(c.domain, c.listener->id);
      return &c;
    }
    if (idleness == Idleness::kAssigned && assigned == nullptr) assigned = &c;
    if (next == nullptr) next = &c;
  }
  return assigned != nullptr ? assigned : next;
}

// Whoever accepts asks for it: with a policy, what is begun without our knowledge is not accepted.
bool CoordinatorCore::may_begin_at(DomainId from, const Listener& l) {
  return policy_ == nullptr || l.is_name() || admit(from, l, {}) == 0;
}

// The client collects who accepts there.
const CoordinatorCore::Candidate* CoordinatorCore::numbered(uint64_t from_one) const {
  if (candidate_count_ == 0) return nullptr;
  return &candidates_[from_one <= candidate_count_ ? from_one - 1 : 0];
}

// All or none: any change among them is to be told. None to one of several acceptors itself: it leaves what would be its
// own to the kernel, and so could never know all of them.
bool CoordinatorCore::grant_all(DomainId to) {
  if (candidate_count_ > shm::kMostChoices) return false;
  for (uint32_t i = 0; candidate_count_ > 1 && i < candidate_count_; ++i)
    if (candidates_[i].domain == to) return false;
  for (uint32_t i = 0; i < candidate_count_; ++i)
    if (!may_begin_at(to, *candidates_[i].listener) || !grant(to, *candidates_[i].listener)) return false;
  return true;
}

bool CoordinatorCore::grant(DomainId to, const Listener& l) {
  Index i = listeners_.index(l);
  return grants_.find(to, i) != nullptr || grants_.add(to, i, {}) != nullptr;
}

void CoordinatorCore::revoke_grants(const Listener& l) {
  while (auto* g = grants_.first_of_listener(listeners_.index(l))) {
    DomainId to = g->domain;
    grants_.remove(*g);
    actions_->revoke(to, l.id);
  }
}

void CoordinatorCore::revoke_chain(uint32_t chain, uint64_t netns) {
  for (Listener* l = listeners_.first_on(chain); l != nullptr; l = listeners_.next(*l))
    if (l->netns == netns) revoke_grants(*l);
}

// ---- ports and bells --------------------------------------------------------------------

// Said of others than neighbours it would only be noise.
void CoordinatorCore::cannot_meet(DomainId from, const shm::Message& m) {
  DomainId peer = low(m.words[0]);
  bool known = DomainTable::is_valid(peer) && peer != from && adjacency_.are_neighbours(from, peer);
  if (known && domains_.is(peer, Presence::kPresent)) actions_->unmet(peer, from, high(m.words[0]));
}

void CoordinatorCore::lease_ports(DomainId from, const shm::Message& m) {
  Domain& d = domains_[from];
  uint16_t first = leases_.lend(from, d.leases, [this](uint32_t first) {
    for (uint32_t p = first; p < first + kPortsPerLease; ++p)
      if (listeners_.first_on(uint16_t(p)) != nullptr) return false;
    return true;
  });
  if (first == 0) return answer(from, m, ENOSPC);
  ++d.leases;
  shm::Message reply = m;
  reply.words[0] = both(first, kPortsPerLease);
  answer(from, reply, 0);
}

void CoordinatorCore::ring(const shm::Message& m) {
  DomainId to = low(m.words[0]);
  if (m.words[0] == to && domains_.is(to, Presence::kPresent)) actions_->ring(to);
}

}  // namespace sluice::monitor::core
