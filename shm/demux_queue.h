// A receive queue of a network-on-chip (a demux queue of the TILE-Gx's UDN), emulated in memory: a bounded ring of words
// with one producer and one consumer, in two regions:
//
//   producer's region   DemuxWords { tail, words[128] }
//   consumer's region   head
//
//        head                    tail
//          v                       v
//   [ free | frame, words | frame, words | free ]      0 <= tail - head <= 118
//
// A packet is a frame (noc_frame.h) and the words that it says follow. As in the hardware, the words of one packet
// are together, packets of one sender arrive in order, nothing is lost, and a full queue takes nothing more. Unlike there,
// a producer can see that it is full and is not stopped by it, and a packet is there at once, not word by word.
//
// Ownership: words and tail belong to the producer, head to the consumer. Neither can write the other's.
// Edges:  U0 producer publishes tail (release) -> V0 consumer observes it (acquire)
//         V1 consumer retires head (release)   -> U1 producer sees free places (acquire)
// Death:  a producer that dies before U0 has said nothing; a consumer that dies before V1 has perhaps acted on
//         a packet without saying so.
// Trust:  a tail that no honest producer can have, a frame that no message has, and one that tail cuts off are a broken
//         queue: after them nobody could say where the next packet begins. Each word is read once. A producer treats an
//         impossible head as "full".
// Threads: several threads of one domain take turns under a lock of their own.
#pragma once

#include "shm/death_point.h"
#include "shm/noc_frame.h"

namespace sluice::shm {

class DemuxProducer {
 public:
  DemuxProducer() = default;
  // The ring is new: zero.
  DemuxProducer(DemuxWords* ring, const Shared<uint64_t>* head) : ring_(ring), head_(head) {}

  // False when the queue has not so much room: then nothing of it is there.
  [[nodiscard]] bool try_send(const Frame& frame, const Message& m) {
    if (!try_stage(frame, m)) return false;
    publish();
    return true;
  }
  // The same in two steps: several packets, of which the consumer sees all or none. frame.words: at most kMessageWords.
  [[nodiscard]] bool try_stage(const Frame& frame, const Message& m) {
    uint32_t n = 1 + frame.words;
    if (!has_room(n)) {
      head_seen_ = head_->load(std::memory_order_acquire);  // U1
      if (!has_room(n)) return false;
    }
    put(frame.packed());
    for (uint32_t i = 0; i < frame.words; ++i) put(m.words[i]);
    return true;
  }
  void publish() {
    DeathPoint at_edge("U0");
    ring_->tail.store(tail_, std::memory_order_release);  // U0
  }
  // Whether the consumer has taken all.
  [[nodiscard]] bool is_drained() const { return head_->load(std::memory_order_acquire) == tail_; }  // U1

 private:
  bool has_room(uint32_t n) const { return tail_ - head_seen_ <= kDemuxWords - n; }
  void put(uint64_t word) {
    ring_->words[tail_++ % kDemuxPlaces].store(word, std::memory_order_relaxed);  // nobody looks here before U0
  }

  DemuxWords* ring_ = nullptr;
  const Shared<uint64_t>* head_ = nullptr;
  uint64_t tail_ = 0;
  uint64_t head_seen_ = 0;
};

enum class Taken : uint8_t { kNothing, kPacket, kBroken };

class DemuxConsumer {
 public:
  // Where the next packet will be, for whoever looks at many queues.
  struct Place {
    const Shared<uint64_t>* tail = nullptr;
    uint64_t position = 0;
    bool is_filled() const {
      return tail->load(std::memory_order_relaxed) != position;  // a hint: try_take acquires
    }
  };

  DemuxConsumer() = default;
  // Both are new: zero.
  DemuxConsumer(const DemuxWords* ring, Shared<uint64_t>* head) : ring_(ring), head_(head) {}

  Place next() const { return {&ring_->tail, position_}; }
  [[nodiscard]] bool empty() const { return !next().is_filled(); }

  // Copies the next packet out. A broken queue stays as it is, and broken.
  [[nodiscard]] Taken try_take(Frame& frame, Message& m) {
    uint64_t there = ring_->tail.load(std::memory_order_acquire) - position_;  // V0
    if (there == 0) return Taken::kNothing;
    frame = Frame::unpacked(word(0));
    if (there > kDemuxWords || frame.words > kMessageWords || there < 1 + frame.words) return Taken::kBroken;
    DeathPoint at_edge("V1");
    m = {uint16_t(frame.type), uint16_t(frame.status), frame.id, {}};
    for (uint32_t i = 0; i < frame.words; ++i) m.words[i] = word(1 + i);
    position_ += 1 + frame.words;
    head_->store(position_, std::memory_order_release);  // V1
    return Taken::kPacket;
  }

 private:
  uint64_t word(uint64_t i) const {
    return ring_->words[(position_ + i) % kDemuxPlaces].load(std::memory_order_relaxed);  // ordered by V0
  }

  const DemuxWords* ring_ = nullptr;
  Shared<uint64_t>* head_ = nullptr;
  uint64_t position_ = 0;
};

}  // namespace sluice::shm
