// What frames say besides the messages of shm/protocol.h, whose numbers are lower.
#pragma once

#include "shm/protocol.h"

namespace sluice::tilera {

enum PacketType : uint16_t {
  // ---- requests, in place of what processes do over a socket
  // word 0: pid. Reply word 0: the domain. EAGAIN: there are no more. The user is that of the hardwall.
  kJoin = 0xc0,
  // The sender is no more. Reply.
  kLeave,
  // word 0: a domain with which the sender is about to share memory. Reply word 0: its tile. ESRCH, EACCES, ENOMEM.
  kMeet,
  // ---- replies
  // To a request that has no reply: the credit alone.
  kTaken = 0xd0,
  // ---- doorbells
  kBell = 0xe0,
  // ---- control
  // Root to relay. id: so many credits.
  kCredits = 0xf0,
};
static_assert(uint16_t(shm::kRegions) < uint16_t(kJoin));

// Notices are messages whose type is that of the packet (shm/protocol.h) that a process would get: kPeerGone (word 0:
// the dead domain), kRevoke and kReconsider (word 0: the listener), kUnmet (word 0: domain; 1: generation).
// kOverrun: there were more than fit. Who reads it holds no grant any more, looks up who lives, and asks
// again for what waits.
inline constexpr uint16_t kOverrun = 0xc8;

}  // namespace sluice::tilera
