// tilera/doorbells.h: with one doorbell of each tile under way at most, no news is missed. The network is modelled as what it
// is: a queue of words that orders nothing else. A missed one shows as a deadlock.
#include "model.h"

namespace {

constexpr uint32_t kNews = 3;

struct Doorbell : rl::test_suite<Doorbell, 2> {
  rl::atomic<uint32_t> published;
  rl::atomic<uint32_t> taken;
  // The demux queue. A semaphore of relacy orders memory, which a packet does not, so that here it says only that
  // there is a word.
  rl::atomic<uint32_t> sent;

  void before() {
    published.store(0, rl::memory_order_relaxed);
    taken.store(0, rl::memory_order_relaxed);
    sent.store(0, rl::memory_order_relaxed);
  }

  void who_is_rung() {
    uint32_t bells = 0;
    for (uint32_t seen = 0; seen < kNews;) {
      rl::linear_backoff backoff;
      while (sent.load(rl::memory_order_relaxed) == bells) backoff.yield($);  // B0
      ++bells;
      taken.store(bells, rl::memory_order_relaxed);                           // B1
      model::full_fence($);
      seen = published.load(rl::memory_order_relaxed);                        // B2
    }
  }

  void who_rings() {
    uint32_t rung = 0;
    for (uint32_t n = 1; n <= kNews; ++n) {
      published.store(n, rl::memory_order_relaxed);                           // A0
      model::full_fence($);
      uint32_t seen = taken.load(rl::memory_order_relaxed);                   // A1
      RL_ASSERT(seen == rung || seen + 1 == rung);
      if (seen == rung) sent.store(++rung, rl::memory_order_relaxed);         // A2
    }
  }

  void thread(unsigned index) { index == 0 ? who_is_rung() : who_rings(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<Doorbell>(model::kExhaustive, 0, rl::test_result_livelock);
}
