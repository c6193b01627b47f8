// shm/byte_ring.h: bytes arrive in order, across two handovers to bigger rings, and neither a
// byte nor a ring descriptor is written while the other side reads it.
#include "model.h"

namespace {

constexpr uint64_t kSent = 7;
constexpr uint64_t kSizes[3] = {2, 2, 4};  // of the rings, in the order in which they are used

struct ByteRing : rl::test_suite<ByteRing, 2> {
  struct Ring {
    rl::var<uint64_t> from;
    rl::var<uint64_t> memory;  // which of `memories`
  };
  // Memory 0 serves the first and the third ring: it is free by the second handover.
  rl::var<uint64_t> memories[2][4];
  Ring rings[2];
  rl::atomic<uint64_t> tail;
  rl::atomic<uint64_t> head;
  rl::atomic<uint32_t> switches;

  void before() {
    tail.store(0, rl::memory_order_relaxed);
    head.store(0, rl::memory_order_relaxed);
    switches.store(0, rl::memory_order_relaxed);
  }

  struct Producer {
    ByteRing& m;
    uint64_t tail = 0, head_seen = 0, from = 0;
    uint32_t n = 0;

    void refresh() { head_seen = m.head.load(rl::memory_order_acquire); }  // R1
    uint64_t size() const { return kSizes[n - 1]; }
    bool can_switch() {
      if (n == 3) return false;
      if (n < 2 || head_seen >= from) return true;
      refresh();
      return head_seen >= from || !model::has("can_switch");
    }
    void switch_to() {
      Ring& ring = m.rings[++n & 1];
      from = tail;
      ring.from($) = tail;
      ring.memory($) = (n - 1) & 1;
      m.switches.store(n, rl::memory_order_release);                       // R2
    }
    bool has_space() {
      uint64_t oldest = from > head_seen ? from : head_seen;
      return tail - oldest < size();
    }
    void publish() {
      m.memories[(n - 1) & 1][tail & (size() - 1)]($) = tail;
      m.tail.store(++tail, rl::memory_order_release);                      // R0
    }
  };

  void producer() {
    Producer p{*this};
    p.switch_to();
    while (p.tail < kSent) {
      if (p.has_space()) {
        p.publish();
        continue;
      }
      p.refresh();
      if (p.has_space()) continue;
      if (p.can_switch())
        p.switch_to();
      else
        rl::yield(1, $);
    }
  }

  void consumer() {
    for (uint64_t at = 0; at < kSent;) {
      uint64_t end = tail.load(rl::memory_order_acquire);                  // S0
      if (end == at) {
        rl::yield(1, $);
        continue;
      }
      uint32_t n = switches.load(model::has("S2") ? rl::mo_acquire : rl::mo_relaxed, $);  // S2
      uint64_t from = rings[n & 1].from($);
      uint64_t memory = rings[n & 1].memory($);
      uint64_t size = kSizes[n - 1];
      if (n > 1 && at < from) {
        end = from < end ? from : end;
        memory = rings[(n - 1) & 1].memory($);
        size = kSizes[n - 2];
      }
      RL_ASSERT(end > at && end - at <= size);
      for (; at < end; ++at) RL_ASSERT(uint64_t(memories[memory][at & (size - 1)]($)) == at);
      head.store(at, rl::memory_order_release);                            // S1
    }
  }

  void thread(unsigned index) { index == 0 ? producer() : consumer(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<ByteRing>(model::kRandom, 1'500'000, rl::test_result_data_race);
}
