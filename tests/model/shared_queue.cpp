// shm/shared_queue.h: whatever a producer published is consumed once, in the order of the tickets,
// although another producer dies between claim and publish.
#include "model.h"

namespace {

constexpr uint64_t kEntries = 2;
constexpr unsigned kProducers = 2;
constexpr uint64_t kTries = 2;   // claims of each producer
constexpr uint64_t kAtOnce = 2;  // messages of a claim of producer 0; the other one's have one

uint64_t claim_of(uint64_t ticket, uint64_t n) { return n << 48 | (ticket + 2); }
bool covers(uint64_t claim, uint64_t position) {
  return claim == 1 || (claim != 0 && position - ((claim & 0xffff'ffff'ffff) - 2) < claim >> 48);
}

struct SharedQueue : rl::test_suite<SharedQueue, kProducers + 1> {
  struct Entry {
    rl::atomic<uint64_t> sequence;
    rl::var<uint64_t> sender;
  };
  Entry entries[kEntries];
  rl::atomic<uint64_t> tail;
  rl::atomic<uint64_t> head;
  rl::atomic<uint64_t> claims[kProducers];
  rl::atomic<uint32_t> alive[kProducers];  // as the coordinator learns of a death: afterwards
  rl::atomic<uint32_t> finished;
  uint64_t published[kProducers];
  uint64_t popped[kProducers];

  void before() {
    for (auto& e : entries) e.sequence.store(0, rl::memory_order_relaxed);
    tail.store(0, rl::memory_order_relaxed);
    head.store(0, rl::memory_order_relaxed);
    finished.store(0, rl::memory_order_relaxed);
    for (unsigned i = 0; i < kProducers; ++i) {
      claims[i].store(0, rl::memory_order_relaxed);
      alive[i].store(1, rl::memory_order_relaxed);
      published[i] = popped[i] = 0;
    }
  }

  // False: died.
  bool push(unsigned self, unsigned dies_at) {
    claims[self].store(1, rl::memory_order_release);                       // A0
    if (dies_at == 0) return false;
    uint64_t n = self == 0 ? kAtOnce : 1;
    uint64_t ticket = tail.fetch_add(n, rl::memory_order_acq_rel);         // A1
    if (dies_at == 1) return false;
    claims[self].store(claim_of(ticket, n), rl::memory_order_release);     // A2
    if (dies_at == 2) return false;
    for (uint64_t i = 0; i < n; ++i, ++ticket) {
      while (ticket - head.load(rl::memory_order_acquire) >= kEntries)     // Q1
        rl::yield(1, $);
      Entry& e = entries[ticket % kEntries];
      e.sender($) = self;
      ++published[self];
      e.sequence.store(ticket + 1, rl::memory_order_release);              // A3, Q0
      if (dies_at == 3 + i) return false;
    }
    claims[self].store(0, rl::memory_order_release);                       // A4
    return true;
  }

  void producer(unsigned self) {
    // Producer 0 may die at any line of its first push.
    unsigned dies_at = self == 0 ? rl::rand(6) : 6;
    for (uint64_t i = 0; i < kTries; ++i) {
      if (push(self, dies_at)) continue;
      alive[self].store(0, rl::memory_order_release);
      break;
    }
    finished.fetch_add(1, rl::memory_order_release);
  }

  struct Consumer {
    SharedQueue& m;
    uint64_t position = 0;

    void retire() { m.head.store(++position, rl::memory_order_release); }  // C1
    bool is_published() {
      return m.entries[position % kEntries].sequence.load(rl::memory_order_acquire) ==
             position + 1;                                                 // C0
    }
    bool try_pop() {
      if (!is_published()) return false;
      ++m.popped[uint64_t(m.entries[position % kEntries].sender($))];
      retire();
      return true;
    }
    bool is_claimed() { return m.tail.load(rl::memory_order_acquire) != position; }
    bool is_covered() {
      for (unsigned i = 0; i < kProducers; ++i) {
        if (!m.alive[i].load(rl::memory_order_acquire)) continue;
        uint64_t claim = m.claims[i].load(rl::memory_order_acquire);
        if (covers(claim, position)) return true;
      }
      return false;
    }
    void skip() {
      if (is_published() && model::has("last_look")) return;
      retire();
    }
  };

  void consumer() {
    Consumer c{*this};
    for (;;) {
      bool last_look = finished.load(rl::memory_order_acquire) == kProducers;
      if (c.try_pop()) continue;
      if (c.is_claimed()) {
        if (!c.is_covered())
          c.skip();
        else
          rl::yield(1, $);
      } else if (last_look) {
        break;
      } else {
        rl::yield(1, $);
      }
    }
  }

  void thread(unsigned index) {
    index < kProducers ? producer(index) : consumer();
  }

  void after() {
    for (unsigned i = 0; i < kProducers; ++i) RL_ASSERT(popped[i] == published[i]);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<SharedQueue>(model::kRandom, 1'500'000, rl::test_result_user_assert_failed);
}
