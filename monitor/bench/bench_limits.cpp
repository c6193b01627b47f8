#include "monitor/bench/bench_limits.h"

#include <stdio.h>

#include "monitor/bench/raw_limits.h"
#include "monitor/bench/rows.h"

namespace sluice::monitor::bench {

int bench_limits(const LimitsOptions& o) {
  bool quiet = o.json == "-";
  if (!quiet) printf("%12s %18s %18s %14s\n", "size", "line there, back us", "ring messages/s", "memcpy GB/s");
  nlohmann::json rows = nlohmann::json::array();
  double line_us = line_round_trip_us(o.cpu, o.peer_cpu);
  for (std::size_t size : o.sizes_bytes) {
    double ring = ring_messages_per_s(size, o.cpu, o.peer_cpu, o.seconds), copy = copy_gb_per_s(size, o.cpu, o.seconds);
    rows.push_back({{"size", size}, {"line_round_trip_us", line_us}, {"ring_messages_per_s", ring}, {"copy_gb_per_s", copy}});
    if (!quiet) printf("%12zu %18.2f %18.0f %14.1f\n", size, line_us, ring, copy);
  }
  return write_rows(o.json, rows);
}

}  // namespace sluice::monitor::bench
