// What /proc and the kernel know of a process.
#pragma once

#include <cstdint>
#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor {

// Becomes readable when the process ends. Empty when there is no such process.
Descriptor open_process(int32_t pid);

// Names the process' network namespace: its inode. Where /proc may not be asked (a container
// without CAP_SYS_PTRACE), that of `socket`, which the process has connected to us with. 0:
// unknown.
uint64_t network_namespace(int32_t pid, int socket);

// The process' short name, or "?".
std::string command_of(int32_t pid);

// Whether the process may bind ports below 1024 (CAP_NET_BIND_SERVICE).
bool may_bind_low_ports(int32_t pid);

// Only an eventfd can be written to without ever waiting for somebody else.
bool is_eventfd(int fd);

// The first number in a file, or `otherwise`.
long number_in(const char* path, long otherwise);

}  // namespace sluice::monitor
