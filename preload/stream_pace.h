// A reader that takes each small message as it comes keeps the writer waiting: the lines that the writer is about to write
// are in the reader's cache each time. So a thread that reads a stream of small messages, and only reads, looks away for a moment
// before it waits for the next ones, and finds many: 8 B messages come at three to four times the rate, each up to kMomentTicks late. Whether that
// is so is seen by what it finds; where the writer waits for an answer on another way it finds one, and soon looks at once again.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/sleep.h"
#include "shm/wake.h"

namespace sluice::preload {

// Of one direction of a connection. Hints, all of it: several threads may use it.
class StreamPace {
 public:
  // The thread has received: so many bytes were there.
  void received(uint64_t bytes) {
    uint32_t n = bytes < kSmall ? uint32_t(bytes) : kSmall;
    if (looked_away_.load(std::memory_order_relaxed) != 0) {
      looked_away_.store(0, std::memory_order_relaxed);
      bool paid = n >= kWorthwhile * usual_.load(std::memory_order_relaxed);
      uint32_t after = after_.load(std::memory_order_relaxed);
      after_.store(paid ? kFirst : after < kMost ? after * 4 : after, std::memory_order_relaxed);
      if (!paid) streak_.store(0, std::memory_order_relaxed);
    } else {
      usual_.store(n, std::memory_order_relaxed);
    }
    streak_.store(streak_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  // It has sent the other way.
  void sent() {
    if (streak_.load(std::memory_order_relaxed) != 0) streak_.store(0, std::memory_order_relaxed);
  }
  // Before it waits for more.
  void before_wait() {
    if (streak_.load(std::memory_order_relaxed) < after_.load(std::memory_order_relaxed) || usual_.load(std::memory_order_relaxed) >= kSmall) return;
    looked_away_.store(1, std::memory_order_relaxed);
    for (uint64_t begin = clock_ticks(); clock_ticks() - begin < kMomentTicks;)
      for (int i = 0; i < 8; ++i) shm::cpu_relax();
  }

 private:
  static constexpr uint32_t kSmall = 1024;       // bytes; more at once is no stream of small messages
  static constexpr uint32_t kFirst = 16, kMost = 1 << 14;  // messages in a row before it is tried
  static constexpr uint32_t kWorthwhile = 3;     // times the usual
  static constexpr uint64_t kMomentTicks = 4000;  // 1 to 4 us
  std::atomic<uint32_t> streak_{0}, after_{kFirst}, usual_{0}, looked_away_{0};
};

}  // namespace sluice::preload
