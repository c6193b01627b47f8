// What the code of a request costs besides its packets and shared memory, for models of time.
//
// Instructions of the core for the request alone, on x86-64 with GCC 12 and -O2, counted by single steps, with
// one listener, one acceptor and no rules. Taken as as many cycles: a tile issues up to three instructions in one, and
// waits for what it loads. An assumption, then, not a measurement; on a tile spend() is nothing and the code itself runs.
#pragma once

#include "tilera/packet_types.h"

namespace sluice::tilera {

constexpr uint32_t cycles_of(uint32_t type) {
  switch (type) {
    case shm::kListen:
      return 880;
    case shm::kUnlisten:
      return 240;
    case shm::kConnect:
      return 680;
    case shm::kMove:
      return 420;
    case shm::kWaiting:
      return 390;
    case shm::kAcceptor:
    case shm::kIdle:
    case shm::kWho:
    case shm::kMay:
      return 130;
    case kJoin:
    case kLeave:
    case kMeet:
      return 260;
    default:
      return 60;
  }
}

}  // namespace sluice::tilera
