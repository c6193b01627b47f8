// What /proc and the kernel know of a process.
#pragma once

#include <cstdint>
#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor {

// Becomes readable when the process ends. Empty when there is no such process.
Descriptor open_process(int32_t pid);

// Of the process that has connected to us with `socket`, where the kernel can tell (Linux 6.5); else of who has
// its number now.
Descriptor open_peer(int socket, int32_t pid);

// The path of what it runs; empty: not known, or of a user namespace in which anybody may give files any name.
// `process`: its pidfd, so that it is the same one before and after.
std::string program_of(int process, int32_t pid);

// Names the process' network namespace: its inode. Where /proc may not be asked (a container
// without CAP_SYS_PTRACE), that of `socket`, which the process has connected to us with. 0:
// unknown.
// Whether packets may be sent there: on anything else one could wait, or mean something.
bool is_channel(int fd);
uint64_t network_namespace(int32_t pid, int socket);

// The process' short name, or "?".
std::string command_of(int32_t pid);

// Whether the process has the capability, towards us: that of another user namespace counts for nothing.
bool has_capability(int32_t pid, int capability);


// The first number in a file, or `otherwise`.
long number_in(const char* path, long otherwise);

}  // namespace sluice::monitor
