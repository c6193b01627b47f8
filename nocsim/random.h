// Random numbers that are the same on any machine: SplitMix64 (Steele, Lea, Flood, OOPSLA'14) and
// integer arithmetic only. One stream for each node, so that what one draws does not depend on
// what others drew.
#pragma once

#include <cstdint>

namespace nocsim {

class Random {
 public:
  explicit Random(uint64_t seed = 0, uint64_t stream = 0) : state_(seed) {
    state_ = next() ^ (stream * kGolden);
    state_ = next();
  }

  uint64_t next() {
    uint64_t z = state_ += kGolden;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  // Uniform in [0, bound), bound > 0. Exactly so: what would be drawn too often is drawn again.
  uint32_t below(uint32_t bound) {
    const uint32_t unfair = (0u - bound) % bound;
    for (;;) {
      const uint64_t product = (next() >> 32) * bound;
      if (static_cast<uint32_t>(product) >= unfair) return static_cast<uint32_t>(product >> 32);
    }
  }

  // True in `threshold` of 2^32 cases.
  bool chance(uint64_t threshold) { return (next() >> 32) < threshold; }

 private:
  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  uint64_t state_;
};

}  // namespace nocsim
