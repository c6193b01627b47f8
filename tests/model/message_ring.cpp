// shm/message_ring.h: messages arrive whole, in order, and no entry is written while it is read. The
// producer stages two at a time where there is room.
#include "model.h"

namespace {

constexpr uint64_t kMessages = 2;  // entries
constexpr uint64_t kSent = 6;

uint64_t mark_at(uint64_t position) { return (position / kMessages) % 2 == 0 ? 1 : 0; }

struct MessageRing : rl::test_suite<MessageRing, 2> {
  rl::atomic<uint64_t> marks[kMessages];
  rl::atomic<uint64_t> head;
  rl::var<uint64_t> entries[kMessages];

  void before() {
    for (auto& mark : marks) mark.store(0, rl::memory_order_relaxed);
    head.store(0, rl::memory_order_relaxed);
  }

  void producer() {
    uint64_t position = 0, head_seen = 0;
    while (position < kSent) {
      if (position - head_seen >= kMessages) {
        head_seen = head.load(rl::memory_order_acquire);          // M1
        if (position - head_seen >= kMessages) {
          rl::yield(1, $);
          continue;
        }
      }
      uint64_t first = position, room = kMessages - (position - head_seen);
      for (uint64_t i = 0; i < room && position < kSent; ++i, ++position) {
        entries[position % kMessages]($) = position;
        if (position != first) marks[position % kMessages].store(mark_at(position), rl::memory_order_relaxed);
      }
      marks[first % kMessages].store(mark_at(first), rl::memory_order_release);  // M0
    }
  }

  void consumer() {
    for (uint64_t position = 0; position < kSent;) {
      uint64_t seen = marks[position % kMessages].load(model::has("acquire") ? rl::mo_acquire : rl::mo_relaxed, $);  // N0
      if (seen != mark_at(position)) {
        rl::yield(1, $);
        continue;
      }
      RL_ASSERT(uint64_t(entries[position % kMessages]($)) == position);
      head.store(++position, rl::memory_order_release);           // N1
    }
  }

  void thread(unsigned index) { index == 0 ? producer() : consumer(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<MessageRing>(model::kRandom, 1'500'000, rl::test_result_data_race);
}
