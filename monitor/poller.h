// When to look again and when to sleep.
#pragma once

#include <chrono>

namespace sluice::monitor {

class Poller {
 public:
  Poller(bool busy, int cpus) : busy_(busy), lingers_(cpus > 1) {}

  void worked() { idle_since_ = {}; }
  // After a look that found nothing: whether to look again at once.
  bool keeps_looking() {
    if (busy_) return true;
    if (!lingers_) return false;
    auto now = Clock::now();
    if (idle_since_ == Clock::time_point{}) idle_since_ = now;
    return now - idle_since_ < kLinger;
  }
  void slept() { idle_since_ = {}; }

 private:
  using Clock = std::chrono::steady_clock;
  // About what a wake-up costs both sides, several times over.
  static constexpr std::chrono::microseconds kLinger{20};

  bool busy_;
  bool lingers_;
  Clock::time_point idle_since_{};
};

}  // namespace sluice::monitor
