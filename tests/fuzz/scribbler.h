// Writes anything into regions that this process may write: where it hurts, mostly, and anywhere now and then.
#pragma once

#include <random>

#include "shm/channel.h"
#include "shm/layout.h"
#include "tests/fuzz/input.h"

namespace sluice::fuzz {

class Scribbler {
 public:
  explicit Scribbler(uint64_t seed) : random_(seed) {}
  // Writes what a case says.
  explicit Scribbler(Input& choices) : choices_(&choices) {}

  // One write into a region, whose kind follows from its size.
  void scribble(std::byte* base, std::size_t bytes) {
    refill();
    if (bytes == shm::kPairBytes) pair({base});
    else if (bytes == shm::kClientBytes) client(*reinterpret_cast<shm::ClientRegion*>(base));
    else if (bytes == shm::kChannelBytes) channel(shm::Channel(base).header());
    else if (bytes == shm::kSharedQueueBytes) queue(*reinterpret_cast<shm::SharedQueueRegion*>(base));
    if (below(64) == 0) put64(base + (below(uint32_t(bytes < kNear ? bytes : kNear)) & ~7u), in().lie(0));
  }

  uint32_t below(uint32_t n) { return choices_ != nullptr ? choices_->below(n) : uint32_t(random_() % n); }

 private:
  // Of a sparse region: what is behind would only cost memory.
  static constexpr std::size_t kNear = shm::kHeapOffset + (1u << 20);

  void refill() {
    if (choices_ != nullptr) return;
    for (std::size_t i = 0; i < sizeof bytes_; i += 8) {
      uint64_t w = random_();
      __builtin_memcpy(bytes_ + i, &w, 8);
    }
    in_ = Input(bytes_, sizeof bytes_);
  }
  Input& in() { return choices_ != nullptr ? *choices_ : in_; }
  template <class T>
  void lie(shm::Shared<T>& word) { word.store(T(in().lie(word.load(std::memory_order_relaxed))), std::memory_order_release); }
  template <class T>
  void lie(T& plain) { __atomic_store_n(&plain, T(in().lie(plain)), __ATOMIC_RELAXED); }
  static void put64(std::byte* at, uint64_t value) { __atomic_store_n(reinterpret_cast<uint64_t*>(at), value, __ATOMIC_RELAXED); }

  void pair(shm::PairView v) {
    shm::PairHeader& h = v.header();
    uint32_t slot = below(4) ? below(8) : below(shm::kSlots);
    switch (below(24)) {
      case 0: return lie(h.sleeping);
      case 1: return lie(h.sharers_sleeping);
      case 2: return lie(h.cpu);
      case 3: return lie(h.listener_epoch);
      case 4: return lie(h.attached);
      case 5: return lie(h.frozen);
      case 6: return lie(h.sharers_news);
      case 7: return lie(h.ready_head);
      case 8: return lie(below(2) ? h.sharers[below(shm::kSharers)].domain : h.sharers[below(shm::kSharers)].sleeping);
      case 9: return lie(v.ready()[below(256)]);
      case 10:  // news of a connection that there is or not
        return v.ready()[below(32)].store(uint64_t{1} << 32 | slot, std::memory_order_release);
      case 11: return lie(h.writer);
      default: return this->slot(v.slot(slot), v);
    }
  }

  void slot(shm::Slot& s, shm::PairView v) {
    switch (below(22)) {
      case 0:
      case 1:
      case 2: return lie(s.tail);
      case 3: return lie(s.generation);
      case 4: return (void)s.state.fetch_xor(1u << below(12), std::memory_order_acq_rel);
      case 5: return lie(s.wants);
      case 6: return lie(s.doorbell);
      case 7: return lie(s.switches);
      case 8: return lie(s.ancillaries);
      case 9: return lie(s.rings[below(2)].from);
      case 10: return lie(s.rings[below(2)].page);
      case 11: return lie(s.rings[below(2)].size_log2);
      case 12:
      case 13: return lie(s.head);
      case 14: return lie(below(2) ? s.send_lock : s.receive_lock);
      case 15: return lie(s.ancillaries_taken);
      case 16: return lie(s.listener);
      case 17: return lie(s.holders[below(shm::kHolders)]);
      case 18: return lie(below(2) ? s.holders_overflow : s.channel_makers[below(shm::kChannelMakers)]);
      case 19: return lie(s.moved_to);
      case 20: return lie(s.urgent);
      default: return put64(v.base + shm::kHeapOffset + (below(1u << 16) & ~7u), in().word());
    }
  }

  void client(shm::ClientRegion& r) {
    switch (below(11)) {
      case 0: return lie(r.claim);
      case 1: return lie(r.replies_head);
      case 2: return lie(r.sleeping);
      case 3: return lie(r.accepting);
      case 4: return lie(r.waiters);
      case 5: return lie(r.counters[below(shm::kCounters)]);
      case 6: return lie(r.requests.entries[below(shm::kMessages)].first);
      case 7: return lie(r.demux_requests.tail);
      case 8: return lie(r.demux_requests.words[below(shm::kDemuxPlaces)]);
      case 9: return lie(below(2) ? r.demux_replies_head : below(2) ? r.demux_doorbells_head : r.demux_control_head);
      default: return lie(reinterpret_cast<uint64_t*>(&r.requests.entries[below(shm::kMessages)])[below(8)]);
    }
  }

  void channel(shm::ChannelHeader& h) {
    switch (below(6)) {
      case 0: return lie(h.word);
      case 1: return lie(h.head);
      case 2: return lie(below(2) ? h.write_lock : h.read_lock);
      case 3: return lie(below(2) ? h.writing : h.sleepers);
      case 4: return lie(h.limit);
      default: return lie(below(2) ? h.kernel_only : h.nonblocking[below(2)]);
    }
  }

  void queue(shm::SharedQueueRegion& q) {
    switch (below(4)) {
      case 0: return lie(q.tail);
      case 1: return lie(q.head);
      case 2: return lie(q.entries[below(shm::kSharedMessages)].sequence);
      default: return lie(reinterpret_cast<uint64_t*>(&q.entries[below(shm::kSharedMessages)].message)[below(8)]);
    }
  }

  std::mt19937_64 random_;
  uint8_t bytes_[64] = {};
  Input in_{bytes_, 0};
  Input* choices_ = nullptr;
};

}  // namespace sluice::fuzz
