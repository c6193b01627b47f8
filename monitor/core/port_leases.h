// Local ports for accelerated connections, lent to domains in blocks. They lie outside the
// range that the kernel gives out, so that the two never hand out the same.
#pragma once

#include "monitor/core/limits.h"
#include "shm/layout.h"

namespace sluice::monitor::core {

class PortLeases {
 public:
  // Adds the ports first..last, in whole blocks.
  void add_range(uint32_t first, uint32_t last) {
    for (; first + kPortsPerLease - 1 <= last && count_ < kMaxLeases; first += kPortsPerLease)
      blocks_[count_++] = {uint16_t(first), shm::kNobody};
  }

  // The first port of a free block for which `usable(first)` holds, or 0. Goes round, so that
  // a block rests before it is lent again. `held`: blocks the domain has.
  template <class Usable>
  uint16_t lend(shm::DomainId to, uint32_t held, Usable usable) {
    bool scarce = count_ - lent_ <= count_ / 4;
    if (held >= kUnquestionedLeases && scarce) return 0;
    for (uint32_t n = 0; n < count_; ++n) {
      if (next_ >= count_) next_ = 0;
      Block& b = blocks_[next_++];
      if (b.owner != shm::kNobody || !usable(b.first)) continue;
      b.owner = to;
      ++lent_;
      return b.first;
    }
    return 0;
  }

  void take_back(shm::DomainId from) {
    for (uint32_t i = 0; i < count_; ++i) {
      if (blocks_[i].owner != from) continue;
      blocks_[i].owner = shm::kNobody;
      --lent_;
    }
  }

 private:
  struct Block {
    uint16_t first;
    shm::DomainId owner;
  };
  uint32_t count_;
  uint32_t lent_;
  uint32_t next_;
  Block blocks_[kMaxLeases];
};

}  // namespace sluice::monitor::core
