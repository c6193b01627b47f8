// Domains: who comes, who goes, who hears of it.
#include <errno.h>

#include <type_traits>

#include "monitor/core/coordinator_core.h"

namespace sluice::monitor::core {

// No constructor may touch memory that is not used.
static_assert(std::is_trivially_default_constructible_v<CoordinatorCore>);

void CoordinatorCore::init(Actions& actions, DomainId first) {
  actions_ = &actions;
  domains_.init(first);
  next_ticket_ = uint64_t{first} << 32;  // those of an earlier coordinator are others
}

DomainId CoordinatorCore::admit(const Identity& identity, DomainId wanted) {
  bool awaited =
      domains_.is(wanted, Presence::kExpected) && domains_[wanted].identity.pid == identity.pid;
  DomainId id = awaited || domains_.may_have(wanted, identity) ? wanted : domains_.free_id();
  if (id == shm::kNobody) return id;
  if (awaited) actions_->unwatch(id);
  forget_admissions(id);
  domains_.take(id, identity, shm::kNobody, Presence::kPresent);
  count_client(identity.uid, true);
  ++present_;
  actions_->set_alive(id, true);
  return id;
}

DomainId CoordinatorCore::reserve(DomainId parent) {
  bool lives = domains_.is(parent, Presence::kPresent) || domains_.is(parent, Presence::kReserved);
  // A child that is not known would lose what it inherits, so the limit is not as tight for it.
  const Policy::Limit* limit = lives ? limit_of(domains_[parent].identity.uid) : nullptr;
  if (limit != nullptr && limit->clients != 0 && account_of(domains_[parent].identity.uid)->clients / 2 >= limit->clients) {
    ++refusals_.by_limit[policy_->index(*limit)].clients;
    return shm::kNobody;
  }
  DomainId id = lives ? domains_.free_id() : shm::kNobody;
  if (id == shm::kNobody) return id;
  Identity identity = domains_[parent].identity;
  identity.pid = 0;
  forget_admissions(id);
  domains_.take(id, identity, parent, Presence::kReserved);
  inherit_listeners(id, parent);
  domains_[id].tell_everyone = !adjacency_.inherit(id, parent) || domains_[parent].tell_everyone;
  count_client(identity.uid, true);
  ++present_;
  actions_->set_alive(id, true);
  return id;
}

// The child has the parent's descriptors, and keeps the listeners up should the parent go first.
void CoordinatorCore::inherit_listeners(DomainId child, DomainId parent) {
  for (auto* m = members_.first_of_domain(parent); m != nullptr; m = members_.next_of_domain(*m)) {
    if (m->payload == Role::kOnly) change_role(*m, Role::kHolder);
    hold(child, listeners_.at(m->listener), Role::kHolder);
  }
}

bool CoordinatorCore::enter(DomainId child, const Identity& identity) {
  if (!domains_.is(child, Presence::kReserved)) return false;
  domains_[child].identity = identity;
  domains_[child].presence = Presence::kPresent;
  return true;
}

void CoordinatorCore::remove(DomainId domain) {
  if (!DomainTable::is_valid(domain) || domains_.is_absent(domain)) return;
  Domain& d = domains_[domain];
  if (d.presence == Presence::kExpected)
    actions_->unwatch(domain);
  else if (d.presence != Presence::kInFlight) {
    --present_;
    count_client(d.identity.uid, false);
  }
  d.presence = Presence::kAbsent;
  actions_->set_alive(domain, false);
  let_go_of_what_it_has(domain);
  if (d.leases != 0) leases_.take_back(domain);
  tell_neighbours(domain);
}

void CoordinatorCore::suspend(DomainId domain) {
  if (!domains_.is(domain, Presence::kPresent)) return remove(domain);
  --present_;
  domains_[domain].presence = Presence::kExpected;
  let_go_of_what_it_has(domain);
}

void CoordinatorCore::let_go_of_what_it_has(DomainId domain) {
  while (auto* g = grants_.first_of_domain(domain)) grants_.remove(*g);
  while (auto* w = waiters_.first_of_domain(domain)) leave_line(*w);
  while (auto* m = members_.first_of_domain(domain)) release(*m);
}

// A forked child has its parent's connections before it has said a word.
bool CoordinatorCore::hears(DomainId domain) const {
  return domains_.is(domain, Presence::kPresent) || domains_.is(domain, Presence::kReserved);
}

void CoordinatorCore::tell_neighbours(DomainId dead) {
  if (domains_[dead].tell_everyone) {
    for (DomainId d = shm::kCoordinator + 1; d < shm::kMaxDomains; ++d)
      if (hears(d)) actions_->gone(d, dead);
  }
  while (DomainId neighbour = adjacency_.take_neighbour(dead)) tell(neighbour, dead);
}

void CoordinatorCore::tell(DomainId neighbour, DomainId dead) {
  Domain& n = domains_[neighbour];
  bool told = domains_[dead].tell_everyone;
  if (hears(neighbour) && !told) actions_->gone(neighbour, dead);
  // Nobody is left who knows the expected one.
  if (n.presence != Presence::kExpected || adjacency_.degree(neighbour) != 0) return;
  n.presence = Presence::kAbsent;
  actions_->unwatch(neighbour);
  actions_->set_alive(neighbour, false);
}

int CoordinatorCore::pair(DomainId a, DomainId b) {
  if (!domains_.is(a, Presence::kPresent) || !domains_.is(b, Presence::kPresent)) return ESRCH;
  // Loopback of one network namespace is not loopback of another.
  if (domains_[a].identity.netns != domains_[b].identity.netns) return EACCES;
  return a == b || adjacency_.connect(a, b) ? 0 : ENOMEM;
}

int CoordinatorCore::share(DomainId taker, DomainId peer) {
  bool lives = domains_.is(peer, Presence::kPresent) || domains_.is(peer, Presence::kExpected);
  if (!domains_.is(taker, Presence::kPresent) || !lives) return ESRCH;
  return taker == peer || adjacency_.connect(taker, peer) ? 0 : ENOMEM;
}

DomainId CoordinatorCore::begin_flight(DomainId sender) {
  DomainId id = domains_.is(sender, Presence::kPresent) ? domains_.free_id_in_flight() : shm::kNobody;
  if (id == shm::kNobody) return id;
  domains_.take(id, domains_[sender].identity, sender, Presence::kInFlight);
  actions_->set_alive(id, true);
  return id;
}

void CoordinatorCore::announce(DomainId domain, DomainId peer, int32_t peer_pid) {
  if (!DomainTable::is_process(peer) || !domains_.is(domain, Presence::kPresent) || peer == domain)
    return;
  bool is_new = domains_.is_absent(peer);
  bool is_same = !is_new && domains_[peer].identity.pid == peer_pid;
  bool fits = adjacency_.degree(domain) < kAnnouncementsPerDomain;
  if (!fits || !(is_new || is_same) || !adjacency_.connect(domain, peer)) {
    actions_->gone(domain, peer);
    return;
  }
  if (!is_new) return;
  forget_admissions(peer);
  domains_.take(peer, {0, 0, peer_pid}, shm::kNobody, Presence::kExpected);
  actions_->set_alive(peer, true);
  actions_->watch(peer, peer_pid);
}

}  // namespace sluice::monitor::core
