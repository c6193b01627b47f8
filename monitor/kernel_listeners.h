// What listens in the kernel, in this process' network namespace.
#pragma once

#include <optional>

#include "monitor/core/address.h"

namespace sluice::monitor {

// Whether a TCP socket that `uid` made listens exactly there; nothing if the kernel does not
// tell. See sock_diag(7).
std::optional<bool> is_listening(uint32_t uid, const core::Address& address, uint16_t port);

}  // namespace sluice::monitor
