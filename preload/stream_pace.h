// A reader that takes each small message as it comes keeps the writer waiting: the lines that the writer is about to write
// are in the reader's cache each time. So a thread that reads a stream of small messages, and only reads, looks away for a moment
// before it waits for the next ones, and finds many: 8 B messages come at four times the rate, each up to kMomentTicks late. What is
// there afterwards says whether that was worth it; where the writer waits for an answer on another way there is one, and it is soon
// tried once in kMost waits only.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/sleep.h"
#include "shm/wake.h"

namespace sluice::preload {

// Of one direction of a connection. Hints, all of it: several threads may use it.
class StreamPace {
 public:
  // The thread has found so many bytes.
  void received(uint64_t bytes) {
    if (ahead_.load(std::memory_order_relaxed)) ahead_.store(false, std::memory_order_relaxed);
    uint32_t waited = waited_.load(std::memory_order_relaxed);
    if (waited == kNotWaited) return;  // the rest of what came before
    waited_.store(kNotWaited, std::memory_order_relaxed);
    if (waited == kAwake) usual_.store(bytes < kSmall ? uint32_t(bytes) : kSmall, std::memory_order_relaxed);
    streak_.store(streak_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  // It has sent the other way.
  void sent() {
    if (streak_.load(std::memory_order_relaxed) != 0) streak_.store(0, std::memory_order_relaxed);
  }
  // It has sent so much that it has to look how far the reader is.
  void run_ahead() { ahead_.store(true, std::memory_order_relaxed); }
  // Whether nothing has come since then: as long as there are answers the next lines of the ring are not fetched before their time.
  [[nodiscard]] bool runs_ahead() const { return ahead_.load(std::memory_order_relaxed); }
  // Before each wait for more: whether to look away first. Now and then not, to see again what comes by itself.
  [[nodiscard]] bool is_due() {
    uint32_t streak = streak_.load(std::memory_order_relaxed);
    waited_.store(kAwake, std::memory_order_relaxed);
    return streak >= after_.load(std::memory_order_relaxed) && usual_.load(std::memory_order_relaxed) < kSmall && streak % kSample != 0;
  }
  // there() says afterwards how many bytes there are.
  template <class There>
  void look_away(There&& there) {
    for (uint64_t begin = clock_ticks(); clock_ticks() - begin < kMomentTicks;)
      for (int i = 0; i < 8; ++i) shm::cpu_relax();
    bool paid = there() >= uint64_t{kWorthwhile} * usual_.load(std::memory_order_relaxed);
    uint32_t after = after_.load(std::memory_order_relaxed);
    after_.store(paid ? kFirst : after < kMost ? after * 4 : after, std::memory_order_relaxed);
    if (!paid) streak_.store(0, std::memory_order_relaxed);
    waited_.store(kLookedAway, std::memory_order_relaxed);
  }

 private:
  enum : uint32_t { kNotWaited, kAwake, kLookedAway };
  static constexpr uint32_t kSmall = 1024;  // bytes; more at once is no stream of small messages
  static constexpr uint32_t kFirst = 17, kMost = 17 << 10;  // waits in a row before it is tried
  static constexpr uint32_t kSample = 16;   // one wait of so many is without
  static constexpr uint32_t kWorthwhile = 3;  // times the usual
  static constexpr uint64_t kMomentTicks = 8000;  // 2 to 4 us on most machines
  std::atomic<uint32_t> streak_{0}, after_{kFirst}, usual_{kSmall}, waited_{kNotWaited};
  std::atomic<bool> ahead_{false};
};

}  // namespace sluice::preload
