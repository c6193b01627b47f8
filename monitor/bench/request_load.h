// Many registered client processes, of which some make requests. Each is a process of its own, as
// applications are. Or, to know what those wait for that speak seldom, without the wait for a turn on the CPU:
// one process is all of the clients, and lets one after the other speak.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "monitor/bench/latencies.h"

namespace sluice::monitor::bench {

struct LoadShape {
  uint32_t clients = 1;   // registered
  uint32_t active = 1;    // of these make requests
  uint32_t depth = 1;     // requests that each has under way
  uint32_t flooders = 0;  // of the active ones have as many under way as fit, and are not in the latencies
  bool by_turns = false;  // one process is all clients; each in turn makes one request, while the flooders flood
  double rate = 0;        // requests/s of all together, sent at even times whatever comes back; 0: a closed loop
  int cpu = -1;           // where they run
};

struct LoadResult {
  uint64_t requests = 0;  // answered within the time
  double seconds = 0;
  uint64_t client_ns = 0;  // CPU time of the active clients
  Latencies latencies;     // of a sample of the requests
};

// The processes end with the object.
class RequestLoad {
 public:
  RequestLoad(const std::string& directory, const LoadShape& shape) : directory_(directory), shape_(shape) {}
  ~RequestLoad();
  RequestLoad(const RequestLoad&) = delete;
  RequestLoad& operator=(const RequestLoad&) = delete;

  // All are registered when it returns. What went wrong, or empty.
  std::string start();
  void warm_up(double seconds);
  void begin();
  void end();
  LoadResult result() const;

 private:
  struct Cell;
  struct Board;
  void run_client(uint32_t index);
  void run_all();
  void await_start();
  void take_turns(class RequestClient* clients);
  void work(uint32_t index, class RequestClient& client);

  std::string directory_;
  LoadShape shape_;
  std::vector<pid_t> processes_;
  Board* board_ = nullptr;
  uint64_t begin_ns_ = 0, end_ns_ = 0;
};

}  // namespace sluice::monitor::bench
