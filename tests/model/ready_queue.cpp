// shm/ready_queue.h: when both sides rest, everything that was published has been seen or is
// announced by an unconsumed entry; and a consumer that sleeps between two looks is woken.
#include "model.h"

namespace {

constexpr uint32_t kSlots = 2;
constexpr uint32_t kSlot = 1;  // the connection that has news
constexpr uint32_t kNews = 3;

struct Queue {
  rl::atomic<uint32_t> state;
  rl::atomic<uint32_t> entries[kSlots];  // lap << 8 | slot
  rl::atomic<uint32_t> ready_head;
  uint32_t position = 0, head_seen = 0, last = 0;  // the producer's own
  uint32_t taken = 0, seen = 0;                    // the consumer's own

  void init() {
    state.store(0, rl::memory_order_relaxed);
    for (auto& e : entries) e.store(0, rl::memory_order_relaxed);
    ready_head.store(0, rl::memory_order_relaxed);
  }

  // Whether an entry was added.
  bool publish(uint32_t n) {
    state.store(n, rl::memory_order_release);                              // E1
    model::full_fence($);
    if (last > head_seen) head_seen = ready_head.load(rl::memory_order_acquire);
    if (last > head_seen) return false;  // announced already
    RL_ASSERT(position - head_seen < kSlots);
    uint32_t lap = position / kSlots + 1;
    entries[position % kSlots].store(lap << 8 | kSlot, rl::memory_order_release);  // E0
    last = ++position;
    return true;
  }

  bool has_fresh() {
    return entries[taken % kSlots].load(rl::memory_order_relaxed) >> 8 == taken / kSlots + 1;
  }
  bool take() {
    uint32_t e = entries[taken % kSlots].load(rl::memory_order_acquire);   // F0
    if (e >> 8 != taken / kSlots + 1) return false;
    RL_ASSERT((e & 0xff) == kSlot);
    ready_head.store(++taken, rl::memory_order_release);                   // F1
    model::full_fence($);
    seen = state.load(rl::memory_order_acquire);
    return true;
  }
};

struct Coalescing : rl::test_suite<Coalescing, 2> {
  Queue queue;

  void before() { queue.init(); }
  void producer() {
    for (uint32_t n = 1; n <= kNews; ++n) queue.publish(n);
  }
  void consumer() {
    for (int looks = 0; looks < 4; ++looks) queue.take();
  }
  void thread(unsigned index) { index == 0 ? producer() : consumer(); }
  void after() {
    while (queue.take()) {
    }
    RL_ASSERT(queue.seen == kNews);
  }
};

struct Sleeping : rl::test_suite<Sleeping, 2> {
  Queue queue;
  rl::atomic<uint32_t> sleeping;
  rl::semaphore<Sleeping> bell;

  void before() {
    queue.init();
    sleeping.store(0, rl::memory_order_relaxed);
    bell.init(false, 0, 100, $);
  }
  void after() { bell.deinit($); }

  void producer() {
    for (uint32_t n = 1; n <= kNews; ++n) {
      if (!queue.publish(n)) continue;                                     // P0
      if (model::has("second_fence")) rl::atomic_thread_fence(rl::memory_order_seq_cst);
      if (sleeping.load(rl::memory_order_relaxed)) bell.signal($);         // P1, P2
    }
  }
  void consumer() {
    while (queue.seen < kNews) {
      if (queue.take()) continue;
      sleeping.store(1, rl::memory_order_relaxed);                         // W0
      model::full_fence($);
      if (!queue.has_fresh()) bell.wait(false, false, $);                  // W1, W2
      sleeping.store(0, rl::memory_order_relaxed);
    }
  }
  void thread(unsigned index) { index == 0 ? producer() : consumer(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  if (model::has("second_fence")) {
    int coalescing = model::run<Coalescing>(model::kRandom, 1'500'000, rl::test_result_user_assert_failed);
    if (coalescing != 0 || *model::left_out != 0) return coalescing;
  }
  return model::run<Sleeping>(model::kRandom, 700'000, rl::test_result_deadlock);
}
