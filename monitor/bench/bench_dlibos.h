// sluice bench dlibos: driver, stack and application tiles of a simulated chip, and how many requests they serve.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::monitor::bench {

struct DlibosOptions {
  std::vector<std::string> workloads;   // of tilera/dlibos/workloads.h; empty: all
  std::vector<std::string> meshes;      // WxH
  std::vector<std::string> queues;      // noc, divided, shared
  std::vector<std::string> protection;  // on, off
  std::vector<std::string> costs;       // NAME=CYCLES, over what the workload says
  double scale = 1;                     // of what driver, stack and application tiles compute
  std::vector<double> rates;            // requests/s; empty: as many as there is room for
  std::string hand_back = "messages", spread = "random";
  uint32_t requests_per_connection = 0; // 0: connections last, and no tile is the coordinator's
  std::string split;                    // D,S,A; empty: the best one
  std::string by_role;                  // a role; empty: no rows for each number of its tiles
  uint32_t most = 40;                   // splits simulated in one search
  uint64_t cycles = 0, warm_up = 0, seed = 1;
  bool round_trips = false;             // only what a message costs
  bool inputs = false;                  // only say what is put in
  std::string json, plot;
};

// What is wrong with them, in one line, or empty.
std::string complaint_about(const DlibosOptions& options);
// The exit status.
int bench_dlibos(const DlibosOptions& options);

}  // namespace sluice::monitor::bench
