#include "nocsim/traffic.h"

namespace nocsim {
namespace {

constexpr std::string_view kNames[] = {"uniform", "transpose", "bitcomp",  "bitrev",
                                       "shuffle", "tornado",   "neighbor", "hotspot"};

uint32_t reversed(uint32_t value, int bits) {
  uint32_t result = 0;
  for (int i = 0; i < bits; ++i) result |= (value >> i & 1) << (bits - 1 - i);
  return result;
}

Node uniform(Node nodes, Node from, Random& random) {
  const Node other = random.below(nodes - 1);
  return other < from ? other : other + 1;
}

// As BookSim has them: in each dimension of k nodes, so many further, going round.
Node moved(const Config& c, Node from, int by_x, int by_y) {
  const Place p = c.place_of(from);
  return c.node_at({(p.x + by_x) % c.width, (p.y + by_y) % c.height});
}

constexpr int half_way(int k) { return (k + 1) / 2 - 1; }

}  // namespace

bool find_pattern(std::string_view name, Pattern& pattern) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (kNames[i] == name) {
      pattern = static_cast<Pattern>(i);
      return true;
    }
  return false;
}

std::string_view name_of(Pattern pattern) { return kNames[static_cast<size_t>(pattern)]; }

std::string complaint_about(const Traffic& t, const Config& c) {
  const auto nodes = static_cast<uint32_t>(c.nodes());
  const std::string name(name_of(t.pattern));
  if (t.packet_flits < 1 || t.packet_flits > 65535) return "a packet has 1 to 65535 flits";
  switch (t.pattern) {
    case Pattern::kBitComp:
    case Pattern::kBitRev:
    case Pattern::kShuffle:
      if (!std::has_single_bit(nodes)) return name + " needs a power of two of nodes";
      break;
    case Pattern::kTranspose:
      if (c.width != c.height) return name + " needs a square mesh";
      break;
    case Pattern::kHotspot:
      if (t.hotspot >= nodes) return "the hotspot is not in the mesh";
      if (t.hotspot_percent < 0 || t.hotspot_percent > 100)
        return "the hotspot's share is 0 to 100 percent";
      [[fallthrough]];
    case Pattern::kUniform:
      if (nodes < 2) return name + " needs two nodes";
      break;
    default:
      break;
  }
  return {};
}

Node destination(const Traffic& t, const Config& c, Node from, Random& random) {
  const auto nodes = static_cast<Node>(c.nodes());
  const int bits = std::bit_width(nodes) - 1;
  switch (t.pattern) {
    case Pattern::kTranspose: {
      const Place p = c.place_of(from);
      return c.node_at({p.y, p.x});
    }
    case Pattern::kBitComp:
      return nodes - 1 - from;
    case Pattern::kBitRev:
      return reversed(from, bits);
    case Pattern::kShuffle:
      return bits ? (from << 1 | from >> (bits - 1)) & (nodes - 1) : 0;
    case Pattern::kTornado:
      return moved(c, from, half_way(c.width), half_way(c.height));
    case Pattern::kNeighbor:
      return moved(c, from, 1, 1);
    case Pattern::kHotspot:
      if (static_cast<int>(random.below(100)) < t.hotspot_percent && from != t.hotspot)
        return t.hotspot;
      [[fallthrough]];
    default:
      return uniform(nodes, from, random);
  }
}

Sources::Sources(Network& network, const Traffic& traffic, uint64_t seed)
    : network_(network),
      traffic_(traffic),
      sources_(network.config().nodes()),
      with_packets_(network.config().nodes()) {
  for (Node n = 0; n < sources_.size(); ++n) sources_[n].random = Random(seed, n);
}

void Sources::set_rate(Rate rate) {
  threshold_ = (uint64_t{rate} << 32) / (uint64_t{kFullRate} * traffic_.packet_flits);
}

void Sources::run() {
  if (threshold_) make_packets();
  with_packets_.for_each([&](Node node) { inject(node, sources_[node]); });
}

void Sources::make_packets() {
  for (Node node = 0; node < sources_.size(); ++node) {
    Source& source = sources_[node];
    if (!source.random.chance(threshold_)) continue;
    const Node to = destination(traffic_, network_.config(), node, source.random);
    source.queue.push_back({network_.cycle(), to, tag_});
    with_packets_.add(node);
    ++packets_made_;
    if (tag_) ++packets_tagged_;
  }
}

void Sources::inject(Node node, Source& source) {
  const uint64_t room = network_.vcs_with_room(node);
  if (source.left == 0) {
    if (!room) return;
    const Waiting& next = source.queue.front();
    const int vcs = network_.config().vcs;
    source.vc = round_robin(room, source.last_vc + 1 < vcs ? source.last_vc + 1 : 0);
    source.last_vc = source.vc;
    const Place to = network_.config().place_of(next.to);
    source.packet =
        network_.packets().create({.from = node,
                                   .to = next.to,
                                   .to_x = static_cast<uint16_t>(to.x),
                                   .to_y = static_cast<uint16_t>(to.y),
                                   .flits = static_cast<uint16_t>(traffic_.packet_flits),
                                   .created = next.created,
                                   .injected = network_.cycle(),
                                   .tag = next.tag});
    source.left = traffic_.packet_flits;
    source.queue.pop_front();
  } else if (!(room & bit(source.vc))) {
    return;
  }
  --source.left;
  network_.inject(node, source.vc, Flit(source.packet, source.left == 0));
  if (source.left == 0 && source.queue.empty()) with_packets_.remove(node);
}

uint64_t Sources::flits_queued() const {
  uint64_t flits = 0;
  for (const Source& source : sources_)
    flits += source.queue.size() * traffic_.packet_flits + source.left;
  return flits;
}

}  // namespace nocsim
