// What the code of a tile costs besides packets and shared memory, for models of time.
//
// Instructions from the frame in hand to the last word of the reply, on x86-64 with GCC 12 and -O2, counted by single steps, with
// one listener, one acceptor and no rules; taken as as many cycles. An assumption, then, not a measurement. What speaks for it: of a
// ping, 240 instructions here, the compiler for TILE-Gx makes about as many bundles. A tile also waits for what it loads, which
// is not in it. On a tile spend() is nothing, and the code itself runs.
#pragma once

#include "tilera/packet_types.h"

namespace sluice::tilera {

constexpr uint32_t cycles_to_answer(uint32_t type) {
  switch (type) {
    case shm::kConnect:
      return 900;
    case shm::kMove:
      return 660;
    case shm::kListen:
      return 630;
    case shm::kUnlisten:
      return 600;
    case shm::kIdle:
      return 530;
    case kLeave:
      return 510;
    case shm::kWaiting:
      return 460;
    case kJoin:
      return 340;
    case shm::kAcceptor:
    case shm::kMay:
    case kMeet:
      return 310;
    case shm::kWho:
    case shm::kLeasePorts:
      return 270;
    default:
      return 240;
  }
}
inline constexpr uint32_t kCyclesToAsk = 90;
inline constexpr uint32_t kCyclesToHear = 50;
inline constexpr uint32_t kCyclesToRelay = 120;

}  // namespace sluice::tilera
