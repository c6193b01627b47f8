// The coordinator's brain: who lives, who listens where, who may talk to whom.
//
// Must be zero-initialised (static storage, or value-initialised), then init(). Memory is
// touched as it is used, so an idle coordinator stays small. Nothing here blocks, allocates or
// fails but by the results named; every value that comes from a domain is checked.
#pragma once

#include "monitor/core/accounts.h"
#include "monitor/core/actions.h"
#include "monitor/core/adjacency.h"
#include "monitor/core/domain_table.h"
#include "monitor/core/limits.h"
#include "monitor/core/listener_table.h"
#include "monitor/core/policy.h"
#include "monitor/core/port_leases.h"
#include "monitor/core/relation.h"
#include "shm/protocol.h"

namespace sluice::monitor::core {

class CoordinatorCore {
 public:
  // `first`: the id of the first domain; random after a restart, so that a newcomer hardly
  // meets an id that somebody is about to announce.
  void init(Actions& actions, DomainId first);
  // Each connect asks, though there be no choice: only to measure what grants save.
  void give_no_grants() { gives_no_grants_ = true; }
  void add_port_range(uint32_t first, uint32_t last) { leases_.add_range(first, last); }

  // From now on these are the rules; null: none. The table stays the caller's, and is not changed until there is
  // another. Grants end, listeners and clients' rights to connect that the rules do not allow too; connections stay.
  void set_policy(const Policy* policy);
  const Policy* policy() const { return policy_; }
  // How often each rule and each limit has refused something, since there is this policy.
  struct Refusals {
    uint64_t by_rule[kMaxRules];
    struct {
      uint64_t clients, connections, bytes, requests;
    } by_limit[kMaxLimits];
  };
  const Refusals& refusals() const { return refusals_; }
  // Nanoseconds of a clock that does not jump; as long as needs_time() it has to be told again and again.
  void tell_time(uint64_t now_ns) { now_ns_ = now_ns; }
  bool needs_time() const { return needs_time_; }
  // Whether the user has asked so much that nothing is to be taken from it for now.
  bool is_delayed(uint32_t uid);
  // Whether that was so for anybody since the last call of this.
  bool take_delay() { bool met = met_delay_; met_delay_ = false; return met; }
  // The user has asked for something by other means than handle().
  void charge(uint32_t uid);
  // Whether a process of this user may register: 0 or EDQUOT.
  int may_register(uint32_t uid);
  // Whether it may have more memory.
  int may_take_memory(uint32_t uid) { return judge_usage(uid, false); }
  // Whether the rules let it listen under this name, connect there: 0; EACCES: the kernel may; EPERM: no; EDQUOT.
  int may_listen_at(DomainId domain, std::string_view name);
  int may_connect_to(DomainId domain, ListenerId listener);

  // A process registers. `wanted`: an id that it had with an earlier coordinator, or 0. Returns its
  // id, which need not be the wanted one; kNobody when there is none left.
  DomainId admit(const Identity& identity, DomainId wanted);
  // A process is about to fork. Returns the child's id, or kNobody.
  DomainId reserve(DomainId parent);
  // The child has come to life. False when `child` is not a reserved id.
  bool enter(DomainId child, const Identity& identity);
  // A domain died: tells its neighbours, frees what it had. Harmless for absent ones.
  void remove(DomainId domain);
  // The coordinator lets go of a process that lives, and is to be watched by the caller: it is expected back under its id. What
  // it listens on it says again then.
  void suspend(DomainId domain);

  // `from` listens on a socket of AF_UNIX called `key`. 0: no room.
  ListenerId listen_name(DomainId from, const shm::UnixKey& key, uint32_t backlog, shm::AcceptorRole role);
  // `from` has shown that it may connect to that listener, as this user. Its ticket for there; 0: there
  // is no such listener in its namespace, or no room.
  uint64_t admit_to(DomainId from, ListenerId listener, uint32_t uid, uint32_t gid);

  // Two domains are about to share regions. 0, or ESRCH, EACCES, ENOMEM.
  int pair(DomainId a, DomainId b);
  // `taker` was passed a connection whose other side is `peer`: it hears of its death. 0, or ESRCH,
  // ENOMEM.
  int share(DomainId taker, DomainId peer);
  // A connection that `sender` passes is under way. A holder for the time being, to be removed in
  // the end; or kNobody.
  DomainId begin_flight(DomainId sender);
  // `domain` shares regions with `peer` from before the coordinator restarted.
  void announce(DomainId domain, DomainId peer, int32_t peer_pid);

  // A request. `sender` is vouched for by the transport.
  void handle(DomainId sender, const shm::Message& request);

  const Domain& domain(DomainId id) const { return domains_[id]; }
  bool is_alive(DomainId id) const { return DomainTable::is_valid(id) && !domains_.is_absent(id); }
  bool descends(DomainId id, DomainId ancestor) const { return domains_.descends_from(id, ancestor); }
  // Announced by another, and not yet back.
  bool is_expected(DomainId id) const { return domains_.is(id, Presence::kExpected); }
  uint32_t present() const { return present_; }  // present and reserved domains
  uint32_t listeners() const { return listeners_count_; }
  // Calls visit(const Listener&, AcceptorRole) for each listener that `domain` holds.
  template <class Visit>
  void for_each_listener_of(DomainId domain, Visit visit) {
    for (auto* m = members_.first_of_domain(domain); m != nullptr; m = members_.next_of_domain(*m))
      visit(listeners_.at(m->listener), m->payload);
  }

 private:
  using Role = shm::AcceptorRole;
  using Members = Relation<Role, kMaxMemberships>;
  struct Nothing {};
  using Grants = Relation<Nothing, kMaxGrants>;
  // Who may connect to which name, and as whom. Outlives the domain, whose last words may still wait
  // to be accepted, until another one gets its id or the table is full.
  struct Admission {
    uint64_t ticket;
    uint32_t uid, gid;
  };
  using Admissions = Relation<Admission, kMaxAdmissions>;
  // Who waits where; the payload is the place in the line.
  using Waiters = Relation<int64_t, kMaxWaiters>;
  struct Candidate {
    Listener* listener;
    DomainId domain;
  };
  struct Destination {
    Address address;
    uint16_t port;
    uint64_t netns;
  };

  void listen(DomainId from, const shm::Message& m);
  void unlisten(DomainId from, const shm::Message& m);
  void set_acceptor(DomainId from, const shm::Message& m);
  void connect(DomainId from, const shm::Message& m);
  void lease_ports(DomainId from, const shm::Message& m);
  void ring(const shm::Message& m);
  void wait(DomainId from, const shm::Message& m);
  void idle(DomainId from, const shm::Message& m);
  void move(DomainId from, const shm::Message& m);
  void who(DomainId from, const shm::Message& m);
  void may(DomainId from, const shm::Message& m);
  void cannot_meet(DomainId from, const shm::Message& m);
  void answer(DomainId to, const shm::Message& request, uint16_t status);

  void let_go_of_what_it_has(DomainId domain);
  bool is_foreign(const Listener& wanted);
  Listener* joinable(const Listener& wanted);
  Listener* open(const Listener& wanted);
  bool may_hold(DomainId d, const Listener& l);
  bool hold(DomainId d, Listener& l, Role role);
  void release(Members::Entry& member);
  void close_if_unheld(Listener& l);
  void change_role(Members::Entry& member, Role role);
  bool is_only_member(Index listener);
  bool is_admitted(DomainId d, const Listener& l) { return admissions_.find(d, listeners_.index(l)) != nullptr; }

  bool gather(const Destination& to);
  void gather_role(const Destination& to, int best, Role role);
  const Candidate* choose(ListenerId avoid_listener, DomainId avoid_domain);
  enum class Idleness { kBusy, kAssigned, kIdle };
  Idleness idleness(DomainId acceptor, ListenerId listener);
  DomainId idle_acceptor(const Listener& l, DomainId waiter, DomainId busy);
  void assign(DomainId acceptor, ListenerId listener);
  void reply_connected(DomainId to, const shm::Message& request, const Listener& l,
                       DomainId acceptor, const Address& address, uint32_t choices);
  bool stand_in_line(DomainId waiter, Listener& l, int64_t place);
  void leave_line(Waiters::Entry& waiter);
  Listener* visible_listener(DomainId to, ListenerId id);
  bool call_next(const Listener& l, DomainId except);
  bool may_begin_at(DomainId from, const Listener& l);
  const Candidate* numbered(uint64_t from_one) const;
  bool grant_all(DomainId to);
  bool grant(DomainId to, const Listener& l);
  void revoke_grants(const Listener& l);
  void revoke_chain(uint32_t chain, uint64_t netns);
  int admit(DomainId from, const Listener& l, const Admission& admission);
  void drop(Admissions::Entry& admission);
  void forget_admissions(DomainId domain);
  void forget_admissions_of_the_dead();

  // ---- the policy: policing.cpp
  const Policy::Limit* limit_of(const Account& a) const { return &policy_->limits[a.limit - 1]; }
  Account* account_of(uint32_t uid) { return policy_ != nullptr ? accounts_.find(uid) : nullptr; }
  const Policy::Limit* limit_of(uint32_t uid);
  void count_client(uint32_t uid, bool comes);
  void judge_listeners(DomainId domain);
  void judge_admissions(DomainId domain);
  Verdict decide(const Attempt& attempt, bool counts);
  Attempt attempt_of(DomainId domain, const Listener& l, Operation operation);
  int judge(const Attempt& attempt);
  int judge_usage(uint32_t uid, bool begins);
  int refuses_connect(DomainId from, const Listener& l);
  bool is_bounded(DomainId domain);
  bool charge(DomainId sender, uint16_t request_type);

  void inherit_listeners(DomainId child, DomainId parent);
  bool hears(DomainId domain) const;
  void tell_neighbours(DomainId dead);
  void tell(DomainId neighbour, DomainId dead);

  Actions* actions_;
  uint32_t present_;
  uint32_t listeners_count_;
  DomainTable domains_;
  Adjacency<kMaxEdges> adjacency_;
  ListenerTable<kMaxListeners> listeners_;
  Members members_;
  Grants grants_;
  Admissions admissions_;
  uint64_t next_ticket_;
  Waiters waiters_;
  int64_t line_begin_;  // places before those in use, and after them
  int64_t line_end_;
  PortLeases leases_;
  bool gives_no_grants_;
  const Policy* policy_;
  Accounts accounts_;
  Refusals refusals_;
  bool needs_time_;
  bool met_delay_;
  uint64_t now_ns_;
  Candidate candidates_[kMaxCandidates];
  uint32_t candidate_count_;
};

}  // namespace sluice::monitor::core
