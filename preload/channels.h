// Who is at the other end of an AF_UNIX socket, as far as that can be known.
#pragma once

#include <cstdint>

namespace sluice::preload {

enum class Takers : uint8_t {
  kShim,       // has the shim
  kStrangers,  // has not, or is another user
  kUnknown,    // a socket pair: nobody knows who has the other end by now
};

Takers takers_behind(int channel);

// What was passed over `channel` under this ticket tells, if it is taken, that the shim is there.
void remember_question(int channel, uint32_t ticket);
void ticket_was_taken(uint32_t ticket);  // under control_lock

}  // namespace sluice::preload
