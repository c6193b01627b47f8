// sluice bench requests: what a request to the coordinator costs over each kind of queue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::monitor::bench {

struct RequestsOptions {
  std::vector<std::string> queues;  // divided, shared, auto; noc: simulated
  std::vector<uint32_t> clients;
  std::vector<uint32_t> active;     // of them make requests; empty: all
  std::vector<uint32_t> depths;
  std::vector<double> rates;        // requests/s, open loop; besides the closed loop if not empty
  uint32_t flooders = 0;
  bool by_turns = false;
  std::string poll;
  double seconds = 0.5;
  uint32_t rounds = 3;
  int coordinator_cpu = -1, client_cpu = -1;
  std::string json;                 // a file, - for standard output, or empty
};

// The exit status.
int bench_requests(const RequestsOptions& options);

}  // namespace sluice::monitor::bench
