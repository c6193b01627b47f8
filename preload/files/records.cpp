// SOCK_SEQPACKET of AF_UNIX: records in the rings (shm/records.h) instead of a stream. What goes in is a record
// as a whole, or nothing. Errors and their order are those of unix_dgram_sendmsg, which never raises SIGPIPE.
// What comes out is in records_receive.cpp.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/direction_lock.h"
#include "preload/files/ancillary.h"
#include "preload/files/tcp_socket.h"
#include "preload/iov_cursor.h"
#include "preload/kernel.h"
#include "preload/materialize.h"
#include "preload/peers.h"
#include "preload/signals.h"
#include "shm/records.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

// A connection that is never busy keeps the smallest; the next ring takes all that SO_SNDBUF allows, at once: a
// forked child, which gets no other, can then send what its parent could.
constexpr uint32_t kLaterRings[] = {16, 18, 20};

}  // namespace

// ---- space --------------------------------------------------------------------------------

// As the kernel has it; not more than the largest ring takes.
size_t TcpSocket::largest_sent_record() const {
  constexpr size_t kKernelsOwn = 32;  // unix_dgram_sendmsg
  size_t buffer = send_buffer > 0 ? size_t(send_buffer) * 2 : default_send_buffer();
  size_t most = buffer > kKernelsOwn ? buffer - kKernelsOwn : 0;
  return most < kLargestRecord ? most : kLargestRecord;
}

bool TcpSocket::has_records_beyond_rings() const {
  constexpr int kMost = int(kLargestRecord / 2);
  return records && send_buffer > kMost;
}

uint32_t TcpSocket::record_ring_log2() const {
  for (uint32_t log2 : kLaterRings)
    if (largest_record(size_t{1} << log2) >= largest_sent_record()) return log2;
  return kLargestRingLog2;
}

bool TcpSocket::may_grow_for_records() {
  ByteProducer out = producer();
  return !pair->inherited && passed == 0 && !no_larger_ring && out.size() < size_t{1} << record_ring_log2() && out.can_switch();
}

// Whether the largest record fits now, or could: what poll(2) says has to hold for the next send(2).
bool TcpSocket::record_writable() {
  ByteProducer out = producer();
  if (!out.has_ring() || may_grow_for_records()) return true;
  size_t most = largest_record(out.size()), wanted = largest_sent_record();
  return out.space(true) >= kRecordHeaderBytes + (wanted < most ? wanted : most);
}

// Whether no ring will ever take it: memory has run out, or a forked child cannot have another one.
bool TcpSocket::never_fits(size_t bytes) {
  ByteProducer out = producer();
  return out.can_switch() && !may_grow_for_records() && (!out.has_ring() || bytes > largest_record(out.size()));
}

// Whether reserve_record() would say something else than -EAGAIN.
bool TcpSocket::record_fits(size_t bytes) {
  return producer().space(true) >= kRecordHeaderBytes + bytes || may_grow_for_records() || never_fits(bytes);
}

bool TcpSocket::grow_for_record(size_t bytes) {
  bool first = !producer().has_ring() && bytes <= largest_record(size_t{1} << kSmallestRingLog2);
  // As for a stream: who has not said how much may be under way gets the ring that costs the fewest switches of threads.
  uint32_t next = send_buffer > 0 ? record_ring_log2() : kLargestRingLog2;
  auto fits = [bytes](uint32_t log2) { return bytes <= largest_record(size_t{1} << log2); };
  if (first) return switch_ring(kSmallestRingLog2);
  for (uint32_t log2 : kLaterRings)  // not less than it needs, whatever SO_SNDBUF says by now
    if (log2 >= next && fits(log2) && switch_ring(log2)) return true;
  for (uint32_t log2 : kLaterRings)  // little memory is left
    if (size_t{1} << log2 > producer().size() && fits(log2)) return switch_ring(log2);
  return false;
}

void TcpSocket::grow_for_child() {
  if (may_grow_for_records()) (void)switch_ring(record_ring_log2());
}

// Room in the ring for the payload of the next record, in one or two pieces. 0; -EAGAIN: not now; -ENOBUFS: nor later.
int TcpSocket::reserve_record(size_t bytes, iovec* room) {
  ByteProducer out = producer();
  size_t needed = kRecordHeaderBytes + bytes;
  if (out.space(false) < needed && out.space(true) < needed) {
    if (never_fits(bytes)) return -ENOBUFS;
    if (!may_grow_for_records()) return -EAGAIN;
    if (!grow_for_record(bytes)) {
      // The pair's memory is used up: there will be room in the ring that there is, if it can hold that at all.
      if (!out.has_ring() || bytes > largest_record(out.size())) return -ENOBUFS;
      no_larger_ring = true;
      return -EAGAIN;
    }
  }
  Pieces<std::byte> whole = out.reserve(needed);
  if (whole.bytes() < needed) return -ENOBUFS;
  Pieces<std::byte> p = without_first(whole, kRecordHeaderBytes);
  room[0] = {p.first, p.first_bytes};
  room[1] = {p.second, p.second_bytes};
  return 0;
}

// What was put there becomes a record, of no more bytes than were reserved.
void TcpSocket::commit_record(size_t bytes) {
  ByteProducer out = producer();
  put_record_length(out.reserve(kRecordHeaderBytes + bytes), bytes);
  out.publish(kRecordHeaderBytes + bytes);
  no_larger_ring = false;  // perhaps there is one again
  after_publish();
}

// ---- sending ------------------------------------------------------------------------------

// Bytes or -errno; -EAGAIN: there is no space.
ssize_t TcpSocket::put_record(const iovec* iov, int count, size_t bytes) {
  iovec room[2];
  if (int error = reserve_record(bytes, room); error != 0) return error;
  IovCursor cursor(iov, count, 0);
  for (const iovec& r : room)
    if (cursor.gather(static_cast<std::byte*>(r.iov_base), r.iov_len) != 0) return -EFAULT;
  commit_record(bytes);
  return ssize_t(bytes);
}

// The same with ancillary data. -EBUSY: there is no space in the channel.
ssize_t TcpSocket::put_record_with(const msghdr& m, size_t bytes) {
  if (int error = open_channel(); error != 0 || state != TcpState::kConnected) return error != 0 ? error : kNowTheKernels;
  iovec room[2];
  if (int error = reserve_record(bytes, room); error != 0) return error;
  if (int error = probe_vectors(m.msg_iov, int(m.msg_iovlen), bytes, false); error != 0) return error;  // before it is announced
  if (int error = announce_ancillary(m, uint32_t(kRecordHeaderBytes + bytes)); error != 0) return error;
  return put_record(m.msg_iov, int(m.msg_iovlen), bytes);
}

// Under send_lock: 0 if something may be sent now; kLookAgain, without the lock.
int TcpSocket::may_send_record() {
  if (state != TcpState::kConnected) return kNowTheKernels;
  uint32_t remote = remote_state();
  note_reset(remote);
  if (int e = error.exchange(0, std::memory_order_relaxed); e != 0) return -e;  // told once
  if (shut_write() || reset_noted || is_refused(remote)) return -EPIPE;
  if ((remote & kRedirect) == 0 || dead) return (remote & kClosed) != 0 ? -EPIPE : 0;
  Guard control(control_lock);
  redirect(true, false);
  return state == TcpState::kConnected ? kLookAgain : kNowTheKernels;
}

ssize_t TcpSocket::send_record(const iovec* iov, int count, int flags, const msghdr* with) {
  size_t bytes = total_bytes(iov, count);
  bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = wait ? Deadline::in_us(send_timeout_us) : Deadline::never();
  for (;;) {
    ssize_t n;
    {
      DirectionGuard guard(send_lock, *this, &Slot::send_lock);
      n = may_send_record();
      if (n == kLookAgain) continue;
      if ((n == 0 || n == -EPIPE) && (flags & MSG_OOB) != 0) return -EOPNOTSUPP;
      if ((n == 0 || n == -EPIPE) && bytes > largest_sent_record()) return -EMSGSIZE;
      if (n == 0) n = with != nullptr ? put_record_with(*with, bytes) : put_record(iov, count, bytes);
    }
    look_behind();
    if (n != -EAGAIN && n != -EBUSY) return n;
    if (!wait) {
      Looking looking;
      if (state != TcpState::kConnected) return kNowTheKernels;
      // As for a stream: whoever waits for an edge is told when there is space again.
      mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // ordered by the fence
      sleep_wake_fence();
      if (n == -EAGAIN && record_fits(bytes)) continue;
      return -EAGAIN;
    }
    int e = n == -EBUSY ? wait_for_channel(deadline, unrestarted) : wait_for_space(deadline, unrestarted, &bytes);
    if (e != 0) return e;
  }
}

// ---- elsewhere ------------------------------------------------------------------------------

namespace {

Pieces<const std::byte> pieces_of(const std::byte* bytes, uint64_t n) { return {bytes, size_t(n), nullptr, 0}; }

}  // namespace

// Sends the first record of a copy of what was sent again. How many bytes of the copy that was; 0: it cannot.
size_t TcpSocket::repeat_record(const std::byte* copy, uint64_t n) {
  Pieces<const std::byte> payload;
  if (first_record(pieces_of(copy, n), payload) != 0) return 0;
  iovec iov{const_cast<std::byte*>(payload.first), payload.bytes()};
  return put_record(&iov, 1, payload.bytes()) < 0 ? 0 : kRecordHeaderBytes + payload.bytes();
}

bool repeat_records_in_kernel(int far, int to, const std::byte* bytes, uint64_t n, const Deadline& deadline) {
  SentAncillary ancillary;
  bool any = ancillary.take(far);
  for (uint64_t at = 0; at < n;) {
    Pieces<const std::byte> payload;
    if (first_record(pieces_of(bytes + at, n - at), payload) != 0) return false;
    bool belongs = any && ancillary.header().position == at;
    if (ancillary.send(to, payload.first, payload.bytes(), belongs, deadline) < 0) return false;
    if (belongs) any = ancillary.take(far);
    at += kRecordHeaderBytes + payload.bytes();
  }
  return !any;
}

}  // namespace sluice::preload
