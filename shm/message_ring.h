// A ring of messages with one producer and one consumer, in two regions:
//
//   producer's region   MessageEntries { tail, entries[64] }
//   consumer's region   head
//
//        head            tail
//          v               v
//   [ free | published ... | free ]      0 <= tail - head <= 64
//
// Ownership: tail and entries belong to the producer, head to the consumer. Neither can
// write the other's.
// Edges:  M0 producer publishes tail (release)  -> N0 consumer observes it (acquire)
//         N1 consumer retires head (release)    -> M1 producer sees free entries (acquire)
// Death:  a producer that dies before M0 has said nothing; a consumer that dies before N1
//         has perhaps acted on a message without saying so.
// Trust:  a consumer clamps tail - head to 64 and takes each message out once; a producer
//         treats an impossible head as "full".
// Threads: several threads of one domain take turns under a lock of their own.
#pragma once

#include "shm/layout.h"

namespace sluice::shm {

class MessageProducer {
 public:
  MessageProducer() = default;
  MessageProducer(MessageEntries* ring, const Shared<uint64_t>* head)
      : ring_(ring), head_(head), tail_(ring->tail.load(std::memory_order_relaxed)) {}

  // False when the ring is full.
  [[nodiscard]] bool try_push(const Message& m) {
    if (!try_stage(m)) return false;
    publish();
    return true;
  }
  // The same in two steps: several messages, one line that the consumer has to fetch anew.
  [[nodiscard]] bool try_stage(const Message& m) {
    if (tail_ - head_seen_ >= kMessages) {
      head_seen_ = head_->load(std::memory_order_acquire);  // M1
      if (tail_ - head_seen_ >= kMessages) return false;
    }
    ring_->entries[tail_++ % kMessages] = m;
    return true;
  }
  void publish() { ring_->tail.store(tail_, std::memory_order_release); }  // M0
  // Whether the consumer has taken all.
  [[nodiscard]] bool is_drained() const { return head_->load(std::memory_order_acquire) == tail_; }  // M1

 private:
  MessageEntries* ring_ = nullptr;
  const Shared<uint64_t>* head_ = nullptr;
  uint64_t tail_ = 0;
  uint64_t head_seen_ = 0;
};

class MessageConsumer {
 public:
  MessageConsumer() = default;
  MessageConsumer(const MessageEntries* ring, Shared<uint64_t>* head)
      : ring_(ring), head_(head), position_(head->load(std::memory_order_relaxed)) {}

  [[nodiscard]] bool empty() const {
    return ring_->tail.load(std::memory_order_relaxed) == position_;  // a hint: looked at again
  }

  // Copies the next message out. False when there is none. A tail that no honest producer
  // could have written counts as one full ring of messages, whose content is checked anyway.
  [[nodiscard]] bool try_pop(Message& out) {
    if (ring_->tail.load(std::memory_order_acquire) == position_) return false;  // N0
    out = ring_->entries[position_ % kMessages];
    head_->store(++position_, std::memory_order_release);  // N1
    return true;
  }

 private:
  const MessageEntries* ring_ = nullptr;
  Shared<uint64_t>* head_ = nullptr;
  uint64_t position_ = 0;
};

}  // namespace sluice::shm
