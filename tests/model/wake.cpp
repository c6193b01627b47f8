// shm/wake.h: no wake-up is lost, whether the sleeper sleeps on a bell (an eventfd, which
// counts) or on a doorbell (a futex word, which is compared as it falls asleep). A lost
// wake-up shows as a deadlock.
#include "model.h"

namespace {

constexpr uint32_t kNews = 2;

struct Bell : rl::test_suite<Bell, 2> {
  rl::atomic<uint32_t> published;
  rl::atomic<uint32_t> sleeping;
  rl::semaphore<Bell> bell;

  void before() {
    published.store(0, rl::memory_order_relaxed);
    sleeping.store(0, rl::memory_order_relaxed);
    bell.init(false, 0, 100, $);
  }
  void after() { bell.deinit($); }

  void sleeper() {
    uint32_t asleep = 1;
    while (published.load(rl::memory_order_acquire) < kNews) {
      sleeping.store(asleep, rl::memory_order_relaxed);          // W0
      model::full_fence($);
      if (published.load(rl::memory_order_acquire) < kNews)      // W1
        bell.wait(false, false, $);                              // W2
      sleeping.store(asleep + 1, rl::memory_order_relaxed);
      asleep += 2;
    }
  }

  void waker() {
    for (uint32_t n = 1; n <= kNews; ++n) {
      published.store(n, rl::memory_order_release);              // P0
      model::full_fence($);
      if (sleeping.load(rl::memory_order_relaxed) & 1)           // P1
        bell.signal($);                                          // P2
    }
  }

  void thread(unsigned index) { index == 0 ? sleeper() : waker(); }
};

struct Doorbell : rl::test_suite<Doorbell, 2> {
  rl::atomic<uint32_t> published;
  rl::atomic<uint32_t> wants;
  rl::atomic<uint32_t> doorbell;
  // The kernel's half of futex(2): it compares and queues under its own lock.
  rl::mutex kernel;
  rl::condition_variable queue;

  void before() {
    published.store(0, rl::memory_order_relaxed);
    wants.store(0, rl::memory_order_relaxed);
    doorbell.store(0, rl::memory_order_relaxed);
  }

  void futex_wait(uint32_t expected) {
    kernel.lock($);
    if (doorbell.load(rl::memory_order_relaxed) == expected) queue.wait(kernel, $);
    kernel.unlock($);
  }
  void futex_wake() {
    kernel.lock($);
    queue.notify_all($);
    kernel.unlock($);
  }

  void sleeper() {
    while (published.load(rl::memory_order_acquire) < kNews) {
      uint32_t rung = doorbell.load(rl::memory_order_acquire);
      wants.store(1, rl::memory_order_relaxed);                  // W0
      model::full_fence($);
      if (published.load(rl::memory_order_acquire) < kNews)      // W1
        futex_wait(rung);                                        // W2
    }
  }

  void waker() {
    for (uint32_t n = 1; n <= kNews; ++n) {
      published.store(n, rl::memory_order_release);              // P0
      model::full_fence($);
      if (wants.load(rl::memory_order_relaxed)) {                // P1
        doorbell.fetch_add(1, rl::memory_order_release);         // P2
        futex_wake();
      }
    }
  }

  void thread(unsigned index) { index == 0 ? sleeper() : waker(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  int bell = model::run<Bell>(model::kExhaustive, 0, rl::test_result_deadlock);
  int doorbell = model::run<Doorbell>(model::kRandom, 1'000'000, rl::test_result_deadlock);
  return *model::left_out ? bell & doorbell : bell | doorbell;
}
