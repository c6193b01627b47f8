// What listens in the kernel.
#pragma once

#include <optional>

#include "monitor/core/address.h"

namespace sluice::monitor {

// Whether a TCP socket that `uid` made listens exactly there, in our network namespace; for root, whether
// anybody's does. Nothing if the kernel does not tell. See sock_diag(7).
std::optional<bool> is_listening(uint32_t uid, const core::Address& address, uint16_t port);
// The same of another network namespace, in which process `pid` is; nothing if we may not look there.
std::optional<bool> is_listening_in(uint64_t netns, int32_t pid, uint32_t uid, const core::Address& address, uint16_t port);

}  // namespace sluice::monitor
