// The third kind of queue of `sluice bench requests`: a network-on-chip, which this machine has not. What stands in its rows
// is simulated (tilera/, nocsim/), in cycles of a tile, and says so.
#pragma once

#include <cstdint>
#include <string>

#include "tilera/sim/request_load.h"

namespace sluice::monitor::bench {

inline constexpr const char* kSimulatedQueue = "noc";

struct SimulatedCase {
  uint32_t clients, active, depth, flooders;
  double rate;  // requests/s; 0: a closed loop
};

struct SimulatedRow {
  tilera::SimulatedResult of;
  uint64_t cycles = 0;  // that were simulated
  double requests_per_s() const { return double(of.requests) / double(cycles) * tilera::kClockHz; }
  double cycles_per_request() const { return of.requests != 0 ? double(of.coordinator_cycles) / double(of.requests) : 0; }
  static double microseconds(uint32_t cycles) { return cycles / tilera::kClockHz * 1e6; }
  double quantile_us(double fraction) const { return microseconds(of.quantile(fraction)); }
};

// What went wrong, or empty.
std::string simulate(const SimulatedCase& c, SimulatedRow& row);

}  // namespace sluice::monitor::bench
