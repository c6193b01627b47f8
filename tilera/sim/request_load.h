// What requests to the coordinator take on a simulated chip: many clients that ask it for nothing (kPing), in modelled cycles.
#pragma once

#include <cstdint>
#include <vector>

#include "tilera/credits.h"

namespace sluice::tilera {

inline constexpr double kClockHz = 1.2e9;  // assumed, of 1.0 to 1.2 GHz

struct SimulatedLoad {
  uint32_t clients = 1;   // that have joined
  uint32_t active = 1;    // of these make requests
  uint32_t depth = 1;     // that each has under way, as far as it has credits
  uint32_t flooders = 0;  // of the active ones have as many under way as they have credits, and are not in the latencies
  double rate = 0;        // requests for each cycle of all others together, at even times whatever comes back; 0: a closed loop
  uint64_t cycles = 200'000;
  uint32_t words = 1;     // of each request besides its frame, 1 to 7
  // What the plan would choose by itself.
  uint32_t packet_words = Wish::kChosen;
  uint32_t relays = Wish::kChosen;
};

struct SimulatedResult {
  const char* mesh = "";
  Plan plan;
  uint64_t requests = 0;               // answered within the time
  uint64_t coordinator_cycles = 0;     // in which the coordinator did not wait for a request
  std::vector<uint32_t> round_trips;   // cycles, sorted
  uint32_t quantile(double fraction) const {
    if (round_trips.empty()) return 0;
    const auto i = std::size_t(fraction * double(round_trips.size()));
    return round_trips[i < round_trips.size() ? i : round_trips.size() - 1];
  }
};

// The most clients that a chip has tiles for.
uint32_t most_simulated_clients();

// On the smallest chip with so many tiles. The same load gives the same result. Throws std::invalid_argument if there is
// no such chip, std::runtime_error if the mesh comes to a stop.
SimulatedResult run_load(const SimulatedLoad& load);

}  // namespace sluice::tilera
