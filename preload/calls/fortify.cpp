// The variants that gcc calls with -D_FORTIFY_SOURCE: a check of the buffer's size, then the call.
#include "preload/dispatch.h"

extern "C" [[noreturn]] void __chk_fail();

namespace sluice::preload {

namespace {
void check(bool fits) {
  if (!fits) __chk_fail();
}
}  // namespace

INTERPOSE(ssize_t, __read_chk, (int fd, void* buf, size_t n, size_t size)) {
  check(n <= size);
  return read(fd, buf, n);
}

INTERPOSE(ssize_t, __recv_chk, (int fd, void* buf, size_t n, size_t size, int flags)) {
  check(n <= size);
  return recv(fd, buf, n, flags);
}

INTERPOSE(ssize_t, __recvfrom_chk,
          (int fd, void* buf, size_t n, size_t size, int flags, sockaddr* addr, socklen_t* length)) {
  check(n <= size);
  return recvfrom(fd, buf, n, flags, addr, length);
}

INTERPOSE(int, __poll_chk, (pollfd* fds, nfds_t count, int timeout, size_t size)) {
  check(count <= size / sizeof *fds);
  return poll(fds, count, timeout);
}

INTERPOSE(int, __ppoll_chk, (pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t size)) {
  check(count <= size / sizeof *fds);
  return ppoll(fds, count, timeout, mask);
}

}  // namespace sluice::preload
