// A pipe of our own between a connection and the program's pipe, which splice(2) fills from or empties into that
// one without waiting. So no byte is taken from where it is before it is sure where it goes.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>

#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/signals.h"

namespace sluice::preload {

class OwnPipe {
 public:
  static constexpr size_t kAtOnce = 64 * 1024;  // what any pipe holds

  OwnPipe() { (void)!libc.syscall(SYS_pipe2, ends_, O_CLOEXEC | O_NONBLOCK); }
  ~OwnPipe() {
    for (int end : ends_)
      if (end >= 0) kernel::close(end);
  }
  OwnPipe(const OwnPipe&) = delete;
  OwnPipe& operator=(const OwnPipe&) = delete;
  bool exists() const { return ends_[0] >= 0; }
  // So that all that `other` takes goes through at once.
  void become_as_big_as(int other) { (void)libc.fcntl(ends_[1], F_SETPIPE_SZ, libc.fcntl(other, F_GETPIPE_SZ)); }

  // Moves bytes of the pipe `from` into iov, without waiting. Bytes, 0 at its end, or -errno.
  ssize_t take(int from, const iovec* iov, int count) {
    size_t n = iov[0].iov_len + (count > 1 ? iov[1].iov_len : 0);
    ssize_t k = kernel::splice(from, ends_[1], n < kAtOnce ? n : kAtOnce, SPLICE_F_NONBLOCK);
    return k > 0 ? kernel::readv(ends_[0], iov, count) : k < 0 ? -errno : 0;
  }
  // Puts as many bytes into the pipe `to` as it takes. Bytes or -errno.
  ssize_t put(int to, const iovec* iov, int count) {
    ssize_t k = kernel::writev(ends_[1], iov, count);
    if (k > 0) k = kernel::splice(ends_[0], to, size_t(k), SPLICE_F_NONBLOCK);
    int error = k < 0 ? errno : 0;
    char rest[4096];
    while (kernel::read(ends_[0], rest, sizeof rest) > 0) {
    }
    return k < 0 ? -error : k;
  }

 private:
  int ends_[2] = {-1, -1};
};

// 0 or -EINTR: a handler without SA_RESTART, or pthread_cancel, since `seen_unrestarted` was read.
inline int await_pipe(int fd, short events, uint32_t seen_unrestarted) {
  for (;;) {
    uint32_t seen = signal_counts.any;
    if (signal_counts.unrestarted != seen_unrestarted) return -EINTR;
    pollfd p{fd, events, 0};
    long n = interruptible_syscall(seen, SYS_ppoll, long(&p), 1, 0, 0, _NSIG / 8);
    if (n != -EINTR) return n < 0 ? int(n) : 0;
  }
}

}  // namespace sluice::preload
