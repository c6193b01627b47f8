#include "tilera/dlibos/search.h"

#include <algorithm>
#include <stdexcept>

#include "tilera/dlibos/plan.h"

namespace sluice::tilera::dlibos {
namespace {

struct Candidate {
  Split split;
  double bound;
};

// The highest bound first; among equals the fewest tiles that do not run the application.
std::vector<Candidate> candidates(const Setting& setting, uint32_t tiles) {
  std::vector<Candidate> all;
  for (uint32_t drivers = 1; drivers + 2 <= tiles; ++drivers)
    for (uint32_t stacks = 1; drivers + stacks + 1 <= tiles; ++stacks) {
      const Split split{{drivers, stacks, tiles - drivers - stacks}};
      if (const double b = bound(setting, split); b > 0) all.push_back({split, b});
    }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.bound > b.bound; });
  return all;
}

}  // namespace

Search find_best(const Setting& setting, uint32_t tiles, uint32_t most, const std::function<void(const Result&)>& told) {
  Search search;
  const std::vector<Candidate> all = candidates(setting, tiles);
  if (all.empty()) throw std::invalid_argument("no split of these tiles has room for its credits");
  search.splits = uint32_t(all.size());
  search.is_exact = true;
  for (const Candidate& c : all) {
    const double best = double(search.best.requests) / double(setting.cycles);
    // A run of a limited time counts a few requests that were begun before it.
    if (search.simulated != 0 && c.bound < best) break;
    if (search.simulated == most) {
      search.is_exact = false;
      break;
    }
    Result r = run(setting, c.split);
    ++search.simulated;
    if (told) told(r);
    if (search.simulated == 1 || r.requests > search.best.requests) search.best = std::move(r);
  }
  return search;
}

std::vector<Split> splits_by_role(const Setting& setting, uint32_t tiles, Role role) {
  std::vector<Split> found;
  std::vector<Candidate> all = candidates(setting, tiles);
  std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) { return a.split[role] < b.split[role]; });
  for (const Candidate& c : all)
    if (found.empty() || found.back()[role] != c.split[role]) found.push_back(c.split);
  return found;
}

}  // namespace sluice::tilera::dlibos
