// A request's way through driver, stack and application tiles, and what is assumed of each step.
//
//     wire -> driver -> stack -> application -> stack -> driver -> wire
//
// Every step is a message of two words (tilera/frame.h's first word, and where the bytes lie). Bytes lie in memory: RX, which the
// network engine writes; application memory; TX, which the engine reads.
//
// Protected, each has one writer. So the stack copies a reply from the application's memory to TX, and four messages of a word
// hand buffers back to who may use them again: application to stack to driver (RX), driver to stack (TX), stack to application.
// Unprotected, all is one memory: the application writes into TX itself, and a buffer is known to be free when the reply
// passes that it led to, which costs nothing. That is the cheapest one can do without protection.
//
// A connection's first request is one that the coordinator's tile is asked about: a word from the stack tile, and one back. It is
// one tile for all.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "nocsim/config.h"
#include "tilera/sim/request_load.h"

namespace sluice::tilera::dlibos {

enum Role : uint32_t { kDriver, kStack, kApplication };
inline constexpr uint32_t kRoles = 3;
inline constexpr const char* kRoleNames[kRoles] = {"driver", "stack", "application"};

enum class Queues : uint32_t {
  kNoc,      // packets, with credits
  kDivided,  // a ring in memory for each pair of tiles; the receiver polls those of its senders
  kShared,   // a ring in memory for each receiver; senders claim a place by an atomic addition
};

// How buffers come back, protected.
enum class HandBack : uint32_t { kMessages, kPiggyback };

// Which application tile a stack tile's next request is for.
enum class Spread : uint32_t { kRandom, kTurns };

// Cycles of a tile for one request. Besides: words sent and received, shared memory, fences, which are modelled.
struct Costs {
  uint32_t driver_rx = 0, driver_tx = 0;
  uint32_t stack_rx = 0, stack_tx = 0;
  uint32_t application = 0;
  uint32_t coordinator = 0;  // for a connection
  uint32_t message = 0;    // to make a message, and to take one apart: each
  uint32_t hand_back = 0;  // to put a buffer that came back where it is found again
  uint32_t atomic = 0;     // of an atomic addition where its line is at home, in which no other one is served
  uint32_t scan = 0;       // of a look at one more sender's ring, besides the load
  uint32_t request_bytes = 0, reply_bytes = 0;  // with all their headers
};

// How many tiles of each role.
struct Split {
  std::array<uint32_t, kRoles> tiles = {};
  uint32_t operator[](Role role) const { return tiles[role]; }
  uint32_t sum() const { return tiles[0] + tiles[1] + tiles[2]; }
  bool operator==(const Split&) const = default;
};

struct Setting {
  nocsim::Config mesh;
  Costs costs;
  Queues queues = Queues::kNoc;
  bool is_protected = true;
  HandBack hand_back = HandBack::kMessages;
  Spread spread = Spread::kRandom;
  uint32_t requests_per_connection = 0;  // 0: connections last, and there is no coordinator's tile
  double rate = 0;      // requests for each cycle that the wire brings; 0: a next one whenever there is room
  uint64_t cycles = 0;  // that are measured
  uint64_t warm_up = 0;
  uint64_t seed = 1;
  bool has_coordinator() const { return requests_per_connection != 0; }
  // Tiles for the three roles.
  uint32_t tiles() const { return uint32_t(mesh.nodes()) - has_coordinator(); }
  bool sends_messages_back() const { return is_protected && hand_back == HandBack::kMessages; }
};

struct Result {
  Split split;
  uint32_t pipelines = 0;
  uint64_t cycles = 0;
  uint64_t requests = 0;    // whose replies were sent within `cycles`
  uint64_t messages = 0;    // likewise
  uint64_t copied_bytes = 0;
  uint64_t refused = 0;     // by a full network engine, all the time
  uint64_t lost = 0;        // begun, and not replied to though there was time: a defect
  std::array<double, kRoles> busy = {};  // the part of the time in which tiles of that role do not wait
  double coordinator_busy = 0;
  double busiest_link = 0, mean_link = 0;  // flits for each cycle
  std::vector<uint32_t> latencies;  // cycles, sorted
  double per_request(uint64_t count) const { return requests != 0 ? double(count) / double(requests) : 0; }
  double requests_per_s() const { return cycles != 0 ? double(requests) / double(cycles) * kClockHz : 0; }
  uint32_t quantile(double fraction) const {
    if (latencies.empty()) return 0;
    const auto i = std::size_t(fraction * double(latencies.size()));
    return latencies[i < latencies.size() ? i : latencies.size() - 1];
  }
};

// The same setting gives the same result. Throws std::invalid_argument where there is no plan for the split, std::runtime_error if the
// mesh comes to a stop.
Result run(const Setting& setting, const Split& split);

}  // namespace sluice::tilera::dlibos
