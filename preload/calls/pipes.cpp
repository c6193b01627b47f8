// pipe(2).
#include "preload/dispatch.h"
#include "preload/pipes.h"

namespace sluice::preload {

INTERPOSE(int, pipe, (int ends[2])) {
  be_ready();
  int r = libc.pipe(ends);
  if (r == 0) note_pipe(ends, 0);
  return r;
}

INTERPOSE(int, pipe2, (int ends[2], int flags)) {
  be_ready();
  int r = libc.pipe2(ends, flags);
  if (r == 0) note_pipe(ends, flags);
  return r;
}

// Moves bytes between kernel pipes: what is read from is all there, and what is written to comes after
// what went before.
namespace {
template <class Kernel>
ssize_t between_pipes(int from, int to, Kernel&& kernel) {
  if (pipe_at(from) != nullptr)
    if (PipeReference p(from); p.with_channel() != nullptr) (void)p.get()->settle(from);
  return on_pipe(to, true,
                 [&](PipeEnd& p) -> ssize_t {
                   PipeEnd::Bypass bypass(p, to);
                   ssize_t n = kernel();
                   return n < 0 ? -errno : n;
                 },
                 kernel);
}
}  // namespace

INTERPOSE(ssize_t, splice, (int from, off64_t* from_offset, int to, off64_t* to_offset, size_t n, unsigned flags)) {
  be_ready();
  return between_pipes(from, to, [&] { return libc.splice(from, from_offset, to, to_offset, n, flags); });
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
