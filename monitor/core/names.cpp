// Listeners of AF_UNIX: who may connect to them, and as whom. What the kernel would look at, files
// and their permissions, is looked at by others; here it is remembered.
#include <errno.h>

#include "monitor/core/coordinator_core.h"
#include "monitor/core/words.h"

namespace sluice::monitor::core {

ListenerId CoordinatorCore::listen_name(DomainId from, const shm::UnixKey& key, uint32_t backlog, Role role) {
  if (!domains_.is(from, Presence::kPresent) || domains_[from].memberships >= kListenersPerDomain) return 0;
  Listener wanted{};
  wanted.address = address_of(key);
  wanted.backlog = backlog;
  wanted.netns = domains_[from].identity.netns;
  wanted.uid = domains_[from].identity.uid;
  Listener* l = listeners_.first_on(wanted.chain());
  while (l != nullptr && (l->netns != wanted.netns || l->address != wanted.address)) l = listeners_.next(*l);
  if (l == nullptr) l = open(wanted);
  if (l == nullptr || !hold(from, *l, role)) return 0;
  l->backlog = backlog;
  return l->id;
}

uint64_t CoordinatorCore::admit_to(DomainId from, ListenerId listener, uint32_t uid, uint32_t gid) {
  Listener* l = visible_listener(from, listener);
  if (l == nullptr || !l->is_name() || !domains_.is(from, Presence::kPresent)) return 0;
  Index i = listeners_.index(*l);
  if (auto* a = admissions_.find(from, i)) {
    if (a->payload.uid == uid && a->payload.gid == gid) return a->payload.ticket;
    drop(*a);  // it has become somebody else: what it asked for before is over
  }
  Admission admission{++next_ticket_, uid, gid};
  return admit(from, *l, admission) == 0 ? admission.ticket : 0;
}

// 0 or ENOSPC.
int CoordinatorCore::admit(DomainId from, const Listener& l, const Admission& admission) {
  Index i = listeners_.index(l);
  if (admissions_.find(from, i) != nullptr) return 0;
  if (domains_[from].admissions >= kAdmissionsPerDomain) return ENOSPC;
  if (admissions_.add(from, i, admission) == nullptr) {
    forget_admissions_of_the_dead();
    if (admissions_.add(from, i, admission) == nullptr) return ENOSPC;
  }
  ++domains_[from].admissions;
  return 0;
}

void CoordinatorCore::drop(Admissions::Entry& admission) {
  --domains_[admission.domain].admissions;
  admissions_.remove(admission);
}

void CoordinatorCore::forget_admissions(DomainId domain) {
  while (auto* a = admissions_.first_of_domain(domain)) drop(*a);
}

void CoordinatorCore::forget_admissions_of_the_dead() {
  for (DomainId d = shm::kCoordinator + 1; d < shm::kMaxDomains; ++d)
    if (domains_.is_absent(d)) forget_admissions(d);
}

// Who is told is who has the connection before it: the name's listeners.
void CoordinatorCore::who(DomainId from, const shm::Message& m) {
  DomainId who = low(m.words[0]);
  if (!DomainTable::is_valid(who)) return answer(from, m, ENOENT);
  auto* a = admissions_.first_of_domain(who);
  while (a != nullptr && a->payload.ticket != m.words[1]) a = admissions_.next_of_domain(*a);
  if (a == nullptr || members_.find(from, a->listener) == nullptr) return answer(from, m, ENOENT);
  shm::Message reply{m.type, 0, m.id, {}};
  reply.words[0] = listeners_.at(a->listener).id;
  reply.words[1] = both(uint32_t(domains_[who].identity.pid), a->payload.uid);
  reply.words[2] = a->payload.gid;
  actions_->reply(from, reply);
}

}  // namespace sluice::monitor::core
