// Connections that wait for a busy acceptor: who could accept them instead.
#include <errno.h>

#include "monitor/core/coordinator_core.h"
#include "monitor/core/words.h"

namespace sluice::monitor::core {

// An acceptor that was chosen wakes only a little later: until then another one is better.
CoordinatorCore::Idleness CoordinatorCore::idleness(DomainId acceptor, ListenerId listener) {
  const Domain& d = domains_[acceptor];
  if (d.asks == listener) return Idleness::kIdle;
  uint32_t sleep = actions_->sleeps_at(acceptor, listener);
  if (sleep == 0) return Idleness::kBusy;
  return sleep == d.assigned_sleep ? Idleness::kAssigned : Idleness::kIdle;
}

void CoordinatorCore::assign(DomainId acceptor, ListenerId listener) {
  domains_[acceptor].assigned_sleep = actions_->sleeps_at(acceptor, listener);
  domains_[acceptor].asks = 0;
}

// Of the processes that accept at this very listener: the queues of SO_REUSEPORT are separate.
DomainId CoordinatorCore::idle_acceptor(const Listener& l, DomainId waiter, DomainId busy) {
  DomainId assigned = shm::kNobody;
  auto* m = members_.first_of_listener(listeners_.index(l));
  for (; m != nullptr; m = members_.next_of_listener(*m)) {
    if (m->payload != Role::kAccepts || m->domain == waiter || m->domain == busy) continue;
    Idleness idleness = this->idleness(m->domain, l.id);
    if (idleness == Idleness::kIdle) return m->domain;
    // Perhaps what it was given never came.
    if (idleness == Idleness::kAssigned && assigned == shm::kNobody) assigned = m->domain;
  }
  return assigned;
}

Listener* CoordinatorCore::visible_listener(DomainId to, ListenerId id) {
  Listener* l = listeners_.find(id);
  return l != nullptr && l->netns == domains_[to].identity.netns ? l : nullptr;
}

// From when this returns, whoever goes to sleep at `l` sees that somebody waits there.
bool CoordinatorCore::stand_in_line(DomainId waiter, Listener& l, int64_t place) {
  Index i = listeners_.index(l);
  if (waiters_.find(waiter, i) != nullptr) return true;
  Domain& d = domains_[waiter];
  if (d.waits >= kWaitsPerDomain || waiters_.add(waiter, i, place) == nullptr) return false;
  ++d.waits;
  actions_->set_waited(l.id, true);
  return true;
}

void CoordinatorCore::leave_line(Waiters::Entry& waiter) {
  Index i = waiter.listener;
  --domains_[waiter.domain].waits;
  waiters_.remove(waiter);
  if (waiters_.first_of_listener(i) == nullptr) actions_->set_waited(listeners_.at(i).id, false);
}

void CoordinatorCore::wait(DomainId from, const shm::Message& m) {
  Listener* l = visible_listener(from, low(m.words[0]));
  if (l == nullptr) return;
  if (m.words[1] == 0) {
    if (auto* w = waiters_.find(from, listeners_.index(*l))) leave_line(*w);
    // The acceptor for which it was called is still idle.
    if (idle_acceptor(*l, shm::kNobody, shm::kNobody) != shm::kNobody) call_next(*l, from);
    return;
  }
  if (!stand_in_line(from, *l, line_end_++)) return;
  // Everybody in the line came when nobody was idle, and whoever has gone to sleep since has seen
  // the line. So an idle one is free for the newcomer.
  if (idle_acceptor(*l, from, shm::kNobody) == shm::kNobody) return;
  leave_line(*waiters_.find(from, listeners_.index(*l)));
  actions_->reconsider(from, l->id);
}

void CoordinatorCore::idle(DomainId from, const shm::Message& m) {
  Listener* l = visible_listener(from, low(m.words[0]));
  if (l == nullptr) return;
  auto* member = members_.find(from, listeners_.index(*l));
  if (member == nullptr || member->payload != Role::kAccepts) return;
  // What it was given before has not come, or it would be awake.
  domains_[from].assigned_sleep = 0;
  bool called = call_next(*l, from);
  if (called && m.words[1] == 1) domains_[from].asks = l->id;
}

// The oldest in the line takes its turn. One that does not take it is passed over when the idle
// one speaks up again.
bool CoordinatorCore::call_next(const Listener& l, DomainId except) {
  Waiters::Entry* first = nullptr;
  auto* w = waiters_.first_of_listener(listeners_.index(l));
  for (; w != nullptr; w = waiters_.next_of_listener(*w))
    if (w->domain != except && (first == nullptr || w->payload < first->payload)) first = w;
  if (first == nullptr) return false;
  DomainId waiter = first->domain;
  leave_line(*first);
  actions_->reconsider(waiter, l.id);
  return true;
}

void CoordinatorCore::move(DomainId from, const shm::Message& m) {
  Listener* l = visible_listener(from, low(m.words[0]));
  // An id from an earlier coordinator may be another listener's.
  Address to = address_of(m.words[1], m.words[2]);
  if (l == nullptr || l->port != m.words[3] || l->match(to) == 0) return answer(from, m, ENOENT);
  if ((l->is_name() || policy_ != nullptr) && !is_admitted(from, *l)) return answer(from, m, EACCES);
  // Before the look, and back to where it was.
  (void)stand_in_line(from, *l, --line_begin_);
  DomainId acceptor = idle_acceptor(*l, from, high(m.words[0]));
  bool there = acceptor == shm::kNobody && idle_acceptor(*l, from, shm::kNobody) != shm::kNobody;
  if (acceptor == shm::kNobody && !there) return answer(from, m, EAGAIN);
  // Who is idle where it waits has accepted it meanwhile, or is about to: the line is not for that.
  if (auto* w = waiters_.find(from, listeners_.index(*l))) leave_line(*w);
  if (there) return answer(from, m, EBUSY);
  assign(acceptor, l->id);
  reply_connected(from, m, *l, acceptor, to, 0);
}

}  // namespace sluice::monitor::core
