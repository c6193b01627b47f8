// The shared request queue: many producers, one consumer, all of one uid.
//
//   ticket = tail.fetch_add(n)                       claim, n messages at once
//   entries[ticket % 1024].message = m
//   entries[ticket % 1024].sequence = ticket + 1     publish, each
//
// Ownership: whoever holds a ticket owns that entry until it publishes. head is written by
// the consumer; producers wait for it when the queue is full.
// Edges:  Q0 producer publishes sequence (release) -> C0 consumer observes it (acquire)
//         C1 consumer retires head (release)       -> Q1 producer finds its entry free (acquire)
// Death:  a producer may die between claim and publish. Around the claim it keeps
//         ClientRegion::claim (its own region): 1 "claiming", then 2 + ticket and n, then 0. The
//         consumer skips an entry that is unpublished although, before it looked, no living
//         producer had a claim that could be this ticket.
//           A0 claim = 1; A1 fetch_add; A2 claim = claim_of(ticket, n); A3 publish; A4 claim = 0
//         A0 comes before A1 for the consumer because A1 is a locked operation.
// Trust:  every producer can write everything here, so a request acts only with the uid's
//         rights and a hostile producer can stop the queue of its own uid, not of others.
#pragma once

#include "shm/death_point.h"
#include "shm/layout.h"
#include "shm/wake.h"

namespace sluice::shm {

// ClientRegion::claim: tickets are counted in its lower bits, how many there are in the upper ones.
inline constexpr uint32_t kClaimTicketBits = 48;
inline constexpr uint64_t kClaimTickets = (uint64_t{1} << kClaimTicketBits) - 1;
inline constexpr uint64_t claim_of(uint64_t ticket, uint32_t n) {
  return (uint64_t{n} << kClaimTicketBits) | ((ticket + 2) & kClaimTickets);
}

class SharedProducer {
 public:
  static constexpr uint32_t kMostAtOnce = 16;
  SharedProducer() = default;
  SharedProducer(SharedQueueRegion* queue, Shared<uint64_t>* claim, DomainId self)
      : queue_(queue), claim_(claim), self_(self) {}

  // False when the queue has been full for `spins` looks: the consumer is stuck or dead.
  [[nodiscard]] bool try_push(const Message& m, uint32_t spins = 1u << 20) { return push_some(&m, 1, spins) == 1; }
  // Several with one claim, at most kMostAtOnce. Returns how many were published: all, or the first ones.
  uint32_t push_some(const Message* messages, uint32_t n, uint32_t spins = 1u << 20) {
    if (!has_room(n)) return 0;
    DeathPoint at_edge("A0 to A4");
    claim_->store(1, std::memory_order_release);                              // A0
    uint64_t ticket = queue_->tail.fetch_add(n, std::memory_order_acq_rel);  // A1
    for (uint32_t i = 0; i < n; ++i) fetch_to_write(queue_->entries[(ticket + i) % kSharedMessages]);  // now ours
    come_to_claimed();
    claim_->store(claim_of(ticket, n), std::memory_order_release);           // A2
    uint32_t done = 0;
    for (; done < n && wait_for_room(ticket, spins); ++done, ++ticket) {
      DeathPoint at_publication("A3");
      SharedEntry& e = queue_->entries[ticket % kSharedMessages];
      e.sender = self_;
      e.message = messages[done];
      e.sequence.store(ticket + 1, std::memory_order_release);  // A3, Q0
      after_last_ = ticket + 1;
    }
    claim_->store(0, std::memory_order_release);  // A4
    return done;
  }
  // A hint: looked at again with each ticket.
  [[nodiscard]] bool has_room(uint32_t n) const {
    uint64_t used = queue_->tail.load(std::memory_order_relaxed) - queue_->head.load(std::memory_order_relaxed);  // a hint
    return used + n <= kSharedMessages;
  }

  // Whether the consumer has taken all that this producer has published; as head says, which a hostile
  // producer of the same user can write as well.
  [[nodiscard]] bool is_drained() const {
    return after_last_ == 0 || int64_t(queue_->head.load(std::memory_order_acquire) - after_last_) >= 0;  // Q1
  }

 private:
  // The consumer has it, from the lap before: both lines come while the others do.
  static void fetch_to_write(const SharedEntry& e) {
    __builtin_prefetch(&e, 1);
    __builtin_prefetch(&e.message, 1);
  }
  static void come_to_claimed() { DeathPoint at_edge("A2"); }
  bool wait_for_room(uint64_t ticket, uint32_t spins) const {
    while (ticket - queue_->head.load(std::memory_order_acquire) >= kSharedMessages) {  // Q1
      if (spins-- == 0) return false;
      cpu_relax();
    }
    return true;
  }

  SharedQueueRegion* queue_ = nullptr;
  Shared<uint64_t>* claim_ = nullptr;
  DomainId self_ = kNobody;
  uint64_t after_last_ = 0;  // the ticket after our last one
};

class SharedConsumer {
 public:
  SharedConsumer() = default;
  explicit SharedConsumer(SharedQueueRegion* queue) : queue_(queue) {}

  // Whether some ticket has been claimed that was not consumed; it may be unpublished.
  [[nodiscard]] bool claimed() const {
    return queue_->tail.load(std::memory_order_acquire) != position_;
  }

  // Whether the next entry is published; a hint.
  [[nodiscard]] bool has_next() const {
    return queue_->entries[position_ % kSharedMessages].sequence.load(std::memory_order_relaxed) == position_ + 1;  // try_pop acquires
  }
  // Claimed and not consumed, as the producers have it.
  [[nodiscard]] uint64_t claimed_count() const { return queue_->tail.load(std::memory_order_acquire) - position_; }

  [[nodiscard]] bool try_pop(Message& out, DomainId& sender) {
    const SharedEntry& e = queue_->entries[position_ % kSharedMessages];
    if (e.sequence.load(std::memory_order_acquire) != position_ + 1) return false;  // C0
    out = e.message;
    sender = e.sender;
    retire();
    return true;
  }

  // Whether a producer whose claim word reads `claim` may still publish the next ticket.
  [[nodiscard]] bool covers(uint64_t claim) const {
    uint64_t first = (claim & kClaimTickets) - 2;
    return claim == 1 || ((position_ - first) & kClaimTickets) < claim >> kClaimTicketBits;
  }

  // Gives up the next ticket, unless it is published. Only when it was claimed() and then
  // covered by no living producer: a claim that has gone was published before that, so
  // looking at the entry last cannot miss it.
  bool skip() {
    const SharedEntry& e = queue_->entries[position_ % kSharedMessages];
    if (e.sequence.load(std::memory_order_acquire) == position_ + 1) return false;  // C0
    retire();
    return true;
  }

 private:
  void retire() {
    DeathPoint at_edge("C1");
    queue_->head.store(++position_, std::memory_order_release);  // C1
  }
  SharedQueueRegion* queue_ = nullptr;
  uint64_t position_ = 0;
};

}  // namespace sluice::shm
