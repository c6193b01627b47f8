// A ring of messages with one producer and one consumer, in two regions:
//
//   producer's region   MessageEntries { entries[64] }
//   consumer's region   head
//
//        head            tail (known to the producer only)
//          v               v
//   [ free | published ... | free ]      0 <= tail - head <= 64
//
// An entry is one cache line, and says itself whether it is published: its first word has a mark that is set in
// one lap around the ring and clear in the next. So a message costs the consumer one line that it has to fetch, the one
// at which it looks. (A tail beside the entries would be a second one: 0.56 us there and back instead of 0.38.)
//
// Of several messages that are staged the first is published last: whoever sees it has all of them.
//
// Ownership: entries belong to the producer, head to the consumer. Neither can write the other's.
// Edges:  M0 producer publishes the mark (release) -> N0 consumer observes it (acquire)
//         N1 consumer retires head (release)       -> M1 producer sees free entries (acquire)
// Death:  a producer that dies before M0 has said nothing; a consumer that dies before N1
//         has perhaps acted on a message without saying so.
// Trust:  a consumer takes each message out once, and a look takes no more than it asks for: with its marks a producer can
//         repeat what lies in its entries without end, as it could send it. A producer treats an impossible head
//         as "full".
// Threads: several threads of one domain take turns under a lock of their own.
#pragma once

#include "shm/death_point.h"
#include "shm/layout.h"

namespace sluice::shm {

// In the first word of an entry; in place of the highest bit of Message::status, which has none.
inline constexpr uint64_t kLapMark = uint64_t{1} << 31;
// What the mark is for the message at this position: set in the first lap, as a new ring is zero.
inline constexpr uint64_t lap_mark(uint64_t position) { return (position / kMessages) % 2 == 0 ? kLapMark : 0; }

// The consumer has the entries from the lap before. One is fetched, for writing, so many messages before its turn; the one that the
// consumer may look at, waiting, is left alone.
inline constexpr uint64_t kAheadMessages = 4;

class MessageProducer {
 public:
  MessageProducer() = default;
  // The ring is new: zero.
  MessageProducer(MessageEntries* ring, const Shared<uint64_t>* head) : ring_(ring), head_(head) {}

  // False when the ring is full.
  [[nodiscard]] bool try_push(const Message& m) {
    if (!try_stage(m)) return false;
    publish();
    return true;
  }
  // The same in two steps: several messages, of which the consumer sees all or none.
  [[nodiscard]] bool try_stage(const Message& m) {
    if (tail_ - head_seen_ >= kMessages) {
      head_seen_ = head_->load(std::memory_order_acquire);  // M1
      if (tail_ - head_seen_ >= kMessages) return false;
    }
    MessageEntry& e = ring_->entries[tail_ % kMessages];
    __builtin_prefetch(&ring_->entries[(tail_ + kAheadMessages) % kMessages], 1);
    for (std::size_t i = 0; i < kMessageWords; ++i) e.words[i] = m.words[i];
    uint64_t first = (first_word_of(m) & ~kLapMark) | lap_mark(tail_++);
    if (staged_ != nullptr) {
      e.first.store(first, std::memory_order_relaxed);  // nobody looks here before M0
    } else {
      staged_ = &e;
      staged_first_ = first;
    }
    return true;
  }
  void publish() {
    if (staged_ == nullptr) return;
    DeathPoint at_edge("M0");
    staged_->first.store(staged_first_, std::memory_order_release);  // M0
    staged_ = nullptr;
  }
  // Whether the consumer has taken all.
  [[nodiscard]] bool is_drained() const { return head_->load(std::memory_order_acquire) == tail_; }  // M1

 private:
  static uint64_t first_word_of(const Message& m) { return m.type | uint64_t{m.status} << 16 | uint64_t{m.id} << 32; }

  MessageEntries* ring_ = nullptr;
  const Shared<uint64_t>* head_ = nullptr;
  uint64_t tail_ = 0;
  uint64_t head_seen_ = 0;
  MessageEntry* staged_ = nullptr;  // the first one that is not published
  uint64_t staged_first_ = 0;       // what its first word will be
};

class MessageConsumer {
 public:
  // Where the next message will be, for whoever looks at many rings.
  struct Place {
    const Shared<uint64_t>* first = nullptr;
    uint64_t mark = 0;
    bool is_filled() const {
      return (first->load(std::memory_order_relaxed) & kLapMark) == mark;  // a hint: try_pop acquires
    }
  };

  MessageConsumer() = default;
  MessageConsumer(const MessageEntries* ring, Shared<uint64_t>* head)
      : ring_(ring), head_(head), position_(head->load(std::memory_order_relaxed)) {}

  Place next() const { return {&ring_->entries[position_ % kMessages].first, lap_mark(position_)}; }
  [[nodiscard]] bool empty() const { return !next().is_filled(); }

  // Copies the next message out. False when there is none.
  [[nodiscard]] bool try_pop(Message& out) {
    const MessageEntry& e = ring_->entries[position_ % kMessages];
    uint64_t first = e.first.load(std::memory_order_acquire);  // N0
    if ((first & kLapMark) != lap_mark(position_)) return false;
    DeathPoint at_edge("N1");
    out.type = uint16_t(first);
    out.status = uint16_t((first & ~kLapMark) >> 16);
    out.id = uint32_t(first >> 32);
    for (std::size_t i = 0; i < kMessageWords; ++i) out.words[i] = e.words[i];
    head_->store(++position_, std::memory_order_release);  // N1
    return true;
  }

 private:
  const MessageEntries* ring_ = nullptr;
  Shared<uint64_t>* head_ = nullptr;
  uint64_t position_ = 0;
};

}  // namespace sluice::shm
