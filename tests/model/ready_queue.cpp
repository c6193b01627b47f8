// shm/ready_queue.h: when both sides rest, everything that was published has been seen or is
// announced by an unconsumed entry.
#include "model.h"

namespace {

constexpr uint32_t kSlots = 2;
constexpr uint32_t kSlot = 1;  // the connection that has news
constexpr uint32_t kNews = 3;

struct ReadyQueue : rl::test_suite<ReadyQueue, 2> {
  rl::atomic<uint32_t> state;
  rl::atomic<uint32_t> entries[kSlots];  // lap << 8 | slot
  rl::atomic<uint32_t> ready_head;
  uint32_t taken = 0;  // the consumer's position
  uint32_t seen = 0;   // the state as the consumer last saw it

  void before() {
    state.store(0, rl::memory_order_relaxed);
    for (auto& e : entries) e.store(0, rl::memory_order_relaxed);
    ready_head.store(0, rl::memory_order_relaxed);
  }

  void producer() {
    uint32_t position = 0, head_seen = 0, last = 0;
    for (uint32_t n = 1; n <= kNews; ++n) {
      state.store(n, rl::memory_order_release);                            // E1
      model::full_fence($);
      if (last > head_seen) head_seen = ready_head.load(rl::memory_order_acquire);
      if (last > head_seen) continue;  // announced already
      RL_ASSERT(position - head_seen < kSlots);
      uint32_t lap = position / kSlots + 1;
      entries[position % kSlots].store(lap << 8 | kSlot, rl::memory_order_release);  // E0
      last = ++position;
    }
  }

  void take() {
    uint32_t e = entries[taken % kSlots].load(rl::memory_order_acquire);   // F0
    if (e >> 8 != taken / kSlots + 1) return;
    RL_ASSERT((e & 0xff) == kSlot);
    ready_head.store(++taken, rl::memory_order_release);                   // F1
    model::full_fence($);
    seen = state.load(rl::memory_order_acquire);
  }

  void consumer() {
    for (int looks = 0; looks < 4; ++looks) take();
  }

  void thread(unsigned index) { index == 0 ? producer() : consumer(); }

  void after() {
    for (uint32_t i = 0; i < kNews; ++i) take();
    RL_ASSERT(seen == kNews);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<ReadyQueue>(model::kRandom, 2'000'000, rl::test_result_user_assert_failed);
}
