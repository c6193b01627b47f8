// The ready queue: in region A->B, the indexes of connections on which B has something new.
//
//   entries[p % 16384] = lap(p) << 32 | slot        lap(p) = p / 16384 + 1, modulo 2^32
//
// The consumer recognises a fresh entry by its lap, so entry and index travel in one line.
//
// Ownership: entries belong to the producer A; ready_head, in B->A, to the consumer B.
// Invariant: once the two sides see each other, a connection has at most one unconsumed
//   entry, hence the queue does not overflow: it has as many entries as there are slots. The producer remembers where it pushed a
//   connection last and does not push it again while ready_head has not passed that entry.
// Edges:  E0 producer publishes an entry (release) -> F0 consumer observes it (acquire)
//         F1 consumer stores ready_head, full fence, then reads the connection's state
//         E1 producer publishes state, full fence, then reads ready_head
//         F1 and E1 form a store buffering pair: either the consumer sees the new state or
//         the producer sees the entry consumed and pushes again. The fence is the one of
//         wake.h, paid once per batch by the consumer, once per publication by the producer.
// Death:  a dead producer has pushed an entry or not; the coordinator announces the death.
// Trust:  the consumer masks the index and treats an unknown one as noise; a false entry costs
//         a look. A false ready_head makes the producer push more, never out of bounds; it
//         stops at a full queue and the consumer that lied misses its news.
#pragma once

#include "shm/death_point.h"
#include "shm/layout.h"
#include "shm/wake.h"

namespace sluice::shm {

class ReadyProducer {
 public:
  ReadyProducer() = default;
  explicit ReadyProducer(ReadyEntry* entries) : entries_(entries) {}

  // `last`: where this connection was pushed last, plus 1 (0: never). `head`: the consumer's
  // ready_head, or null while unknown: then the entry is added whether or not one is waiting. Call after the state's publication and a full fence (E1).
  // Returns whether an entry was added; then the entry is a P0 of wake.h, which wants a full
  // fence of its own before the look at whether the consumer sleeps.
  bool push(uint32_t slot, uint64_t& last, const Shared<uint64_t>* head) {
    if (last > head_seen_ && head != nullptr) {
      refresh(head);
      if (last > head_seen_) return false;
    }
    if (position_ - head_seen_ >= kSlots) {
      refresh(head);
      if (position_ - head_seen_ >= kSlots) return false;
    }
    uint64_t lap = position_ / kSlots + 1;
    DeathPoint at_edge("E0");
    entries_[position_ % kSlots].store(lap << 32 | slot, std::memory_order_release);  // E0
    last = ++position_;
    return true;
  }

 private:
  void refresh(const Shared<uint64_t>* head) {
    if (head == nullptr) return;
    uint64_t seen = head->load(std::memory_order_acquire);
    if (seen <= position_) head_seen_ = seen;  // else a lie
  }
  ReadyEntry* entries_ = nullptr;
  uint64_t position_ = 0;
  uint64_t head_seen_ = 0;
};

class ReadyConsumer {
 public:
  ReadyConsumer() = default;
  ReadyConsumer(const ReadyEntry* entries, Shared<uint64_t>* head)
      : entries_(entries), head_(head), position_(head->load(std::memory_order_relaxed)) {}

  // A hint, for spinning: take() looks again.
  [[nodiscard]] bool has_fresh() const {
    return fresh(entries_[position_ % kSlots].load(std::memory_order_relaxed));
  }

  // Takes up to `capacity` slot indexes, then publishes progress with the fence of F1. Look
  // at the connections only after this has returned.
  uint32_t take(uint32_t* slots, uint32_t capacity) {
    uint32_t n = 0;
    while (n < capacity) {
      uint64_t e = entries_[position_ % kSlots].load(std::memory_order_acquire);  // F0
      if (!fresh(e)) break;
      slots[n++] = uint32_t(e) % kSlots;
      ++position_;
    }
    if (n != 0) {
      DeathPoint at_edge("F1");
      head_->store(position_, std::memory_order_release);  // F1
      sleep_wake_fence();
    }
    return n;
  }

 private:
  bool fresh(uint64_t e) const { return e >> 32 == uint32_t(position_ / kSlots + 1); }
  const ReadyEntry* entries_ = nullptr;
  Shared<uint64_t>* head_ = nullptr;
  uint64_t position_ = 0;
};

}  // namespace sluice::shm
