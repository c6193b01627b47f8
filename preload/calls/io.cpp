// read(2), write(2) and their vectors.
#include "preload/dispatch.h"
#include "preload/iov_cursor.h"
#include "preload/user_memory.h"

namespace sluice::preload {

namespace {
ssize_t receive(TcpSocket& s, void* buf, size_t n, int flags) {
  iovec iov{buf, n};
  return s.receive(&iov, 1, flags);
}
// A positioned call on a stream: only "at the current position" (-1) is allowed.
template <class F>
ssize_t at_position(const iovec* iov, int count, off64_t offset, F&& f) {
  return with_vectors(iov, count, [&](const iovec* v, int n) -> ssize_t { return offset != -1 ? -ESPIPE : f(v, n); });
}
// The end of a pipe or of a socket pair: read and write, in all their forms, or the kernel's call.
template <class Kernel>
ssize_t read_pipe(int fd, const iovec* iov, int count, Kernel&& kernel) {
  return on_pipe(fd, false, [&](PipeEnd& p) -> ssize_t { return p.receive(fd, iov, count); },
                 [&] { return receive_on_pair(fd, iov, count, 0, kernel); });
}
template <class Kernel>
ssize_t write_pipe(int fd, const iovec* iov, int count, Kernel&& kernel) {
  return on_pipe(fd, true, [&](PipeEnd& p) -> ssize_t { return p.send(fd, iov, count); },
                 [&] { return send_on_pair(fd, iov, count, 0, kernel); });
}
int flags_of(int rwf) { return (rwf & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0; }
// A call that reads the kernel's pipe finds everything there.
void settled(int fd) {
  Entrance entrance;
  if (PipeReference p(fd); p.with_channel() != nullptr) (void)p.get()->settle(fd);
}

// Apart from the wrappers, which then keep no frame for calls on other descriptors.
[[gnu::noinline]] ssize_t do_read(int fd, void* buf, size_t n) {
  return on_connection(fd, [&](TcpSocket& s) { return n == 0 ? 0 : receive(s, buf, n, 0); },
                       [&] {
                         iovec iov{buf, n};
                         return read_pipe(fd, &iov, 1, [&] { return libc.read(fd, buf, n); });
                       });
}

[[gnu::noinline]] ssize_t do_readv(int fd, const iovec* iov, int count) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         return with_vectors(iov, count, [&](const iovec* v, int n) {
                           return total_bytes(v, n) == 0 ? 0 : s.receive(v, n, 0);
                         });
                       },
                       [&] {
                         UserVectors v(iov, count < 0 ? 0 : size_t(count));
                         if (count < 0 || v.error() != 0) return libc.readv(fd, iov, count);  // which says why
                         return read_pipe(fd, v.get(), count, [&] { return libc.readv(fd, iov, count); });
                       });
}

[[gnu::noinline]] ssize_t do_write(int fd, const void* buf, size_t n) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{const_cast<void*>(buf), n};
                         return s.send(&iov, 1, 0);
                       },
                       [&] {
                         iovec iov{const_cast<void*>(buf), n};
                         return write_pipe(fd, &iov, 1, [&] { return libc.write(fd, buf, n); });
                       });
}

[[gnu::noinline]] ssize_t do_writev(int fd, const iovec* iov, int count) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         return with_vectors(iov, count, [&](const iovec* v, int n) {
                           return total_bytes(v, n) == 0 ? 0 : s.send(v, n, 0);
                         });
                       },
                       [&] {
                         UserVectors v(iov, count < 0 ? 0 : size_t(count));
                         if (count < 0 || v.error() != 0) return libc.writev(fd, iov, count);  // which says why
                         return write_pipe(fd, v.get(), count, [&] { return libc.writev(fd, iov, count); });
                       });
}

}  // namespace

INTERPOSE(ssize_t, read, (int fd, void* buf, size_t n)) {
  return moves_in_kernel(fd) ? libc.read(fd, buf, n) : do_read(fd, buf, n);
}

INTERPOSE(ssize_t, readv, (int fd, const iovec* iov, int count)) {
  return moves_in_kernel(fd) ? libc.readv(fd, iov, count) : do_readv(fd, iov, count);
}

INTERPOSE(ssize_t, write, (int fd, const void* buf, size_t n)) {
  return moves_in_kernel(fd) ? libc.write(fd, buf, n) : do_write(fd, buf, n);
}

INTERPOSE(ssize_t, writev, (int fd, const iovec* iov, int count)) {
  return moves_in_kernel(fd) ? libc.writev(fd, iov, count) : do_writev(fd, iov, count);
}

INTERPOSE(ssize_t, preadv2, (int fd, const iovec* iov, int count, off_t offset, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         return at_position(iov, count, offset, [&](const iovec* v, int n) {
                           return total_bytes(v, n) == 0 ? 0 : s.receive(v, n, flags_of(flags));
                         });
                       },
                       [&] { return settled(fd), libc.preadv2(fd, iov, count, offset, flags); });
}

INTERPOSE(ssize_t, preadv64v2, (int fd, const iovec* iov, int count, off64_t offset, int flags)) {
  return preadv2(fd, iov, count, offset, flags);
}

INTERPOSE(ssize_t, pwritev2, (int fd, const iovec* iov, int count, off_t offset, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         return at_position(iov, count, offset, [&](const iovec* v, int n) {
                           return total_bytes(v, n) == 0 ? 0 : s.send(v, n, flags_of(flags));
                         });
                       },
                       [&] {
                         return on_pipe(fd, true, [&](PipeEnd& p) -> ssize_t {
                           PipeEnd::Bypass bypass(p, fd);
                           ssize_t n = outside([&] { return libc.pwritev2(fd, iov, count, offset, flags); });
                           return n < 0 ? -errno : n;
                         }, [&] { return bypass_pair(fd, [&] { return libc.pwritev2(fd, iov, count, offset, flags); }); });
                       });
}

INTERPOSE(ssize_t, pwritev64v2, (int fd, const iovec* iov, int count, off64_t offset, int flags)) {
  return pwritev2(fd, iov, count, offset, flags);
}

}  // namespace sluice::preload
