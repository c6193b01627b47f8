// shm/demux_queue.h: packets of several words arrive whole and in order, no word is written while it is read, and
// whoever sees the first word of a packet has the rest. Packets have one to three words; the first one says how many.
#include "model.h"

namespace {

constexpr uint64_t kPlaces = 4;
constexpr uint64_t kCapacity = 3;  // fewer than there are places, as in the real one
constexpr uint64_t kPackets = 5;

uint64_t words_of(uint64_t packet) { return 1 + packet % 3; }

struct DemuxQueue : rl::test_suite<DemuxQueue, 2> {
  rl::atomic<uint64_t> tail;
  rl::atomic<uint64_t> head;
  rl::var<uint64_t> words[kPlaces];

  void before() {
    tail.store(0, rl::memory_order_relaxed);
    head.store(0, rl::memory_order_relaxed);
  }

  void producer() {
    uint64_t position = 0, head_seen = 0;
    for (uint64_t packet = 0; packet < kPackets;) {
      if (position - head_seen > kCapacity - words_of(packet)) {
        head_seen = head.load(rl::memory_order_acquire);  // U1
        if (position - head_seen > kCapacity - words_of(packet)) {
          rl::yield(1, $);
          continue;
        }
      }
      for (uint64_t i = 0; i < words_of(packet); ++i) {
        words[position++ % kPlaces]($) = packet * 10 + i;
        if (!model::has("whole")) tail.store(position, rl::memory_order_release);
      }
      tail.store(position, rl::memory_order_release);  // U0
      ++packet;
    }
  }

  void consumer() {
    uint64_t position = 0;
    for (uint64_t packet = 0; packet < kPackets;) {
      uint64_t there = tail.load(model::has("acquire") ? rl::mo_acquire : rl::mo_relaxed, $) - position;  // V0
      if (there == 0) {
        rl::yield(1, $);
        continue;
      }
      RL_ASSERT(there <= kCapacity && there >= words_of(packet));
      for (uint64_t i = 0; i < words_of(packet); ++i)
        RL_ASSERT(uint64_t(words[(position + i) % kPlaces]($)) == packet * 10 + i);
      position += words_of(packet++);
      head.store(position, rl::memory_order_release);  // V1
    }
  }

  void thread(unsigned index) { index == 0 ? producer() : consumer(); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  return model::run<DemuxQueue>(model::kRandom, 1'500'000, model::has("whole") ? rl::test_result_data_race : rl::test_result_user_assert_failed);
}
