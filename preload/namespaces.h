// A process that changes its network namespace. A socket belongs to the namespace that its thread is in
// when socket() makes it, and this process is registered with the coordinator as one of the namespace that
// it was in then: sockets of any other are the kernel's alone.
#pragma once

#include <atomic>
#include <cstdint>

namespace sluice::preload {

// Whether any thread ever changed it: until then nothing has to be asked.
extern constinit std::atomic<bool> namespaces_changed;

// Before the change: what exists gets its kernel socket while that is one of the old namespace.
void before_namespace_change();

// The namespace of a kernel socket, or 0.
uint64_t namespace_of(int socket);

}  // namespace sluice::preload
