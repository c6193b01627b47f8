// shm/channel.h: bytes that go partly through the ring and partly through the kernel's pipe arrive
// once and in order, and no reader sleeps while there is something for it.
#include "model.h"

namespace {

constexpr uint64_t kSent = 4;
constexpr uint64_t kRing = 2;

struct Channel : rl::test_suite<Channel, 2> {
  rl::atomic<uint64_t> word;  // tail << 2 | 1: ring mode, 2: wanted
  rl::atomic<uint64_t> head;
  rl::atomic<uint32_t> writing;
  rl::mutex write_lock;
  rl::mutex read_lock;
  rl::var<uint64_t> ring[kRing];
  // The kernel's pipe, under its own lock.
  rl::mutex kernel;
  rl::condition_variable readable;
  uint64_t pipe[kSent];
  uint64_t pipe_begin, pipe_end;

  void before() {
    word.store(0, rl::memory_order_relaxed);
    head.store(0, rl::memory_order_relaxed);
    writing.store(0, rl::memory_order_relaxed);
    pipe_begin = pipe_end = 0;
  }

  // ---- the kernel
  void kernel_write(uint64_t value) {
    kernel.lock($);
    pipe[pipe_end++] = value;
    readable.notify_all($);
    kernel.unlock($);
  }
  bool kernel_is_empty() {
    kernel.lock($);
    bool empty = pipe_begin == pipe_end;
    kernel.unlock($);
    return empty;
  }
  uint64_t kernel_read(bool wait) {  // 0: nothing
    kernel.lock($);
    while (wait && pipe_begin == pipe_end) readable.wait(kernel, $);
    uint64_t value = pipe_begin == pipe_end ? 0 : pipe[pipe_begin++];
    kernel.unlock($);
    return value;
  }

  // ---- the writer
  bool publish(uint64_t seen) {
    if (model::has("exchange")) return word.compare_exchange_strong(seen, seen + 4, rl::memory_order_acq_rel);  // P0
    word.store(seen + 4, rl::memory_order_release);
    return true;
  }
  void write(uint64_t value) {
    write_lock.lock($);
    uint64_t seen = word.load(rl::memory_order_acquire);
    if ((seen & 2) && writing.load(rl::memory_order_acquire) == 0 && (!model::has("empty") || kernel_is_empty())) {
      (void)word.compare_exchange_strong(seen, (seen & ~uint64_t{3}) | 1, rl::memory_order_acq_rel);
      seen = word.load(rl::memory_order_acquire);
    }
    bool full = (seen >> 2) - head.load(rl::memory_order_acquire) == kRing;  // P1
    if ((seen & 1) && !full) {
      ring[(seen >> 2) % kRing]($) = value;
      if (publish(seen)) return write_lock.unlock($);
    }
    writing.fetch_add(1, rl::memory_order_acq_rel);
    word.fetch_and(~uint64_t{3}, rl::memory_order_acq_rel);
    if (model::has("move")) move_ring();
    write_lock.unlock($);
    RL_ASSERT(word.load(rl::memory_order_acquire) >> 2 == head.load(rl::memory_order_acquire));
    kernel_write(value);
    writing.fetch_sub(1, rl::memory_order_acq_rel);
  }

  // What is in the ring goes first.
  void move_ring() {
    read_lock.lock($);
    uint64_t tail = word.load(rl::memory_order_acquire) >> 2;
    uint64_t at = head.load(rl::memory_order_relaxed);
    for (; at != tail; ++at) kernel_write(ring[at % kRing]($));
    head.store(at, rl::memory_order_release);
    read_lock.unlock($);
  }

  // ---- the reader
  bool enter() {
    if (!write_lock.try_lock($)) return false;
    uint64_t seen = word.load(rl::memory_order_acquire);
    bool alone = !model::has("writing") || writing.load(rl::memory_order_acquire) == 0;
    bool empty = !model::has("empty") || kernel_is_empty();
    bool entered = alone && empty && word.compare_exchange_strong(seen, (seen & ~uint64_t{3}) | 1, rl::memory_order_acq_rel);
    write_lock.unlock($);
    return entered;
  }
  uint64_t read() {
    for (bool tried = false;;) {
      read_lock.lock($);
      uint64_t seen = word.load(rl::memory_order_acquire);  // Q0
      uint64_t at = head.load(rl::memory_order_relaxed);
      if ((seen >> 2) != at) {
        uint64_t value = ring[at % kRing]($);
        head.store(at + 1, rl::memory_order_release);  // Q1
        read_lock.unlock($);
        return value;
      }
      if (!(seen & 1) && !tried) {
        tried = true;
        uint64_t value = kernel_read(false);
        bool entered = value == 0 && enter();
        if (value != 0 && !(seen & 3)) (void)word.compare_exchange_strong(seen, seen | 2, rl::memory_order_acq_rel);
        if (value != 0 || entered) read_lock.unlock($);
        if (value != 0) return value;
        if (entered) continue;
      }
      seen = word.load(rl::memory_order_acquire);
      bool asleep = !(seen & 3) || ((seen >> 2) == at && word.compare_exchange_strong(seen, seen & ~uint64_t{3}, rl::memory_order_acq_rel));
      read_lock.unlock($);
      if (asleep) return kernel_read(true);
    }
  }

  void thread(unsigned index) {
    for (uint64_t n = 1; n <= kSent; ++n) {
      if (index == 0) write(n);
      else RL_ASSERT(read() == n);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  // Without the exchange the reader sleeps on; without the others the order is lost.
  auto fault = std::strcmp(model::left_out, "exchange") == 0 ? rl::test_result_deadlock : rl::test_result_user_assert_failed;
  return model::run<Channel>(model::kRandom, 300'000, fault);
}
