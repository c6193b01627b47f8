// The counters of clients that have left, so that totals only grow.
#pragma once

#include "shm/layout.h"

namespace sluice::monitor {

class Ledger {
 public:
  void close(const shm::ClientRegion& region) {
    for (uint32_t i = 0; i < shm::kCounters; ++i)
      totals_[i] += region.counters[i].load(std::memory_order_relaxed);  // only for display
  }
  uint64_t operator[](uint32_t counter) const { return totals_[counter]; }

 private:
  uint64_t totals_[shm::kCounters] = {};
};

}  // namespace sluice::monitor
