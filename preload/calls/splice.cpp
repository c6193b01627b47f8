// sendfile(2).
#include "preload/dispatch.h"

namespace sluice::preload {

INTERPOSE(ssize_t, sendfile, (int to, int from, off_t* offset, size_t n)) {
  be_ready();
  if (pipe_at(to) != nullptr) {
    return on_pipe(to, true, [&](PipeEnd& p) -> ssize_t {
      PipeEnd::Bypass bypass(p, to);
      ssize_t r = libc.sendfile(to, from, offset, n);
      return r < 0 ? -errno : r;
    }, [&] { return libc.sendfile(to, from, offset, n); });
  }
  if (descriptors.peek(from) != nullptr) return finish(ssize_t{-EINVAL});  // a socket cannot be mapped
  return on_connection(to, [&](TcpSocket& s) { return s.send_file(from, offset, n); },
                       [&] { return libc.sendfile(to, from, offset, n); });
}

INTERPOSE(ssize_t, sendfile64, (int to, int from, off64_t* offset, size_t n)) { return sendfile(to, from, offset, n); }

}  // namespace sluice::preload
