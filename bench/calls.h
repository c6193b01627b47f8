// What a call costs by itself: ns per call, the best of many batches, so that preemption does not count.
#pragma once

#include <cstdint>
#include <algorithm>
#include <limits>

#include "report.h"
#include "tcp.h"

namespace bench {

constexpr int kCallsPerBatch = 1000;

struct Connection {
  Socket client;
  Socket server;
};

// While it is there a preloaded library is in the state in which it works.
inline Connection connect_to_self() {
  const Socket listener = listen_on(0, "");
  Connection connection;
  connection.client = connect_to(local_port(listener));
  connection.server = accept_from(listener);
  return connection;
}

template <typename Call>
double best_ns_per_call(double seconds, Call call) {
  uint64_t best = std::numeric_limits<uint64_t>::max();
  const uint64_t end = now_ns() + static_cast<uint64_t>(seconds * 1e9);
  while (now_ns() < end) {
    const uint64_t start = now_ns();
    for (int i = 0; i < kCallsPerBatch; ++i) call();
    best = std::min(best, now_ns() - start);
  }
  return static_cast<double>(best) / kCallsPerBatch;
}

}  // namespace bench
