// splice(2) between a connection and a pipe: by copying, through a pipe of our own.
#include <errno.h>

#include "preload/direction_lock.h"
#include "preload/files/own_pipe.h"
#include "preload/files/tcp_socket.h"
#include "preload/peers.h"

namespace sluice::preload {

using namespace shm;

ssize_t TcpSocket::splice_to(int pipe_fd, size_t n, bool pipe_waits) {
  if (state != TcpState::kConnected) return -ENOTCONN;
  if (records) return splice_record_to(pipe_fd, n, pipe_waits);
  OwnPipe own;
  if (!own.exists()) return -errno;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(receive_timeout_us);
  char buffer[kPieceBytes];
  size_t done = 0;
  while (done < n) {
    ssize_t there, taken = 0;
    bool ends_here = false;
    {
      DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      if (done > 0 && !has_bytes(1)) {  // an error is for the next call, but where it is as in receive()
        if (is_unix() && done < size_t(low_water()) && done < n) (void)take_error();
        return ssize_t(done);
      }
      iovec iov{buffer, n - done < sizeof buffer ? n - done : sizeof buffer};
      there = receive_now(&iov, 1, 0, MSG_PEEK, nullptr, ends_here);
      if (there > 0) {
        iovec bytes{buffer, size_t(there)};
        taken = own.put(pipe_fd, &bytes, 1);
      }
      iovec gone{buffer, size_t(taken > 0 ? taken : 0)};
      ends_here = false;  // takes the ancillary data, too, which splice leaves behind as read does; and ends with it
      if (taken > 0) (void)receive_now(&gone, 1, 0, MSG_TRUNC, nullptr, ends_here);
    }
    look_behind();
    if (taken > 0) done += size_t(taken);
    if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
    if (taken > 0 && ends_here) return ssize_t(done);
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
  if (records) return state != TcpState::kConnected ? ssize_t{kNowTheKernels} : splice_records_from(pipe_fd, n, pipe_waits);
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
      DirectionGuard guard(send_lock, *this, &Slot::send_lock);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      uint32_t remote = remote_state();
      note_reset(remote);
      if (shut_write() || reset_noted || is_refused(remote)) return done > 0 ? ssize_t(done) : send_error(0);
      if (nobody_reads(remote)) {
        char in_vain[kInVainBytes];
        iovec iov{in_vain, n - done < sizeof in_vain ? n - done : sizeof in_vain};
        k = own.take(pipe_fd, &iov, 1);
        if (k > 0) return ssize_t(done) + sent_in_vain(size_t(k));
      }
      size_t space = make_space(n - done);
      full = space == 0;
      if (!full) {
        ByteProducer out = producer();
        Pieces<std::byte> p = out.reserve(n - done < kPieceBytes ? n - done : kPieceBytes);
        iovec iov[2] = {{p.first, p.first_bytes}, {p.second, p.second_bytes}};
        k = own.take(pipe_fd, iov, p.second_bytes > 0 ? 2 : 1);
        if (k > 0) {
          out.publish(size_t(k));
          after_publish();
        }
      }
    }
    look_behind();
    if (k > 0) done += size_t(k);
    if (k > 0) continue;
    if (k == 0 || k != -EAGAIN || (!full && done > 0)) return done > 0 ? ssize_t(done) : k;
    if (full && nonblocking) {
      Looking looking;
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : -EAGAIN;  // the next call is the kernel's
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
