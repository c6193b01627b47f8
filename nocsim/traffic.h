// Synthetic traffic: who sends to whom, and when packets come to be.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "nocsim/network.h"
#include "nocsim/random.h"

namespace nocsim {

enum class Pattern : uint8_t {
  kUniform,    // any other node
  kTranspose,  // (x, y) to (y, x)
  kBitComp,    // every bit of the node's number turned
  kBitRev,     // the bits in reverse order
  kShuffle,    // the bits rotated left by one
  kTornado,    // half the way round each dimension
  kNeighbor,   // one on in each dimension
  kHotspot,    // a share to one node, the rest uniform
};

struct Traffic {
  Pattern pattern = Pattern::kUniform;
  int packet_flits = 4;
  Node hotspot = 0;
  int hotspot_percent = 10;
};

// False: there is no such pattern.
bool find_pattern(std::string_view name, Pattern& pattern);
std::string_view name_of(Pattern pattern);
// What keeps this traffic from that mesh, in one line; empty if nothing does.
std::string complaint_about(const Traffic& traffic, const Config& config);

// Where `from` sends. A fixed point of a permutation sends to itself, through its own router.
Node destination(const Traffic& traffic, const Config& config, Node from, Random& random);

// Flits for each node and cycle in millionths, so that no decision needs a floating-point number.
using Rate = uint32_t;
inline constexpr Rate kFullRate = 1'000'000;

// The nodes as sources: each cycle each node makes a packet with probability rate / packet_flits
// (Bernoulli), puts it into its queue, which has no limit, and injects one flit of the first packet
// if there is room. A packet takes the next VC with room in turn and stays in it.
class Sources {
 public:
  Sources(Network& network, const Traffic& traffic, uint64_t seed);

  void set_rate(Rate rate);
  // Packets that are made from now on carry this tag.
  void tag_with(uint64_t tag) { tag_ = tag; }
  // To be called once a cycle.
  void run();

  uint64_t packets_made() const { return packets_made_; }
  uint64_t packets_tagged() const { return packets_tagged_; }
  uint64_t flits_queued() const;

 private:
  struct Waiting {
    Cycle created;
    Node to;
    uint64_t tag;
  };
  struct Source {
    Random random;
    std::deque<Waiting> queue;
    PacketId packet = 0;
    int left = 0;  // flits of it that are still to be injected
    int vc = 0;
    int last_vc = 0;
  };

  void make_packets();
  void inject(Node node, Source& source);

  Network& network_;
  Traffic traffic_;
  std::vector<Source> sources_;
  NodeSet with_packets_;
  uint64_t threshold_ = 0;
  uint64_t tag_ = 0;
  uint64_t packets_made_ = 0;
  uint64_t packets_tagged_ = 0;
};

}  // namespace nocsim
