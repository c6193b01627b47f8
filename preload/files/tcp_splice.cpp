// splice(2) between a connection and a pipe: by copying, through a pipe of our own, which splice
// fills from or empties into the program's without waiting. So no byte is taken from where it
// is before it is sure where it goes.
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>

#include "preload/direction_lock.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/signals.h"

namespace sluice::preload {

using namespace shm;

namespace {

constexpr size_t kAtOnce = 64 * 1024;  // what any pipe holds

class OwnPipe {
 public:
  OwnPipe() { (void)!libc.syscall(SYS_pipe2, ends_, O_CLOEXEC | O_NONBLOCK); }
  ~OwnPipe() {
    for (int end : ends_)
      if (end >= 0) kernel::close(end);
  }
  OwnPipe(const OwnPipe&) = delete;
  OwnPipe& operator=(const OwnPipe&) = delete;
  bool exists() const { return ends_[0] >= 0; }

  // Moves bytes of the pipe `from` into iov, without waiting. Bytes, 0 at its end, or -errno.
  ssize_t take(int from, const iovec* iov, int count) {
    size_t n = iov[0].iov_len + (count > 1 ? iov[1].iov_len : 0);
    ssize_t k = kernel::splice(from, ends_[1], n < kAtOnce ? n : kAtOnce, SPLICE_F_NONBLOCK);
    return k > 0 ? kernel::readv(ends_[0], iov, count) : k < 0 ? -errno : 0;
  }
  // Puts as many bytes into the pipe `to` as it takes. Bytes or -errno.
  ssize_t put(int to, const void* bytes, size_t n) {
    ssize_t k = kernel::write(ends_[1], bytes, n);
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

// 0 or -EINTR.
int await_pipe(int fd, short events, uint32_t seen_unrestarted) {
  pollfd p{fd, events, 0};
  while (::poll(&p, 1, -1) < 0)
    if (errno != EINTR || signal_counts.unrestarted != seen_unrestarted) return -errno;
  return 0;
}

}  // namespace

ssize_t TcpSocket::splice_to(int pipe_fd, size_t n, bool pipe_waits) {
  if (state != TcpState::kConnected) return -ENOTCONN;
  OwnPipe own;
  if (!own.exists()) return -errno;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(receive_timeout_us);
  char buffer[kPieceBytes];
  size_t done = 0;
  while (done < n) {
    ssize_t there, taken = 0;
    {
      DirectionGuard guard(receive_lock, shared ? &mine->receive_lock : nullptr);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      iovec iov{buffer, n - done < sizeof buffer ? n - done : sizeof buffer};
      bool ends_here = false;  // of ancillary data, which splice leaves behind as read does
      there = receive_now(&iov, 1, 0, MSG_PEEK, nullptr, ends_here);
      if (there > 0) taken = own.put(pipe_fd, buffer, size_t(there));
      iovec gone{buffer, size_t(taken > 0 ? taken : 0)};
      if (taken > 0) (void)receive_now(&gone, 1, 0, MSG_TRUNC, nullptr, ends_here);
    }
    if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
    if (taken > 0) done += size_t(taken);
    if (taken > 0) continue;
    ssize_t error = there <= 0 ? there : taken;
    if (done > 0 || error != -EAGAIN) return done > 0 ? ssize_t(done) : error;
    if (there > 0 ? !pipe_waits : nonblocking) return -EAGAIN;
    int e = there > 0 ? await_pipe(pipe_fd, POLLOUT, unrestarted) : wait_for_bytes(1, deadline, unrestarted);
    if (e != 0) return e;
  }
  return ssize_t(done);
}

ssize_t TcpSocket::splice_from(int pipe_fd, size_t n, bool pipe_waits) {
  if (state != TcpState::kConnected) return send_error(0);
  OwnPipe own;
  if (!own.exists()) return -errno;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(send_timeout_us);
  size_t done = 0;
  while (done < n) {
    ssize_t k = -EAGAIN;
    bool full;
    {
      DirectionGuard guard(send_lock, shared ? &mine->send_lock : nullptr);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      uint32_t remote = remote_state();
      note_reset(remote);
      if (shut_write() || reset_noted || (remote & kClosed) != 0) return done > 0 ? ssize_t(done) : send_error(0);
      size_t space = make_space(n - done);
      full = space == 0;
      if (!full) {
        ByteProducer out(pair->out(), *mine, theirs, head_seen);
        Pieces<std::byte> p = out.reserve(n - done < kPieceBytes ? n - done : kPieceBytes);
        iovec iov[2] = {{p.first, p.first_bytes}, {p.second, p.second_bytes}};
        k = own.take(pipe_fd, iov, p.second_bytes > 0 ? 2 : 1);
        if (k > 0) {
          out.publish(size_t(k));
          after_publish();
        }
      }
    }
    if (k > 0) done += size_t(k);
    if (k > 0) continue;
    if (k == 0 || k != -EAGAIN || (!full && done > 0)) return done > 0 ? ssize_t(done) : k;
    if (full && nonblocking) {
      mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // as in send()
      sleep_wake_fence();
      if (writable()) continue;
      return done > 0 ? ssize_t(done) : -EAGAIN;
    }
    if (!full && !pipe_waits) return -EAGAIN;
    int e = full ? wait_for_space(deadline, unrestarted) : await_pipe(pipe_fd, POLLIN, unrestarted);
    if (e != 0) return done > 0 ? ssize_t(done) : e;
  }
  return ssize_t(done);
}

}  // namespace sluice::preload
