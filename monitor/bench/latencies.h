// A histogram of times: fixed memory, 6 % resolution, mergeable. Lives in memory that processes share.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice::monitor::bench {

class Latencies {
 public:
  void add(uint64_t ns) {
    ++counts_[bucket(ns)];
    ++total_;
  }
  void merge(const Latencies& other) {
    for (uint32_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
  }
  void clear() { *this = Latencies(); }
  uint64_t total() const { return total_; }
  // The time that `fraction` of them do not exceed, in ns; 0 if there are none.
  double quantile(double fraction) const {
    uint64_t rank = uint64_t(fraction * double(total_)), below = 0;
    for (uint32_t i = 0; i < kBuckets; ++i) {
      below += counts_[i];
      if (below > rank) return middle(i);
    }
    return total_ != 0 ? middle(kBuckets - 1) : 0;
  }

 private:
  // Sixteen for each power of two.
  static constexpr uint32_t kSub = 16, kBuckets = 45 * kSub;
  static uint32_t bucket(uint64_t ns) {
    if (ns < kSub) return uint32_t(ns);
    uint32_t log2 = uint32_t(std::bit_width(ns)) - 1;
    uint32_t b = (log2 - 3) * kSub + uint32_t(ns >> (log2 - 4) & (kSub - 1));
    return b < kBuckets ? b : kBuckets - 1;
  }
  static double middle(uint32_t b) {
    if (b < kSub) return b;
    uint32_t log2 = b / kSub + 3;
    double width = double(uint64_t{1} << (log2 - 4));
    return double((uint64_t{kSub} + b % kSub) << (log2 - 4)) + width / 2;
  }
  uint64_t counts_[kBuckets] = {};
  uint64_t total_ = 0;
};

}  // namespace sluice::monitor::bench
