// The domains by id. Ids grow and wrap, so that a dead domain's id rests before it returns.
#pragma once

#include "monitor/core/limits.h"
#include "shm/layout.h"

namespace sluice::monitor::core {

using shm::DomainId;

enum class Presence : uint8_t {
  kAbsent,
  kReserved,  // a child about to be forked, or forked and silent
  kExpected,  // announced by a peer after a restart of the coordinator, not heard of yet
  kPresent,
  kInFlight,  // no process: stands for a passed connection that nobody has taken yet
};

using shm::kFirstInFlight;

// What the kernel vouches for.
struct Identity {
  uint32_t uid;
  uint64_t netns;
  int32_t pid;
};

struct Domain {
  Identity identity;
  DomainId parent;  // kept after death: descent is looked up through the dead
  uint32_t leases;
  uint32_t memberships;
  uint32_t admissions;      // kept after death, like the admissions themselves
  uint32_t waits;           // listeners at which it has said kWaiting
  uint32_t assigned_sleep;  // the sleep in which it was last chosen to accept
  uint32_t asks;            // a listener at which it accepts when it looks again; 0: none
  Presence presence;
  bool tell_everyone;  // its neighbours did not fit the table
  bool given;          // somebody had this id, since this coordinator began
};

class DomainTable {
 public:
  void init(DomainId first) {
    next_ = first;
    next_in_flight_ = first;
  }

  Domain& operator[](DomainId id) { return domains_[id % shm::kMaxDomains]; }
  const Domain& operator[](DomainId id) const { return domains_[id % shm::kMaxDomains]; }
  bool is(DomainId id, Presence p) const { return is_valid(id) && domains_[id].presence == p; }
  bool is_absent(DomainId id) const { return is(id, Presence::kAbsent); }
  static bool is_valid(DomainId id) { return id > shm::kCoordinator && id < shm::kMaxDomains; }

  // One that a process may have.
  static bool is_process(DomainId id) { return is_valid(id) && id < kFirstInFlight; }

  // Whether who asks for a free id may have it: nobody had it, so that it may be from an earlier coordinator; or the same
  // process had it. A dead one's is named in locks and among holders still, and another would keep it alive there.
  bool may_have(DomainId id, const Identity& who) const {
    if (!is_process(id) || !is_absent(id)) return false;
    const Domain& d = domains_[id];
    return !d.given || (d.identity.pid == who.pid && d.identity.uid == who.uid);
  }

  // A free id, or kNobody when all are taken.
  DomainId free_id() {
    for (uint32_t n = 0; n < shm::kMaxDomains; ++n) {
      DomainId id = next_++ % kFirstInFlight;
      if (is_absent(id)) return id;
    }
    return shm::kNobody;
  }
  DomainId free_id_in_flight() {
    constexpr uint32_t kIds = shm::kMaxDomains - kFirstInFlight;
    for (uint32_t n = 0; n < kIds; ++n) {
      DomainId id = kFirstInFlight + next_in_flight_++ % kIds;
      if (is_absent(id)) return id;
    }
    return shm::kNobody;
  }

  void take(DomainId id, const Identity& identity, DomainId parent, Presence presence) {
    domains_[id] = {identity, parent, 0, 0, 0, 0, 0, 0, presence, false, true};
  }

  bool descends_from(DomainId id, DomainId ancestor) const {
    // Bounded: a reused id may close the chain to a circle.
    for (int generation = 0; generation < 64 && is_valid(id); ++generation) {
      if (id == ancestor) return true;
      id = domains_[id].parent;
    }
    return false;
  }

 private:
  uint32_t next_;
  uint32_t next_in_flight_;
  Domain domains_[shm::kMaxDomains];
};

}  // namespace sluice::monitor::core
