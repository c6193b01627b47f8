// SOCK_SEQPACKET of AF_UNIX: one record at a time, cut to the reader's room. Errors and their order are those of
// unix_dgram_recvmsg: a reset is told before what is queued.
#include <errno.h>

#include "preload/direction_lock.h"
#include "preload/files/ancillary.h"
#include "preload/files/tcp_socket.h"
#include "preload/iov_cursor.h"
#include "preload/signals.h"
#include "shm/records.h"

namespace sluice::preload {

using namespace shm;

// The record at the head of the queue. 1, 0: there is none, or -EPROTO. Under receive_lock.
int TcpSocket::next_record(Pieces<const std::byte>& payload) const {
  Pieces<const std::byte> queued;
  if (ByteConsumer(region_of(theirs), *theirs, *mine).observe(queued) != 0) return -EPROTO;
  if (queued.bytes() == 0) return 0;
  return first_record(queued, payload) != 0 ? -EPROTO : 1;
}

void TcpSocket::retire_record(size_t bytes) {
  ByteConsumer in(region_of(theirs), *theirs, *mine);
  // Who waits to leave its old ring need not have much in the new one.
  RingRef newest = copy_once(theirs->rings[theirs->switches.load(std::memory_order_acquire) & 1]);
  bool leaves = mine->head.load(std::memory_order_relaxed) < newest.from;  // ours
  in.retire(kRecordHeaderBytes + bytes);
  // Looked at after that: the writer may have filled the ring meanwhile.
  after_retire(leaves ? kQuietBytes : uint64_t(in.available()) + kRecordHeaderBytes + bytes);
}

// The ancillary data that was sent with the record at the head, of so many bytes: its channel; -1: there is none; -EPROTO.
int TcpSocket::ancillary_of_record(size_t bytes) {
  AncillaryHeader header;
  int channel = next_ancillary(header);
  if (channel < 0) return channel;
  uint64_t at = mine->head.load(std::memory_order_relaxed), end = at + kRecordHeaderBytes + bytes;  // ours
  if (header.position >= end) return -1;  // a later one's
  return header.position == at && header.bytes == kRecordHeaderBytes + bytes ? channel : -EPROTO;
}

// There is no record: what the call says. -EAGAIN: nothing yet.
ssize_t TcpSocket::end_of_records(uint32_t remote) {
  if ((remote & kRedirect) != 0 && !dead) {
    Guard guard(control_lock);
    redirect(false, true);
    return -EAGAIN;
  }
  return (remote & (kFin | kReset)) != 0 || shut_read() ? 0 : -EAGAIN;
}

ssize_t TcpSocket::break_off_records() {
  break_off();
  return -error.exchange(0, std::memory_order_relaxed);  // told once
}

ssize_t TcpSocket::take_record(const iovec* iov, int count, int flags, msghdr* control, RecordInfo& info) {
  if (theirs == nullptr || is_left_behind_by_peer()) reach_peer();
  uint32_t remote = remote_state();  // before the records: what it announces comes after them
  note_reset(remote);
  if (int e = error.exchange(0, std::memory_order_relaxed); e != 0) return -e;  // told once
  if (theirs == nullptr || is_broken()) return end_of_records(remote);
  Pieces<const std::byte> payload;
  int found = next_record(payload);
  if (found == 0) return end_of_records(remote);
  int channel = found > 0 ? ancillary_of_record(payload.bytes()) : found;
  if (channel == -EPROTO) return break_off_records();
  size_t length = payload.bytes(), room = total_bytes(iov, count);
  info.came = true;
  info.truncated = length > room;
  Pieces<const std::byte> taken = only_first(payload, info.truncated ? room : length);
  IovCursor cursor(iov, count, 0);
  bool fault = cursor.scatter(taken.first, taken.first_bytes) != 0 ||
               (taken.second_bytes > 0 && cursor.scatter(taken.second, taken.second_bytes) != 0);
  bool peek = (flags & MSG_PEEK) != 0;
  if (fault && peek) return -EFAULT;
  if (channel >= 0 && !take_ancillary(channel, fault ? nullptr : control, flags)) return break_off_records();
  info.has_control = channel >= 0;
  if (!peek) retire_record(length);  // also one that could not be copied, as the kernel has it
  if (fault) return -EFAULT;
  return ssize_t((flags & MSG_TRUNC) != 0 ? length : taken.bytes());
}

ssize_t TcpSocket::receive_record(const iovec* iov, int count, int flags, msghdr* control, RecordInfo& info) {
  if ((flags & MSG_OOB) != 0) return -EOPNOTSUPP;
  bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = wait ? Deadline::in_us(receive_timeout_us) : Deadline::never();
  for (;;) {
    ssize_t n;
    {
      DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
      if (state != TcpState::kConnected) return kNowTheKernels;
      n = take_record(iov, count, flags, control, info);
    }
    look_behind();
    if (state != TcpState::kConnected) return info.came ? n : ssize_t{kNowTheKernels};
    if (n != -EAGAIN || !wait) return n;
    if (int error = wait_for_bytes(1, deadline, unrestarted); error != 0) return error;
    if (state != TcpState::kConnected) return kNowTheKernels;
  }
}

// FIONREAD: the bytes of all that is queued.
int64_t TcpSocket::bytes_of_records() {
  DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
  int64_t total = 0;
  if (state != TcpState::kConnected || theirs == nullptr || is_broken()) return 0;
  ByteConsumer in(region_of(theirs), *theirs, *mine);
  Pieces<const std::byte> queued, payload;
  int64_t all = in.available();  // once: a writer that goes on and on keeps nobody here
  for (uint64_t skip = 0; int64_t(skip) < all && in.observe(queued, skip) == 0 && queued.bytes() > 0;) {
    while (queued.bytes() > 0) {
      if (first_record(queued, payload) != 0) return total;
      size_t whole = kRecordHeaderBytes + payload.bytes();
      total += int64_t(payload.bytes());
      skip += whole;
      queued = without_first(queued, whole);
    }
  }
  return total;
}

}  // namespace sluice::preload
