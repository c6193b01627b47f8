// sendfile(2), splice(2), tee(2), vmsplice(2). The last two have nothing to do with sockets: the
// kernel refuses those, placeholders too.
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

bool is_nonblocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

bool is_pipe(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

// 0 if `from` is something that sendfile reads.
int source_error(int from, const off_t* offset) {
  if (lseek(from, 0, SEEK_CUR) >= 0) return offset != nullptr && *offset < 0 ? -EINVAL : 0;
  return errno != ESPIPE ? -errno : offset != nullptr ? -ESPIPE : -EINVAL;
}

constexpr unsigned kSpliceFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;

// Why splice(2) refuses to move from a connection to `pipe` (`receives`) or back. 0: it does not.
int splice_error(int pipe, const off64_t* pipe_offset, const off64_t* socket_offset, bool receives, unsigned flags) {
  if ((flags & ~kSpliceFlags) != 0) return -EINVAL;
  if (fcntl(pipe, F_GETFD) < 0) return -EBADF;
  if (!is_pipe(pipe)) return -EINVAL;
  if (pipe_offset != nullptr) return -ESPIPE;
  if (socket_offset != nullptr) return -EINVAL;  // it has no positions
  return (fcntl(pipe, F_GETFL) & O_ACCMODE) == (receives ? O_RDONLY : O_WRONLY) ? -EBADF : 0;
}

// Around a call that moves bytes between kernel pipes, or to a socket pair: what is read from is all there, and what is
// written to comes after what went before.
template <class Kernel>
ssize_t between_pipes(int from, int to, Kernel&& kernel) {
  if (pipe_at(from) != nullptr) {
    Entrance entrance;
    if (PipeReference p(from); p.with_channel() != nullptr) (void)p.get()->settle(from);
  }
  return on_pipe(to, true,
                 [&](PipeEnd& p) -> ssize_t {
                   PipeEnd::Bypass bypass(p, to);
                   ssize_t n = outside(kernel);
                   return n < 0 ? -errno : n;
                 },
                 [&] { return bypass_pair(to, kernel); });
}

ssize_t splice_connection(int from, off64_t* from_offset, int to, off64_t* to_offset, size_t n, unsigned flags) {
  if (n == 0) return 0;
  bool receives = descriptors.peek(from) != nullptr && !is_pipe(from);
  int pipe = receives ? to : from;
  int error = receives ? splice_error(pipe, to_offset, from_offset, receives, flags)
                       : splice_error(pipe, from_offset, to_offset, receives, flags);
  if (error != 0) return finish(error);
  bool pipe_waits = (flags & SPLICE_F_NONBLOCK) == 0 && !is_nonblocking(pipe);
  return on_connection(receives ? from : to,
                       [&](TcpSocket& s) {
                         return receives ? s.splice_to(pipe, n, pipe_waits) : s.splice_from(pipe, n, pipe_waits);
                       },
                       [&] { return libc.splice(from, nullptr, to, nullptr, n, flags); });
}

}  // namespace

INTERPOSE(ssize_t, sendfile, (int to, int from, off_t* offset, size_t n)) {
  be_ready();
  if (pipe_at(to) != nullptr || pair_at(to) != nullptr) return between_pipes(-1, to, [&] { return libc.sendfile(to, from, offset, n); });
  if (descriptors.peek(from) != nullptr) return finish(ssize_t{-EINVAL});  // a socket cannot be mapped
  return on_connection(to,
                       [&](TcpSocket& s) -> ssize_t {
                         int error = source_error(from, offset);
                         if (offset != nullptr && is_guarded(offset, sizeof *offset)) error = -EFAULT;
                         return error != 0 ? error : s.send_file(from, offset, n);
                       },
                       [&] { return libc.sendfile(to, from, offset, n); });
}

INTERPOSE(ssize_t, sendfile64, (int to, int from, off64_t* offset, size_t n)) { return sendfile(to, from, offset, n); }

INTERPOSE(ssize_t, splice, (int from, off64_t* from_offset, int to, off64_t* to_offset, size_t n, unsigned flags)) {
  be_ready();
  bool kernels = descriptors.peek(from) == nullptr && descriptors.peek(to) == nullptr;
  return between_pipes(from, to, [&] {
    return kernels ? libc.splice(from, from_offset, to, to_offset, n, flags)
                   : splice_connection(from, from_offset, to, to_offset, n, flags);
  });
}

INTERPOSE(ssize_t, tee, (int from, int to, size_t n, unsigned flags)) {
  be_ready();
  return between_pipes(from, to, [&] { return libc.tee(from, to, n, flags); });
}

INTERPOSE(ssize_t, vmsplice, (int fd, const iovec* iov, size_t count, unsigned flags)) {
  be_ready();
  return between_pipes(fd, fd, [&] { return libc.vmsplice(fd, iov, count, flags); });
}

}  // namespace sluice::preload
