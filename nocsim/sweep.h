// Measures a mesh under synthetic traffic at one rate after another.
//
// The rule. Time goes in periods of 1000 cycles, or as many as it takes to make 4000 packets.
// Warm-up lasts until, in three periods running, neither the mean latency of what arrived nor the
// flits accepted differ by more than 5 % from the period before; 40 periods at most. Then packets
// that are made are tagged, for 10 periods and on until the two halves of that window agree within
// 2 % in both; 60 periods at most. Then traffic goes on, untagged, until every tagged packet has
// arrived; 40 periods at most. Latencies are the tagged packets'; accepted flits and link use are
// the window's.
//
// A rate is *converged* if no bound ended any of the three. It is *saturated* if less than 95 % of
// what was offered in the window was accepted in it, or tagged packets did not arrive in the end,
// or the mean latency is above ten times the one at zero load. Everything is decided in integers.
#pragma once

#include <functional>
#include <vector>

#include "nocsim/config.h"
#include "nocsim/traffic.h"

namespace nocsim {

struct SweepPlan {
  Config config;
  Traffic traffic;
  std::vector<Rate> rates;
  uint64_t seed = 1;
  bool latency_from_injection = false;  // else from the packet's creation
  uint32_t period = 1000;
  uint32_t period_packets = 4000;
  uint32_t most_warmup_periods = 40;
  uint32_t least_periods = 10;
  uint32_t most_periods = 60;
  uint32_t most_drain_periods = 40;
};

struct LinkUse {
  Node from;
  int port;  // kLocal: ejection
  double flits_per_cycle;
};

struct SweepRow {
  Rate rate = 0;
  double latency_avg = 0;
  uint64_t latency_p50 = 0;
  uint64_t latency_p99 = 0;
  uint64_t latency_max = 0;
  double offered = 0;  // flits for each node and cycle, in the window
  double accepted = 0;
  uint64_t packets = 0;  // tagged ones that arrived
  uint64_t warmup_cycles = 0;
  uint64_t window_cycles = 0;
  uint64_t cycles = 0;  // altogether
  uint64_t hops = 0;
  bool saturated = false;
  bool converged = true;
  std::vector<LinkUse> links;
};

SweepRow measure(const SweepPlan& plan, Rate rate);
// Calls `each` with a row as soon as it is there.
std::vector<SweepRow> sweep(const SweepPlan& plan,
                            const std::function<void(const SweepRow&)>& each = {});

// Zero-load latencies of this traffic, over all pairs that it can have.
struct ZeroLoads {
  uint64_t sum = 0;
  uint64_t pairs = 0;
  double mean() const { return pairs ? static_cast<double>(sum) / static_cast<double>(pairs) : 0; }
};
ZeroLoads zero_loads(const Config& config, const Traffic& traffic);

}  // namespace nocsim
