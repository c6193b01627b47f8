// The byte ring: one direction of one connection, A to B.
//
//   region A->B: slot.tail, slot.rings[2], slot.switches, and the ring's memory
//   region B->A: slot.head
//
//        head                tail              positions count bytes since the connection
//          v                   v               began and never wrap; the byte at position
//   [ free | ######## readable | free ]        p lies at ring + (p & (size - 1))
//
// A ring grows by handover: A takes a bigger ring R, sets rings[(n+1) & 1] = {from: tail,
// R}, then switches = n + 1. Bytes before `from` stay in the old ring, bytes from it on go to R.
// A switches again only when head has passed `from`, so that two descriptors are enough,
// and then the old ring is free. Which ring holds position p follows from the
// descriptors alone, so processes that share a connection after a fork need no common cache.
//
// Ownership: everything above but head is A's; head is B's.
// Invariants: 0 <= tail - head; bytes in the newest ring <= its size.
// Edges:  R0 producer publishes tail (release)      -> S0 consumer observes it (acquire);
//         R2 producer publishes switches (release)  -> S2 consumer observes them (acquire):
//            S0 would order only the switches before that tail, and newer ones may be seen
//         S1 consumer retires head (release)        -> R1 producer sees space (acquire)
// Death:  a producer that dies before R0 has sent nothing of that piece; a consumer that
//         dies before S1 has taken bytes that nobody else will see.
// Trust:  the consumer copies the descriptor out once, checks it against the region and cuts
//         what it reads to the ring's size; a producer that breaks an invariant gets -EPROTO.
//         The producer does the same with head.
#pragma once

#include <errno.h>

#include "shm/death_point.h"
#include "shm/layout.h"

namespace sluice::shm {

// Who retires bytes while fewer than these were queued does not look whether the writer waits for space: the
// smallest ring was at least three quarters free.
inline constexpr uint64_t kQuietBytes = (1u << kSmallestRingLog2) / 4;

// How far ahead of its tail a writer of small messages fetches the ring's lines.
inline constexpr uint64_t kAheadBytes = 4 * kCacheLine;

// A writer has put a small message before `end`, and more are to come: the reader has the next lines of the ring, from when it
// read them last. So they are on their way while the next messages are written, instead of each being waited for. Where the ring
// ends they are in vain; no prefetch faults.
inline void fetch_ahead(const std::byte* end) { __builtin_prefetch(end + kAheadBytes, 1); }

// Two pieces of ring memory: the part up to the ring's end, and the part from its start.
template <class Byte>
struct Pieces {
  Byte* first = nullptr;
  std::size_t first_bytes = 0;
  Byte* second = nullptr;
  std::size_t second_bytes = 0;
  std::size_t bytes() const { return first_bytes + second_bytes; }
};

template <class Byte>
Pieces<Byte> pieces_at(Byte* ring, std::size_t size, uint64_t position, std::size_t bytes) {
  std::size_t at = position & (size - 1);
  std::size_t to_end = size - at;
  if (bytes <= to_end) return {ring + at, bytes, ring, 0};
  return {ring + at, to_end, ring, bytes - to_end};
}

inline bool ring_is_valid(const RingRef& r) {
  if (r.size_log2 < kSmallestRingLog2 || r.size_log2 > kLargestRingLog2) return false;
  uint64_t begin = uint64_t{r.page} * kPageBytes;
  return begin >= kHeapOffset && begin + (uint64_t{1} << r.size_log2) <= kPairBytes;
}

// Each field is read exactly once: the compiler may not look again after the check.
inline RingRef copy_once(const RingRef& theirs) {
  return {__atomic_load_n(&theirs.from, __ATOMIC_RELAXED),  // ordered by S2, all three
          __atomic_load_n(&theirs.page, __ATOMIC_RELAXED),
          __atomic_load_n(&theirs.size_log2, __ATOMIC_RELAXED)};
}

// Zeroes what was written into a ring from its first byte up to `until`: the writer, before it uses the memory for
// another connection. Memory that was never touched stays untouched.
inline void clear_ring(const PairView& to, const RingRef& r, uint64_t until) {
  std::size_t size = std::size_t{1} << r.size_log2;
  uint64_t written = until - r.from < size ? until - r.from : size;
  Pieces<std::byte> p = pieces_at<std::byte>(to.base + uint64_t{r.page} * kPageBytes, size, r.from, written);
  __builtin_memset(p.first, 0, p.first_bytes);
  if (p.second_bytes != 0) __builtin_memset(p.second, 0, p.second_bytes);
}

class ByteConsumer {
 public:
  ByteConsumer(PairView from, Slot& theirs, Slot& mine) : from_(from), theirs_(theirs), mine_(mine) {}

  // Readable bytes in all rings: what FIONREAD says. Or -EPROTO.
  [[nodiscard]] int64_t available() const {
    uint64_t tail = theirs_.tail.load(std::memory_order_acquire);  // S0
    uint64_t head = mine_.head.load(std::memory_order_relaxed);    // our own
    int64_t n = int64_t(tail - head);
    return n < 0 || n > int64_t{2} << kLargestRingLog2 ? -EPROTO : n;
  }

  // Readable bytes `skip` bytes after head, as far as one ring holds them. 0: none. Or -EPROTO.
  [[nodiscard]] int observe(Pieces<const std::byte>& out, uint64_t skip = 0) const {
    DeathPoint at_edge("S0");
    uint64_t tail = theirs_.tail.load(std::memory_order_acquire);  // S0
    uint64_t at = mine_.head.load(std::memory_order_relaxed) + skip;  // our own
    out = {};
    if (tail == at) return 0;
    if (int64_t(tail - at) < 0) return skip != 0 ? 0 : -EPROTO;
    uint32_t n = theirs_.switches.load(std::memory_order_acquire);  // S2
    RingRef ring = copy_once(theirs_.rings[n & 1]);
    uint64_t end = tail;
    if (n > 1 && at < ring.from) {
      end = ring.from < tail ? ring.from : tail;
      ring = copy_once(theirs_.rings[(n - 1) & 1]);
    }
    std::size_t size = std::size_t{1} << (ring.size_log2 & 31);
    if (!ring_is_valid(ring) || end - at > size) return -EPROTO;
    out = pieces_at<const std::byte>(from_.base + uint64_t{ring.page} * kPageBytes, size, at, end - at);
    return 0;
  }

  // Gives `bytes` back to the producer.
  void retire(uint64_t bytes) {
    uint64_t head = mine_.head.load(std::memory_order_relaxed);  // our own
    DeathPoint at_edge("S1");
    mine_.head.store(head + bytes, std::memory_order_release);  // S1
  }

 private:
  PairView from_;
  Slot& theirs_;
  Slot& mine_;
};

class ByteProducer {
 public:
  // `peer`: the peer's slot, or null while the peer has not attached: then its head is 0.
  ByteProducer(PairView to, Slot& mine, const Slot* peer, uint64_t& head_seen)
      : to_(to), mine_(mine), peer_(peer), head_seen_(head_seen) {}

  uint64_t tail() const { return mine_.tail.load(std::memory_order_relaxed); }  // our own
  bool has_ring() const { return mine_.switches.load(std::memory_order_relaxed) != 0; }  // our own
  const RingRef& ring() const { return mine_.rings[mine_.switches.load(std::memory_order_relaxed) & 1]; }
  std::size_t size() const { return has_ring() ? std::size_t{1} << ring().size_log2 : 0; }

  // Bytes that the peer has not consumed. Refreshes the cached head.
  uint64_t unread() const {
    refresh();
    return tail() - head_seen_;
  }

  // Free bytes in the newest ring, by the cached head; `fresh` looks at the peer's line.
  [[nodiscard, gnu::always_inline]] std::size_t space(bool fresh) const {
    if (!has_ring()) return 0;
    if (fresh) refresh();
    uint64_t oldest = ring().from > head_seen_ ? ring().from : head_seen_;
    uint64_t used = tail() - oldest;
    return used >= size() ? 0 : size() - used;
  }

  // Space to write into, at most `bytes`, by the cached head.
  [[nodiscard, gnu::always_inline]] Pieces<std::byte> reserve(std::size_t bytes) const {
    std::size_t free = space(false);
    if (bytes > free) bytes = free;
    if (bytes == 0) return {};
    return pieces_at<std::byte>(to_.base + uint64_t{ring().page} * kPageBytes, size(), tail(), bytes);
  }

  // Makes the next `bytes` of reserved space readable.
  void publish(std::size_t bytes) {
    DeathPoint at_edge("R0");
    mine_.tail.store(tail() + bytes, std::memory_order_release);  // R0
  }

  // Whether a handover may begin: the peer has left the ring before the newest.
  [[nodiscard]] bool can_switch() const {
    uint32_t n = mine_.switches.load(std::memory_order_relaxed);  // our own
    if (n < 2 || head_seen_ >= ring().from) return true;
    refresh();
    return head_seen_ >= ring().from;
  }

  // From the next byte on, `next` holds what is sent. Only after can_switch().
  void switch_to(uint32_t page, uint32_t size_log2) {
    uint32_t n = mine_.switches.load(std::memory_order_relaxed) + 1;  // our own
    mine_.rings[n & 1] = {tail(), page, size_log2};
    DeathPoint at_edge("R2");
    mine_.switches.store(n, std::memory_order_release);  // R2
  }

 private:
  void refresh() const {
    if (peer_ == nullptr) return;
    DeathPoint at_edge("R1");
    uint64_t head = peer_->head.load(std::memory_order_acquire);  // R1
    if (head > head_seen_ && head <= tail()) head_seen_ = head;    // else a lie: ignored
  }
  PairView to_;
  Slot& mine_;
  const Slot* peer_;
  uint64_t& head_seen_;
};

}  // namespace sluice::shm
