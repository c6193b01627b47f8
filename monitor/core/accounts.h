// What users that have a limit have taken of it.
//
// Requests are counted by a clock that runs ahead: each moves it on by the time that one may take (1 s / requests).
// How far it is ahead of the real one is what the user has taken too much at once.
//
//        now         + burst             + 2 * burst
//   ------|-------------|---------------------|------------>  ahead
//           all served    what may go over the   nothing is taken any more:
//                         kernel is refused      it waits in the user's queues
//
// A refusal moves the clock by an eighth. So a program that asks too much loses nothing but the acceleration, and one
// that floods keeps the coordinator busy for eight times its limit at the most.
#pragma once

#include "monitor/core/limits.h"
#include "monitor/core/policy.h"

namespace sluice::monitor::core {

struct Account {
  uint32_t uid;
  Index limit;  // in the policy, + 1; 0: a free entry
  uint32_t clients;
  uint64_t ahead_until_ns;
};

class Accounts {
 public:
  static constexpr uint32_t kCapacity = 4096;

  void clear() {
    for (Account& a : accounts_) a = {};
  }
  // The user's, made if the policy has a limit for it. Null: it has none; or there is no room, and `full` is set.
  Account* open(const Policy& policy, uint32_t uid, bool& full) {
    const Policy::Limit* limit = policy.limit_of(uid);
    if (limit == nullptr) return nullptr;
    Account* room = nullptr;
    for (uint32_t n = 0; n < kLooks; ++n) {
      Account& a = at(uid, n);
      if (a.limit != 0 && a.uid == uid) return &a;
      if (room == nullptr && (a.limit == 0 || a.clients == 0)) room = &a;
    }
    full = room == nullptr;
    if (full) return nullptr;
    *room = {uid, policy.index(*limit) + 1, 0, 0};
    return room;
  }
  Account* find(uint32_t uid) {
    for (uint32_t n = 0; n < kLooks; ++n) {
      Account& a = at(uid, n);
      if (a.limit != 0 && a.uid == uid) return &a;
    }
    return nullptr;
  }

 private:
  static constexpr uint32_t kLooks = 64;
  Account& at(uint32_t uid, uint32_t n) { return accounts_[(uid * 2654435761u + n) % kCapacity]; }
  Account accounts_[kCapacity];
};

}  // namespace sluice::monitor::core
