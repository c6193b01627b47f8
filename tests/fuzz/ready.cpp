// Ready queues: the consumer against entries, the producer against a head that change at any time.
#include "shm/ready_queue.h"
#include "tests/fuzz/readers.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

class Ready {
 public:
  void begin(Input& in) {
    theirs_.clear();
    mine_.clear();
    // Now and then a lap, or all of them, has gone by.
    uint64_t position = in.flip() ? 0 : in.lie(kSlots) & ~(uint64_t{kSlots} - 1);
    my_head().store(position, std::memory_order_relaxed);
    consumer_ = ReadyConsumer(entries(), &my_head());
    producer_ = ReadyProducer(reinterpret_cast<ReadyEntry*>(mine_.base() + kReadyOffset));
    for (uint64_t& last : last_) last = 0;
    pushed_ = 0;
  }

  void disturb(Input& in) {
    uint64_t position = my_head().load(std::memory_order_relaxed);
    switch (in.byte() % 4) {
      case 0:  // an honest entry somewhere near, with a slot that there is or not
        return put(position + in.byte() % 8, (position / kSlots + 1) << 32 | uint32_t(in.lie(kSlots)));
      case 1: return put(position + in.byte() % 8, in.lie((position / kSlots + 1) << 32));
      case 2: return put(in.word(2), in.word());
      default: return their_head().store(in.lie(pushed_), std::memory_order_release);
    }
  }

  void step(Input& in) {
    switch (in.byte() % 3) {
      case 0: {
        uint32_t slots[64];
        uint32_t capacity = in.byte() % 65;
        uint64_t before = my_head().load(std::memory_order_relaxed);
        uint32_t n = consumer_.take(slots, capacity);
        FUZZ_CHECK(n <= capacity);
        for (uint32_t i = 0; i < n; ++i) FUZZ_CHECK(slots[i] < kSlots);
        return FUZZ_CHECK(my_head().load(std::memory_order_relaxed) == before + n);
      }
      case 1: {
        uint32_t slot = in.byte();
        if (!producer_.push(slot, last_[slot], in.byte() % 8 == 0 ? nullptr : &their_head())) return;
        FUZZ_CHECK(last_[slot] == ++pushed_);
        auto* own = reinterpret_cast<ReadyEntry*>(mine_.base() + kReadyOffset);
        return FUZZ_CHECK(uint32_t(own[(pushed_ - 1) % kSlots].load(std::memory_order_relaxed)) == slot);
      }
      default: (void)consumer_.has_fresh();
    }
  }

 private:
  ReadyEntry* entries() const { return reinterpret_cast<ReadyEntry*>(theirs_.base() + kReadyOffset); }
  void put(uint64_t position, uint64_t entry) { entries()[position % kSlots].store(entry, std::memory_order_release); }
  Shared<uint64_t>& my_head() const { return mine_.as<PairHeader>().ready_head; }
  Shared<uint64_t>& their_head() const { return theirs_.as<PairHeader>().ready_head; }

  GuardedMemory theirs_{kSlotsOffset}, mine_{kSlotsOffset};
  ReadyConsumer consumer_;
  ReadyProducer producer_;
  uint64_t last_[256] = {};
  uint64_t pushed_ = 0;
};

}  // namespace
}  // namespace sluice::fuzz

FUZZ_READER(sluice::fuzz::Ready)
