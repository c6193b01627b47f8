#include "monitor/bench/simulated_noc.h"

#include <algorithm>
#include <exception>

namespace sluice::monitor::bench {
namespace {

// Enough for figures that do not change: the same load always gives the same ones.
constexpr uint64_t kCycles = 200'000, kRequests = 1000;

}  // namespace

std::string simulate(const SimulatedCase& c, SimulatedRow& row) {
  const double per_cycle = c.rate / tilera::kClockHz;
  row.cycles = per_cycle > 0 ? std::max(kCycles, uint64_t(kRequests / per_cycle)) : kCycles;
  try {
    row.of = tilera::run_load({.clients = c.clients,
                              .active = c.active,
                              .depth = c.depth,
                              .flooders = c.flooders,
                              .rate = per_cycle,
                              .cycles = row.cycles});
    return {};
  } catch (const std::exception& e) {
    return std::string("the simulated network: ") + e.what();
  }
}

}  // namespace sluice::monitor::bench
