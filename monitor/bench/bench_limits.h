// sluice bench limits: what the machine itself can do, whatever carries the bytes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace sluice::monitor::bench {

struct LimitsOptions {
  std::vector<std::size_t> sizes_bytes;
  int cpu = -1, peer_cpu = -1;
  double seconds = 0.2;  // of each measurement
  std::string json;      // a file, - for standard output, or empty
};

// The exit status.
int bench_limits(const LimitsOptions& options);

}  // namespace sluice::monitor::bench
