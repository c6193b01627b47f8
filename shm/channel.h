// The channel: what a pipe is between processes that all have the shim.
//
// The kernel's pipe stays underneath and stays the truth about who holds its ends: it gives EOF,
// EPIPE, readiness and sleep. The channel adds a ring that bytes take while a reader is awake:
//
//   kernel mode  nobody looks: writers write to the kernel's pipe, which wakes whoever sleeps there
//   wanted       a reader would look at the ring, but the kernel's pipe has bytes still
//   ring mode    a reader looks here: writers put their bytes into the ring
//
//                     a reader, or in `wanted` a writer:
//                     the kernel's pipe is empty, no writer inside
//        kernel mode ----------------------------------------------------> ring mode
//          or wanted <----------------------------------------------------
//                     reader: about to sleep, ring empty. Anybody, at any time: leave()
//
// Order. Bytes in the ring come before what is in the kernel's pipe: the ring begins only while
// the pipe is empty and no writer of ours is inside the kernel (`writing`, which changes under the write
// lock), and a writer goes to the kernel only after it has ended ring mode. So a reader takes the ring
// first, in either mode. A writer that goes to the kernel takes what is in the ring along: while there
// are bytes in the ring the kernel's pipe is empty and can take them all, so they can be moved there at
// any time for a reader that knows nothing of the ring.
//
// The mode and the tail are one word, so that a publication and a reader's going to sleep exclude
// each other: a writer that loses has published nothing and writes to the kernel instead. There is
// no wake-up of ours, hence none to lose.
//
// Locks: the write lock before the read lock; enter() only tries the former under the latter.
// Ownership: word: who holds the write lock moves the tail and may leave; a reader that holds the
//            read lock enters (with the write lock) and sleeps; anybody leaves. head: the read lock.
// Invariants: 0 <= tail - head <= kChannelRingBytes.
// Edges:  P0 a writer publishes (acq_rel)     -> Q0 a reader observes (acquire)
//         Q1 a reader retires head (release)  -> P1 a writer sees space (acquire)
// Death:  a writer that dies before P0 has written nothing of that piece; a reader that dies before
//         Q1 has taken nothing. Locks name their owner: see preload/process_lock.h. Who dies while it
//         is counted in `writing` or `sleepers` leaves the pipe in kernel mode for good.
// Trust:  whoever holds an end of a pipe can write what it likes into it, and so it may into the
//         channel; it harms nobody who does not read that pipe. Positions are cut to the ring's size.
#pragma once

#include "shm/byte_ring.h"
#include "shm/death_point.h"
#include "shm/layout.h"

namespace sluice::shm {

inline constexpr uint32_t kChannelVersion = 1;
inline constexpr std::size_t kChannelRingBytes = std::size_t{256} << 10;
inline constexpr std::size_t kChannelBytes = kPageBytes + kChannelRingBytes;
inline constexpr const char* kChannelName = "sluice-channel";

enum ChannelMode : uint64_t { kKernelMode = 0, kRingMode = 1, kRingWanted = 2, kModeBits = 3 };

struct ChannelHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  uint64_t inode;  // of the kernel's pipe
  alignas(kCacheLine) Shared<uint64_t> word;  // tail << 2 | ChannelMode
  alignas(kCacheLine) Shared<uint32_t> write_lock;
  Shared<uint32_t> writer_cpu;  // hints, as PairHeader::cpu
  Shared<uint32_t> writing;     // writers in the kernel: ring mode has to wait for them
  alignas(kCacheLine) Shared<uint64_t> head;
  Shared<uint32_t> read_lock;
  Shared<uint32_t> reader_cpu;
  Shared<uint32_t> sleepers;     // readers in the kernel: they would not see the ring
  Shared<uint32_t> kernel_only;  // somebody polls the pipe, or holds it without the shim
  Shared<uint32_t> counted;      // in the statistics
  // How many bytes the ring takes: never more than the kernel's pipe could hold instead.
  alignas(kCacheLine) Shared<uint32_t> limit;
  Shared<uint32_t> nonblocking[2];  // O_NONBLOCK of the reading and of the writing end
};
static_assert(sizeof(ChannelHeader) <= kPageBytes);

class Channel {
 public:
  explicit Channel(std::byte* base = nullptr) : base_(base) {}
  explicit operator bool() const { return base_ != nullptr; }
  std::byte* base() const { return base_; }
  ChannelHeader& header() const { return *reinterpret_cast<ChannelHeader*>(base_); }

  static bool is_ring(uint64_t word) { return (word & kModeBits) == kRingMode; }
  static bool is_kernel(uint64_t word) { return (word & kModeBits) == kKernelMode; }
  static bool is_wanted(uint64_t word) { return (word & kModeBits) == kRingWanted; }
  uint64_t word() const { return header().word.load(std::memory_order_acquire); }  // Q0

  // ---- reading, under the read lock
  std::size_t readable(uint64_t word) const {
    uint64_t n = ((word >> 2) - header().head.load(std::memory_order_relaxed)) & kPositions;  // ours, by the lock
    return n <= kChannelRingBytes ? std::size_t(n) : 0;                                      // else a lie
  }
  Pieces<const std::byte> observe(std::size_t bytes) const {
    uint64_t head = header().head.load(std::memory_order_relaxed);  // ours, by the lock
    return pieces_at<const std::byte>(ring(), kChannelRingBytes, head, bytes);
  }
  void retire(std::size_t bytes) const {
    uint64_t head = header().head.load(std::memory_order_relaxed);  // ours, by the lock
    DeathPoint at_edge("channel Q1");
    header().head.store((head + bytes) & kPositions, std::memory_order_release);  // Q1
  }
  // Begins ring mode. Under both locks, and only while the kernel's pipe is empty.
  [[nodiscard]] bool enter(uint64_t seen) const {
    DeathPoint at_edge("channel enter");
    return exchange(seen, (seen & ~kModeBits) | kRingMode);
  }
  // Asks writers to do so.
  [[nodiscard]] bool want(uint64_t seen) const { return is_kernel(seen) && exchange(seen, seen | kRingWanted); }
  // Ends it because this reader goes to sleep. False: there are bytes now, or it has ended.
  [[nodiscard]] bool sleep(uint64_t seen) const {
    DeathPoint at_edge("channel sleep");
    return readable(seen) == 0 && exchange(seen, seen & ~kModeBits);
  }
  // Ends it, whatever is in the ring.
  void leave() const {
    DeathPoint at_edge("channel leave");
    if (!is_kernel(word())) header().word.fetch_and(~kModeBits, std::memory_order_acq_rel);
  }

  // ---- writing, under the write lock
  std::size_t space(uint64_t word) const {
    uint64_t used = ((word >> 2) - header().head.load(std::memory_order_acquire)) & kPositions;  // P1
    uint64_t limit = header().limit.load(std::memory_order_relaxed);  // a bound, never below what is used
    if (limit > kChannelRingBytes) limit = kChannelRingBytes;
    return used < limit ? std::size_t(limit - used) : 0;
  }
  Pieces<std::byte> reserve(uint64_t word, std::size_t bytes) const {
    return pieces_at<std::byte>(ring(), kChannelRingBytes, word >> 2, bytes);
  }
  // False: a reader has gone to sleep meanwhile, and nothing was published.
  [[nodiscard]] bool publish(uint64_t seen, std::size_t bytes) const {
    DeathPoint at_edge("channel P0");
    return is_ring(seen) && exchange(seen, seen + (uint64_t{bytes} << 2));  // P0
  }

 private:
  static constexpr uint64_t kPositions = ~uint64_t{0} >> 2;  // of 62 bits
  std::byte* ring() const { return base_ + kPageBytes; }
  bool exchange(uint64_t seen, uint64_t next) const {
    return header().word.compare_exchange_strong(seen, next, std::memory_order_acq_rel);
  }
  std::byte* base_;
};

}  // namespace sluice::shm
