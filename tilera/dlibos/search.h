// The best split of a number of tiles. Every split has a bound that it cannot exceed, so they are simulated from the highest bound
// downwards until the next bound is below the best result: what is left cannot be better.
#pragma once

#include <functional>

#include "tilera/dlibos/model.h"

namespace sluice::tilera::dlibos {

struct Search {
  Result best;
  uint32_t splits = 0, simulated = 0;
  bool is_exact = false;  // no split that was left out can be better
};

// At most `most` splits are simulated. `told`: of each, if wanted.
Search find_best(const Setting& setting, uint32_t tiles, uint32_t most, const std::function<void(const Result&)>& told = {});

// For each number of tiles of a role, the split of the rest that has the highest bound.
std::vector<Split> splits_by_role(const Setting& setting, uint32_t tiles, Role role);

}  // namespace sluice::tilera::dlibos
