// How long a coordinator stays that was started for somebody's use (--linger).
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace sluice::monitor {

class Lifetime {
 public:
  explicit Lifetime(bool lingers) : lingers_(lingers) { expect_client(); }

  // A client is about to come.
  void expect_client() { stay(std::chrono::seconds(10)); }
  // `clients` are here now.
  void note(uint32_t clients) {
    if (clients == clients_) return;
    // An expected one has come; or the last one has left, and another may follow, as in a script.
    if (clients > clients_) end_ = {};
    if (clients == 0) stay(std::chrono::seconds(1));
    clients_ = clients;
  }
  bool is_over() const { return lingers_ && clients_ == 0 && Clock::now() >= end_; }
  // Milliseconds until it may be over, -1 for no end in sight.
  int remaining_ms() const {
    if (!lingers_ || clients_ != 0) return -1;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now());
    return int(std::max<int64_t>(left.count(), 0));
  }

 private:
  using Clock = std::chrono::steady_clock;
  void stay(Clock::duration time) { end_ = std::max(end_, Clock::now() + time); }

  bool lingers_;
  uint32_t clients_ = 0;
  Clock::time_point end_{};
};

}  // namespace sluice::monitor
