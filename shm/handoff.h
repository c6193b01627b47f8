// The handoff: one direction of a socketpair(2) between processes that have the shim.
//
// The kernel's socket pair stays underneath, as the kernel's pipe does under a channel (channel.h). What a
// socket has received cannot be put back into it by who reads it, so here bytes are handed over only
// to a reader that is inside a call at this moment, and no more of them than its buffer takes: whenever
// no reader is inside, the ring is empty, and poll, exec, descriptors in messages and programs without
// the shim find all there is where they look for it, in the kernel.
//
//   kernel   writers write to the kernel's socket
//   wanted   the same, but a reader comes back soon: who has much to write may wait for it
//   ring     a reader looks, and has room for `credit` bytes: writers put their bytes here
//   resting  the reader has returned with what there was, and nothing is in the kernel's socket
//
//             reader: says so              reader: nothing in the kernel's socket, no writer inside
//     kernel -----------------> wanted -------------------------------------------> ring
//       ^                          |                                                |  ^
//       +--------------------------+          reader: has all of it, returns        v  | reader: is back
//       +-------------------------------------------------------------------------- resting
//         a writer, before it writes to the kernel's socket; a reader, before it sleeps there
//
// Order. Who writes to the kernel's socket counts itself in `writing` first, and then, after a full fence, leaves if
// the mode is another than `kernel`. So if a reader that said `wanted`, then, after a full fence, saw nobody in
// `writing`, then an empty socket, finds the word unchanged, nothing of ours is under way there, nor is in `resting`. A reader takes
// what is in the ring before it looks into the kernel.
//
// Mode, credit and tail are one word: a publication and a reader's return exclude each other, and what is
// published always fits the buffer of the reader that is inside.
//
// Locks: neither is ever waited for; who does not get one goes to the kernel. The read lock is held
//            while a reader is inside, so it names the reader that a ring is for.
// Ownership: word: the reader with the read lock wants, enters, rests; the writer with the write lock
//            publishes; anybody leaves. head: the read lock.
// Invariants: 0 <= tail - head <= kHandoffRingBytes; tail = head unless a reader is inside or has died there.
// Edges:  H0 a writer publishes (acq_rel)    -> I0 a reader observes (acquire)
//         I1 a reader enters anew (acq_rel)  -> H1 a writer sees its credit (acquire)
// Death:  a writer before H0 has written nothing of that piece. A reader that dies inside has taken what was
//         published, or the next reader finds it, or the next writer moves it to the kernel. Who dies while it is
//         counted in `writing` leaves the direction in kernel mode for good.
// Trust:  as for a channel: who holds an end may do to its bytes what it likes, and harms nobody else. Positions
//         are cut to the ring, and no lock is waited for.
#pragma once

#include "shm/byte_ring.h"
#include "shm/layout.h"

namespace sluice::shm {

inline constexpr uint32_t kHandoffVersion = 1;
inline constexpr std::size_t kHandoffRingBytes = std::size_t{256} << 10;
inline constexpr std::size_t kHandoffBytes = kPageBytes + 2 * kHandoffRingBytes;
inline constexpr const char* kHandoffName = "sluice-handoff";

struct Direction {
  alignas(kCacheLine) Shared<uint64_t> word;  // tail, credit, mode: see Handoff
  alignas(kCacheLine) Shared<uint32_t> write_lock;
  Shared<uint32_t> writer_cpu;  // hints, as PairHeader::cpu
  Shared<uint32_t> writing;     // writers in the kernel: a ring has to wait for them
  alignas(kCacheLine) Shared<uint64_t> head;
  Shared<uint32_t> read_lock;
  Shared<uint32_t> reader_cpu;
  Shared<uint32_t> nonblocking;  // O_NONBLOCK of the end that reads
  Shared<uint32_t> kernel_only;  // shut down, watched for events, or held by who knows whom
};

struct HandoffHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  uint64_t inodes[2];        // of the two ends
  uint64_t process_ids;      // the namespace of the numbers that locks have
  Shared<uint32_t> counted;  // in the statistics
  Direction directions[2];   // [i] is read at end i
};
static_assert(sizeof(HandoffHeader) <= kPageBytes);

class Handoff {
 public:
  enum Mode : uint64_t { kKernel = 0, kRing = 1, kWanted = 2, kResting = 3 };

  explicit Handoff(std::byte* base = nullptr, unsigned reading_end = 0) : base_(base), reading_end_(reading_end) {}
  Direction& direction() const { return reinterpret_cast<HandoffHeader*>(base_)->directions[reading_end_]; }

  static Mode mode(uint64_t word) { return Mode(word & kModeBits); }
  static std::size_t credit(uint64_t word) { return std::size_t((word & kCreditBits) >> kCreditShift); }
  static uint64_t tail(uint64_t word) { return word >> kTailShift; }
  uint64_t word() const { return direction().word.load(std::memory_order_acquire); }  // I0, H1

  // ---- reading, under the read lock
  std::size_t readable(uint64_t word) const {
    uint64_t n = (tail(word) - head()) & kPositions;
    return n <= kHandoffRingBytes ? std::size_t(n) : 0;  // else a lie
  }
  Pieces<const std::byte> observe(std::size_t bytes) const {
    return pieces_at<const std::byte>(ring(), kHandoffRingBytes, head(), bytes);
  }
  void retire(std::size_t bytes) const {
    direction().head.store((head() + bytes) & kPositions, std::memory_order_release);  // for the next with the lock
  }
  [[nodiscard]] bool want(uint64_t seen) const { return exchange(seen, (seen & ~kModeBits) | kWanted); }
  // From `wanted`, once nothing is under way in the kernel; or from `resting`.
  [[nodiscard]] bool enter(uint64_t& seen, std::size_t room) const {
    if (room > kHandoffRingBytes) room = kHandoffRingBytes;
    uint64_t next = (tail(seen) << kTailShift) | (uint64_t{room} << kCreditShift) | kRing;
    if (!exchange(seen, next)) return false;  // I1
    seen = next;
    return true;
  }
  // False: more has come.
  [[nodiscard]] bool rest(uint64_t seen) const { return exchange(seen, (tail(seen) << kTailShift) | kResting); }
  [[nodiscard]] bool sleep(uint64_t seen) const { return exchange(seen, (tail(seen) << kTailShift) | kKernel); }

  // Ends everything but the kernel's part. An exchange in any case: whoever enters later sees what came before.
  void leave() const { direction().word.fetch_and(~kModeBits, std::memory_order_acq_rel); }

  // ---- writing, under the write lock
  Pieces<std::byte> reserve(uint64_t word, std::size_t bytes) const {
    return pieces_at<std::byte>(ring(), kHandoffRingBytes, tail(word), bytes);
  }
  // At most credit(seen) bytes. False: the reader is no longer there, and nothing was published.
  [[nodiscard]] bool publish(uint64_t seen, std::size_t bytes) const {
    return exchange(seen, seen + (uint64_t{bytes} << kTailShift) - (uint64_t{bytes} << kCreditShift));  // H0
  }

 private:
  static constexpr uint64_t kModeBits = 3;
  static constexpr unsigned kCreditShift = 2, kTailShift = 21;
  static constexpr uint64_t kCreditBits = (uint64_t{1} << kTailShift) - 1 - kModeBits;
  static constexpr uint64_t kPositions = ~uint64_t{0} >> kTailShift;
  static_assert(kHandoffRingBytes <= kCreditBits >> kCreditShift);

  uint64_t head() const { return direction().head.load(std::memory_order_relaxed); }  // the lock's holder's
  std::byte* ring() const { return base_ + kPageBytes + reading_end_ * kHandoffRingBytes; }
  bool exchange(uint64_t seen, uint64_t next) const {
    return direction().word.compare_exchange_strong(seen, next, std::memory_order_acq_rel);
  }
  std::byte* base_;
  unsigned reading_end_;
};

}  // namespace sluice::shm
