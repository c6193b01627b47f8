// shm/handoff.h: bytes that go partly to a reader that is inside and partly through the kernel's socket arrive
// once and in order, whichever of two writers they come from, no reader sleeps while there is something
// for it, and whenever none is inside nothing is in the ring.
#include "model.h"

namespace {

constexpr uint64_t kSent = 4;
constexpr uint64_t kRing = 2;
enum Mode : uint64_t { kKernel, kInside, kWanted, kResting, kModeBits = 3 };
constexpr unsigned kCreditShift = 2, kTailShift = 8;

struct Handoff : rl::test_suite<Handoff, 3> {
  rl::atomic<uint64_t> word;  // tail, credit, mode
  rl::atomic<uint32_t> writing;
  rl::mutex write_lock;
  rl::var<uint64_t> ring[kSent];
  uint64_t head;  // the only reader's
  // The kernel's socket, under its own lock.
  rl::mutex kernel;
  rl::condition_variable readable;
  uint64_t queue[kSent];
  uint64_t queue_begin, queue_end;
  // The writers write in turn.
  rl::mutex turns;
  rl::condition_variable turned;
  uint64_t next;

  void before() {
    word.store(0, rl::memory_order_relaxed);
    writing.store(0, rl::memory_order_relaxed);
    head = queue_begin = queue_end = 0;
    next = 1;
  }

  static uint64_t tail(uint64_t w) { return w >> kTailShift; }
  static uint64_t credit(uint64_t w) { return (w & ((1u << kTailShift) - 1)) >> kCreditShift; }
  bool exchange(uint64_t seen, uint64_t wanted) {
    return word.compare_exchange_strong(seen, wanted, rl::memory_order_acq_rel);
  }

  static void fence() {
    if (model::has("fence")) rl::atomic_thread_fence(rl::memory_order_seq_cst);
  }

  // ---- the kernel
  void kernel_write(uint64_t value) {
    kernel.lock($);
    queue[queue_end++] = value;
    readable.notify_all($);
    kernel.unlock($);
  }
  uint64_t kernel_read(bool wait) {  // 0: nothing
    kernel.lock($);
    while (wait && queue_begin == queue_end) readable.wait(kernel, $);
    uint64_t value = queue_begin == queue_end ? 0 : queue[queue_begin++];
    kernel.unlock($);
    return value;
  }

  // ---- the writers
  void write(uint64_t value) {
    if (write_lock.try_lock($)) {
      uint64_t seen = word.load(rl::memory_order_acquire);  // H1
      bool published = false;
      if ((seen & kModeBits) == kInside && (!model::has("credit") || credit(seen) > 0)) {
        ring[tail(seen) % kSent]($) = value;
        published = exchange(seen, seen + (1u << kTailShift) - (credit(seen) > 0 ? 1u << kCreditShift : 0));  // H0
      }
      write_lock.unlock($);
      if (published) return;
    }
    writing.fetch_add(1, rl::memory_order_acq_rel);
    fence();
    if ((word.load(rl::memory_order_acquire) & kModeBits) != kKernel) leave();
    kernel_write(value);
    writing.fetch_sub(1, rl::memory_order_acq_rel);
  }

  // ---- the reader
  void leave() { word.fetch_and(~uint64_t{kModeBits}, rl::memory_order_acq_rel); }
  bool enter(uint64_t& seen, uint64_t room) {
    uint64_t inside = (tail(seen) << kTailShift) | (room << kCreditShift) | kInside;
    if (!exchange(seen, inside)) return false;  // I1
    seen = inside;
    return true;
  }
  // Up to `room` values into `out`; how many.
  uint64_t read(uint64_t* out, uint64_t room) {
    uint64_t seen = word.load(rl::memory_order_acquire);
    bool inside = (seen & kModeBits) == kResting && enter(seen, room);
    if (!inside) {
      seen = word.load(rl::memory_order_acquire);
      uint64_t wanted = (seen & ~uint64_t{kModeBits}) | kWanted;
      if (!exchange(seen, wanted)) return out[0] = kernel_read(true), 1;
      seen = wanted;
      fence();
      bool alone = !model::has("writing") || writing.load(rl::memory_order_acquire) == 0;
      if (uint64_t value = model::has("empty") ? kernel_read(false) : 0; value != 0) return out[0] = value, 1;
      inside = alone && enter(seen, room);
    }
    uint64_t done = 0;
    for (int patience = 2; inside; --patience) {
      seen = word.load(rl::memory_order_acquire);  // I0
      for (; head != tail(seen); ++head, ++done) {
        RL_ASSERT(done < room);
        out[done] = ring[head % kSent]($);
      }
      if ((seen & kModeBits) != kInside) break;
      uint64_t after = (tail(seen) << kTailShift) | (done > 0 ? kResting : kKernel);
      if (done > 0 || patience <= 0) {
        if (model::has("exchange") ? exchange(seen, after) : (word.store(after, rl::memory_order_release), true)) break;
      }
    }
    // What came while it left.
    seen = word.load(rl::memory_order_acquire);
    RL_ASSERT(!inside || (seen & kModeBits) == kInside || head == tail(seen));
    if (done > 0) return done;
    leave();
    return out[0] = kernel_read(true), 1;
  }

  void await_turn(uint64_t value) {
    turns.lock($);
    while (next != value) turned.wait(turns, $);
    turns.unlock($);
  }
  void end_turn() {
    turns.lock($);
    ++next;
    turned.notify_all($);
    turns.unlock($);
  }

  void thread(unsigned index) {
    if (index < 2) {
      for (uint64_t value = index + 1; value <= kSent; value += 2) {
        await_turn(value);
        write(value);
        end_turn();
      }
      return;
    }
    for (uint64_t expected = 1; expected <= kSent;) {
      uint64_t out[kSent + 1];
      uint64_t n = read(out, kRing);
      for (uint64_t i = 0; i < n; ++i) RL_ASSERT(out[i] == expected++);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<Handoff>(model::kRandom, 300'000, rl::test_result_user_assert_failed);
}
