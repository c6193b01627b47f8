// sendfile(2).
#include "preload/dispatch.h"

namespace sluice::preload {

INTERPOSE(ssize_t, sendfile, (int to, int from, off_t* offset, size_t n)) {
  be_ready();
  if (descriptors.peek(from) != nullptr) return finish(ssize_t{-EINVAL});  // a socket cannot be mapped
  return on_connection(to, [&](TcpSocket& s) { return s.send_file(from, offset, n); },
                       [&] { return libc.sendfile(to, from, offset, n); });
}

INTERPOSE(ssize_t, sendfile64, (int to, int from, off64_t* offset, size_t n)) { return sendfile(to, from, offset, n); }

}  // namespace sluice::preload
