// System calls that the shim makes for itself. libc's own are cancellation points: a thread with a
// pending pthread_cancel would end in them, with the shim's locks held.
#pragma once

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "preload/libc.h"

// As the functions of these names, -1 and errno included.
namespace sluice::preload::kernel {

inline int close(int fd) { return int(libc.syscall(SYS_close, fd)); }
inline ssize_t read(int fd, void* buf, size_t n) { return libc.syscall(SYS_read, fd, buf, n); }
inline ssize_t writev(int fd, const iovec* iov, int count) { return libc.syscall(SYS_writev, fd, iov, count); }
inline ssize_t readv(int fd, const iovec* iov, int count) { return libc.syscall(SYS_readv, fd, iov, count); }
inline ssize_t preadv(int fd, const iovec* iov, int count, off_t at) { return libc.syscall(SYS_preadv, fd, iov, count, at, 0L); }
inline ssize_t write(int fd, const void* buf, size_t n) { return libc.syscall(SYS_write, fd, buf, n); }
inline ssize_t pread(int fd, void* buf, size_t n, off_t at) { return libc.syscall(SYS_pread64, fd, buf, n, at); }
inline int open(const char* path, int flags) { return int(libc.syscall(SYS_openat, AT_FDCWD, path, flags, 0)); }
inline pid_t waitpid(pid_t pid, int options) { return pid_t(libc.syscall(SYS_wait4, pid, nullptr, options, nullptr)); }
inline ssize_t splice(int from, int to, size_t n, unsigned flags) {
  return libc.syscall(SYS_splice, from, nullptr, to, nullptr, n, flags);
}
inline ssize_t sendmsg(int fd, const msghdr* m, int flags) { return libc.syscall(SYS_sendmsg, fd, m, flags); }
inline ssize_t recvmsg(int fd, msghdr* m, int flags) { return libc.syscall(SYS_recvmsg, fd, m, flags); }
inline ssize_t send(int fd, const void* buf, size_t n, int flags) {
  return libc.syscall(SYS_sendto, fd, buf, n, flags, nullptr, 0);
}
inline ssize_t recv(int fd, void* buf, size_t n, int flags) {
  return libc.syscall(SYS_recvfrom, fd, buf, n, flags, nullptr, nullptr);
}
inline int connect(int fd, const sockaddr* addr, socklen_t length) { return int(libc.syscall(SYS_connect, fd, addr, length)); }
inline int accept4(int fd, sockaddr* addr, socklen_t* length, int flags) {
  return int(libc.syscall(SYS_accept4, fd, addr, length, flags));
}
// Changes `timeout`.
inline int ppoll(pollfd* fds, nfds_t count, timespec* timeout) {
  return int(libc.syscall(SYS_ppoll, fds, count, timeout, nullptr, _NSIG / 8));
}
inline int poll_now(pollfd* fds, nfds_t count) {
  timespec none{};
  return ppoll(fds, count, &none);
}
inline int epoll_wait_now(int epfd, epoll_event* events, int max) {
  return int(libc.syscall(SYS_epoll_pwait, epfd, events, max, 0, nullptr, _NSIG / 8));
}

// Summons the coordinator: adds one to an eventfd of its own that does not block. An interrupted one has not rung.
inline void ring(int fd) {
  uint64_t one = 1;
  while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

}  // namespace sluice::preload::kernel
