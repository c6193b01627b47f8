#include "nocsim/config.h"

#include <cstdlib>

namespace nocsim {
namespace {

struct Bound {
  const char* name;
  int value;
  int low;
  int high;
};

std::string outside(const Bound& b) {
  return std::string(b.name) + " is " + std::to_string(b.value) + ", and has to be between " +
         std::to_string(b.low) + " and " + std::to_string(b.high);
}

}  // namespace

std::string complaint_about(const Config& c) {
  const Bound bounds[] = {
      {"the mesh's width", c.width, 1, kMaxSide},
      {"the mesh's height", c.height, 1, kMaxSide},
      {"the number of VCs", c.vcs, 1, kMaxVcs},
      {"the depth", c.depth, 1, kMaxDepth},
      {"the number of router stages", c.router_stages, 1, kMaxDelay},
      {"the link delay", c.link_delay, 0, kMaxDelay},
      {"the turn delay", c.turn_delay, 0, kMaxDelay},
      {"the credit delay", c.credit_delay, 0, kMaxDelay},
      {"the ejection depth", c.eject_depth, 1, kMaxDepth},
      {"the number of queues", c.queues, 1, 16},
      {"the number of words in the queues", c.queue_words, 1, 1 << 20},
      {"the stall timeout", c.stall_timeout, 1, 1 << 30},
  };
  for (const Bound& b : bounds)
    if (b.value < b.low || b.value > b.high) return outside(b);
  return {};
}

int routers_between(const Config& config, Node from, Node to) {
  const Place a = config.place_of(from), b = config.place_of(to);
  return std::abs(a.x - b.x) + std::abs(a.y - b.y) + 1;
}

Cycle zero_load_latency(const Config& config, Node from, Node to, int flits) {
  const Place a = config.place_of(from), b = config.place_of(to);
  const int turns = a.x != b.x && a.y != b.y ? config.turn_delay : 0;
  return routers_between(config, from, to) * (config.router_stages + config.link_delay) + turns +
         flits - 1;
}

}  // namespace nocsim
