// sendfile(2) and splice(2) on SOCK_SEQPACKET: what the kernel moves at once is a record.
#include <errno.h>

#include "preload/direction_lock.h"
#include "preload/files/own_pipe.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/peers.h"
#include "shm/records.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

// What splice_to_socket() sends at once, and sendfile(2) through its pipe.
constexpr size_t kSplicedRecord = 64 * 1024;

}  // namespace

// How much of what is left is moved next. SO_SNDBUF may not even allow what splice moves at once.
size_t TcpSocket::most_spliced(size_t left) const {
  size_t most = largest_sent_record() < kSplicedRecord ? largest_sent_record() : kSplicedRecord;
  return left < most ? left : most;
}

// Sends one record of at most `most` bytes, which fill(iovec*, count) puts into the ring: bytes, 0 at the end,
// or -errno, and nothing is sent then. -EAGAIN with `full`: the ring is.
template <class Fill>
ssize_t TcpSocket::send_filled(size_t most, bool& full, Fill&& fill) {
  DirectionGuard guard(send_lock, *this, &Slot::send_lock);
  full = false;
  int error = may_send_record();
  if (error == kLookAgain) full = true;  // and there will be space at once, or an end
  if (error != 0) return error == kLookAgain ? -EAGAIN : error;
  iovec room[2];
  error = reserve_record(most, room);
  full = error == -EAGAIN;
  if (error != 0) return error;
  ssize_t n = fill(room, room[1].iov_len > 0 ? 2 : 1);
  if (n > 0) commit_record(size_t(n));
  return n;
}

ssize_t TcpSocket::send_file_in_records(int from, off_t* offset, size_t n) {
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(send_timeout_us);
  for (size_t done = 0; done < n;) {
    size_t most = most_spliced(n - done);
    bool full;
    ssize_t k = send_filled(most, full, [&](const iovec* room, int count) -> ssize_t {
      ssize_t got = offset != nullptr ? kernel::preadv(from, room, count, *offset) : kernel::readv(from, room, count);
      return got < 0 ? -errno : got;
    });
    look_behind();
    if (k > 0) {
      done += size_t(k);
      if (offset != nullptr) *offset += k;
    }
    if (k > 0) continue;
    if (!full) return done > 0 ? ssize_t(done) : k;
    int e = wait_or_leave(deadline, unrestarted, most);
    if (e != 0) return done > 0 ? ssize_t(done) : e;
  }
  return ssize_t(n);
}

// There is no space for a record: waits for it, or says -EAGAIN to who does not wait.
int TcpSocket::wait_or_leave(const Deadline& deadline, uint32_t seen_unrestarted, size_t bytes) {
  if (!nonblocking) return wait_for_space(deadline, seen_unrestarted, &bytes);
  Looking looking;
  if (state != TcpState::kConnected) return -EAGAIN;  // the next call is the kernel's
  mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // as in send_record()
  sleep_wake_fence();
  return record_fits(bytes) ? 0 : -EAGAIN;
}

// One record, cut to what is asked for and to the pipe's room.
ssize_t TcpSocket::splice_record_to(int pipe_fd, size_t n, bool pipe_waits) {
  OwnPipe own;
  if (!own.exists()) return -errno;
  own.become_as_big_as(pipe_fd);
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(receive_timeout_us);
  for (;;) {
    ssize_t taken = 0;
    bool there = false;
    {
      DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
      if (state != TcpState::kConnected) return kNowTheKernels;
      RecordInfo info;
      iovec nothing{nullptr, 0};
      taken = take_record(&nothing, 1, MSG_PEEK, nullptr, info);
      there = info.came;
      if (there) taken = splice_first(own, pipe_fd, n);
    }
    look_behind();
    if (state != TcpState::kConnected && !there) return kNowTheKernels;
    if (taken != -EAGAIN || (there ? !pipe_waits : nonblocking)) return taken;
    int e = there ? await_pipe(pipe_fd, POLLOUT, unrestarted) : wait_for_bytes(1, deadline, unrestarted);
    if (e != 0) return e;
  }
}

// Moves the first record, which is there. Bytes or -errno, and then it stays.
ssize_t TcpSocket::splice_first(OwnPipe& own, int pipe_fd, size_t n) {
  Pieces<const std::byte> payload;
  if (next_record(payload) <= 0) return -EAGAIN;
  Pieces<const std::byte> wanted = only_first(payload, n < payload.bytes() ? n : payload.bytes());
  iovec iov[2] = {{const_cast<std::byte*>(wanted.first), wanted.first_bytes}, {const_cast<std::byte*>(wanted.second), wanted.second_bytes}};
  ssize_t k = wanted.bytes() > 0 ? own.put(pipe_fd, iov, 2) : 0;
  if (k < 0) return k;
  // With its ancillary data, which splice leaves behind as read does.
  int channel = ancillary_of_record(payload.bytes());
  if (channel == -EPROTO || (channel >= 0 && !take_ancillary(channel, nullptr, 0))) (void)break_off_records();
  else retire_record(payload.bytes());
  return k;
}

ssize_t TcpSocket::splice_records_from(int pipe_fd, size_t n, bool pipe_waits) {
  OwnPipe own;
  if (!own.exists()) return -errno;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(send_timeout_us);
  for (size_t done = 0; done < n;) {
    size_t most = most_spliced(n - done);
    bool full;
    ssize_t k = send_filled(most, full, [&](const iovec* room, int count) { return own.take(pipe_fd, room, count); });
    look_behind();
    if (k > 0) done += size_t(k);
    if (k > 0) continue;
    if (k != -EAGAIN || (!full && done > 0)) return done > 0 ? ssize_t(done) : k;
    if (!full && !pipe_waits) return -EAGAIN;
    int e = full ? wait_or_leave(deadline, unrestarted, most) : await_pipe(pipe_fd, POLLIN, unrestarted);
    if (e != 0) return done > 0 ? ssize_t(done) : e;
  }
  return ssize_t(n);
}

}  // namespace sluice::preload
