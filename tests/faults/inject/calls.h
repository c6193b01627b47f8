// The system calls that can be made to fail, and what a test program says to the injector.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include <cstdint>
#include <cstring>
#include <string_view>

namespace sluice::tests {

struct Call {
  const char* name;
  int number;
  int argument = -1;  // which has to have `value`; -1: none
  uint32_t value = 0;
};

inline constexpr Call kCalls[] = {
    {"memfd_create", SYS_memfd_create},
    {"ftruncate", SYS_ftruncate},
    {"mmap", SYS_mmap},
    {"mmap_shared", SYS_mmap, 3, 0x4001},  // MAP_SHARED | MAP_NORESERVE: regions
    {"seal", SYS_fcntl, 1, F_ADD_SEALS},
    {"dup_high", SYS_fcntl, 1, F_DUPFD_CLOEXEC},
    {"dup_low", SYS_fcntl, 1, F_DUPFD},
    {"dup3", SYS_dup3},
    {"eventfd2", SYS_eventfd2},
    {"socket", SYS_socket},
    {"socketpair", SYS_socketpair},
    {"pipe2", SYS_pipe2},
    {"connect", SYS_connect},
    {"accept4", SYS_accept4},
    {"sendmsg", SYS_sendmsg},
    {"recvmsg", SYS_recvmsg},
    {"sendto", SYS_sendto},
    {"recvfrom", SYS_recvfrom},
    {"epoll_create1", SYS_epoll_create1},
    {"epoll_ctl", SYS_epoll_ctl},
    {"epoll_add", SYS_epoll_ctl, 1, 1},  // EPOLL_CTL_ADD, the one that takes memory
    {"epoll_pwait", SYS_epoll_pwait},
    {"epoll_wait", SYS_epoll_wait},
    {"epoll_pwait2", SYS_epoll_pwait2},
    {"ppoll", SYS_ppoll},
    {"poll", SYS_poll},
    {"futex", SYS_futex},
    {"futex_waitv", SYS_futex_waitv},
    {"read", SYS_read},
    {"write", SYS_write},
    {"readv", SYS_readv},
    {"writev", SYS_writev},
    {"preadv", SYS_preadv},
    {"splice", SYS_splice},
    {"inotify_init1", SYS_inotify_init1},
    {"pidfd_open", SYS_pidfd_open},
    {"openat", SYS_openat},
    {"clone", SYS_clone},
    {"munmap", SYS_munmap},
    {"getsockopt", SYS_getsockopt},
    {"setsockopt", SYS_setsockopt},
};

// prctl(kMark, role_of("client")): what this process calls from now on counts if that is the role asked for.
// To a kernel without the injector it is an unknown option.
inline constexpr uint32_t kMark = 0x534c5543;

inline uint64_t role_of(std::string_view name) {
  uint64_t role = 0;
  std::memcpy(&role, name.data(), name.size() < sizeof role ? name.size() : sizeof role);
  return role;
}

}  // namespace sluice::tests
