// Counts latencies, exactly: quantiles are integers and need no floating-point number.
#pragma once

#include <cstdint>
#include <vector>

namespace nocsim {

class Latencies {
 public:
  void add(uint64_t latency) {
    if (latency >= counts_.size()) counts_.resize(latency + latency / 2 + 1);
    ++counts_[latency];
    ++count_;
    sum_ += latency;
    if (latency > most_) most_ = latency;
  }

  uint64_t count() const { return count_; }
  uint64_t sum() const { return sum_; }
  uint64_t most() const { return most_; }
  double mean() const {
    return count_ ? static_cast<double>(sum_) / static_cast<double>(count_) : 0;
  }
  // The least latency that `percent` of all do not exceed.
  uint64_t quantile(uint64_t percent) const {
    const uint64_t wanted = (count_ * percent + 99) / 100;
    uint64_t seen = 0;
    for (uint64_t i = 0; i < counts_.size(); ++i)
      if ((seen += counts_[i]) >= wanted && seen) return i;
    return 0;
  }

 private:
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t most_ = 0;
};

}  // namespace nocsim
