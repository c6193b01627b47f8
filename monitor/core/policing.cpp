// What the administrator's policy allows, and how much of it.
#include <errno.h>

#include "monitor/core/coordinator_core.h"
#include "monitor/core/words.h"

namespace sluice::monitor::core {

// ---- a new policy -----------------------------------------------------------------------

void CoordinatorCore::set_policy(const Policy* policy) {
  policy_ = policy;
  refusals_ = {};
  accounts_.clear();
  needs_time_ = false;
  for (uint32_t i = 0; policy != nullptr && i < policy->limit_count; ++i) needs_time_ |= policy->limits[i].requests != 0;
  for (DomainId d = shm::kCoordinator + 1; d < shm::kMaxDomains; ++d) {
    while (auto* g = grants_.first_of_domain(d)) {
      ListenerId listener = listeners_.at(g->listener).id;
      grants_.remove(*g);
      actions_->revoke(d, listener);
    }
    if (policy == nullptr) continue;
    if (hears(d)) count_client(domains_[d].identity.uid, true);
    judge_listeners(d);
    judge_admissions(d);
  }
}

void CoordinatorCore::judge_listeners(DomainId domain) {
  for (Members::Entry* next, *m = members_.first_of_domain(domain); m != nullptr; m = next) {
    next = members_.next_of_domain(*m);
    if (decide(attempt_of(domain, listeners_.at(m->listener), kListening), false) != Verdict::kAllow) release(*m);
  }
}

// What the dead have begun was allowed when they began it, and nobody else gets it.
void CoordinatorCore::judge_admissions(DomainId domain) {
  if (!domains_.is(domain, Presence::kPresent)) return;
  for (Admissions::Entry* next, *a = admissions_.first_of_domain(domain); a != nullptr; a = next) {
    next = admissions_.next_of_domain(*a);
    if (decide(attempt_of(domain, listeners_.at(a->listener), kConnecting), false) != Verdict::kAllow) drop(*a);
  }
}

// ---- rules ------------------------------------------------------------------------------

Attempt CoordinatorCore::attempt_of(DomainId domain, const Listener& l, Operation operation) {
  return {operation, domains_[domain].identity.uid, actions_->program_of(domain), l.port,
          l.is_name() ? actions_->name_of(l.id) : std::string_view()};
}

Verdict CoordinatorCore::decide(const Attempt& attempt, bool counts) {
  uint32_t rule;
  Verdict verdict = policy_->decide(attempt, rule);
  if (verdict != Verdict::kAllow && counts) ++refusals_.by_rule[rule];
  return verdict;
}

int CoordinatorCore::judge(const Attempt& attempt) {
  switch (decide(attempt, true)) {
    case Verdict::kAllow: return 0;
    case Verdict::kKernel: return EACCES;
    case Verdict::kDeny: break;
  }
  return EPERM;
}

int CoordinatorCore::may_listen_at(DomainId domain, std::string_view name) {
  if (policy_ == nullptr) return 0;
  return judge({kListening, domains_[domain].identity.uid, actions_->program_of(domain), 0, name});
}

int CoordinatorCore::may_connect_to(DomainId domain, ListenerId listener) {
  Listener* l = policy_ != nullptr ? visible_listener(domain, listener) : nullptr;
  return l != nullptr ? refuses_connect(domain, *l) : 0;
}

int CoordinatorCore::refuses_connect(DomainId from, const Listener& l) {
  if (int error = judge(attempt_of(from, l, kConnecting)); error != 0) return error;
  if (int error = judge_usage(domains_[from].identity.uid, true); error != 0) return error;
  return l.uid != domains_[from].identity.uid ? judge_usage(l.uid, false) : 0;
}

// Whoever accepts a connection is asked whether the other side may begin it.
void CoordinatorCore::may(DomainId from, const shm::Message& m) {
  DomainId who = low(m.words[0]);
  Listener* l = listeners_.find(low(m.words[1]));
  if (!DomainTable::is_valid(who) || l == nullptr || members_.find(from, listeners_.index(*l)) == nullptr)
    return answer(from, m, ENOENT);
  if (policy_ != nullptr && !is_admitted(who, *l)) return answer(from, m, EACCES);
  const Policy::Limit* limit = limit_of(domains_[who].identity.uid);
  shm::Message reply{m.type, 0, m.id, {limit != nullptr ? limit->connections : 0}};
  actions_->reply(from, reply);
}

// ---- limits -----------------------------------------------------------------------------

const Policy::Limit* CoordinatorCore::limit_of(uint32_t uid) {
  Account* a = account_of(uid);
  return a != nullptr ? limit_of(*a) : nullptr;
}

void CoordinatorCore::count_client(uint32_t uid, bool comes) {
  if (policy_ == nullptr) return;
  bool full = false;
  Account* a = comes ? accounts_.open(*policy_, uid, full) : accounts_.find(uid);
  if (a != nullptr) a->clients += comes ? 1 : a->clients != 0 ? ~0u : 0;
}

int CoordinatorCore::may_register(uint32_t uid) {
  if (policy_ == nullptr) return 0;
  bool full = false;
  Account* a = accounts_.open(*policy_, uid, full);
  if (full) return EDQUOT;
  if (a == nullptr || limit_of(*a)->clients == 0 || a->clients < limit_of(*a)->clients) return 0;
  ++refusals_.by_limit[a->limit - 1].clients;
  return EDQUOT;
}

// Memory counts on both sides of a connection, the connection where it is begun.
int CoordinatorCore::judge_usage(uint32_t uid, bool begins) {
  const Policy::Limit* limit = limit_of(uid);
  if (limit == nullptr) return 0;
  auto& refused = refusals_.by_limit[policy_->index(*limit)];
  if (begins && limit->connections != 0 && actions_->connections_of(uid) >= limit->connections)
    return ++refused.connections, EDQUOT;
  if (limit->bytes != 0 && actions_->memory_of(uid) >= limit->bytes) return ++refused.bytes, EDQUOT;
  return 0;
}

// Who has a limit on what is counted at a connect has to ask each time.
bool CoordinatorCore::is_bounded(DomainId domain) {
  const Policy::Limit* limit = limit_of(domains_[domain].identity.uid);
  return limit != nullptr && (limit->connections != 0 || limit->bytes != 0);
}

// ---- requests per second ----------------------------------------------------------------

namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kRefusalsPerRequest = 8;

uint64_t time_of_one(const Policy::Limit& l) { return kSecond / l.requests; }

uint64_t ahead(const Account& a, uint64_t now_ns) { return a.ahead_until_ns > now_ns ? a.ahead_until_ns - now_ns : 0; }

void move_on(Account& a, uint64_t now_ns, uint64_t by_ns) { a.ahead_until_ns = now_ns + ahead(a, now_ns) + by_ns; }

}  // namespace

bool CoordinatorCore::is_delayed(uint32_t uid) {
  Account* a = needs_time_ ? accounts_.find(uid) : nullptr;
  if (a == nullptr || limit_of(*a)->requests == 0) return false;
  const Policy::Limit& l = *limit_of(*a);
  if (ahead(*a, now_ns_) <= 2 * l.burst * time_of_one(l)) return false;
  return met_delay_ = true;
}

void CoordinatorCore::charge(uint32_t uid) {
  if (!needs_time_) return;
  bool full = false;
  Account* a = accounts_.open(*policy_, uid, full);
  if (a != nullptr && limit_of(*a)->requests != 0) move_on(*a, now_ns_, time_of_one(*limit_of(*a)));
}

// False: too much, and the kernel can do what was asked for. What ends something, or is of no use to anybody if it
// is not answered, is served whatever it costs.
bool CoordinatorCore::charge(DomainId sender, uint16_t type) {
  Account* a = accounts_.find(domains_[sender].identity.uid);
  if (a == nullptr || limit_of(*a)->requests == 0) return true;
  const Policy::Limit& l = *limit_of(*a);
  bool refused = type == shm::kConnect && ahead(*a, now_ns_) > (l.burst - 1) * time_of_one(l);
  move_on(*a, now_ns_, refused ? time_of_one(l) / kRefusalsPerRequest : time_of_one(l));
  if (refused) ++refusals_.by_limit[a->limit - 1].requests;
  return !refused;
}

}  // namespace sluice::monitor::core
