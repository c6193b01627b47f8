// What a mesh is made of. All times in cycles, all depths in flits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nocsim/geometry.h"

namespace nocsim {

enum class Order : uint8_t { kXY, kYX };
// Who wins where several want the same: each in turn; the packet that was created first; the
// lowest port.
enum class Arbitration : uint8_t { kRoundRobin, kOldest, kFixed };
// When an output VC may be given to the next packet: once the tail has left, or once the
// buffer behind it is empty again (its tail's credit is back).
enum class Reuse : uint8_t { kAfterTail, kAfterTailCredit };

struct Config {
  int width = 8;
  int height = 8;
  Order order = Order::kXY;
  int vcs = 2;
  int depth = 16;         // of each input VC
  int router_stages = 3;  // 1: all in one; 2: VC allocation, the rest; 3: VC, switch, traversal;
                          // more: routing before
  int link_delay = 1;
  int turn_delay = 0;    // added where a packet goes from one dimension to the other
  int credit_delay = 0;  // added to the way back of a credit
  Arbitration arbitration = Arbitration::kRoundRobin;
  Reuse reuse = Reuse::kAfterTail;
  int eject_depth = 16;  // of each VC between the router and the node

  // The endpoint of a tile.
  int queues = 4;
  int queue_words = 118;
  bool queues_share = true;   // queue_words is for all of them together, not for each
  int stall_timeout = 10000;  // after which a flit that has not moved is reported

  int nodes() const { return width * height; }
  Place place_of(Node n) const {
    return {static_cast<int>(n) % width, static_cast<int>(n) / width};
  }
  Node node_at(Place p) const { return static_cast<Node>(p.y * width + p.x); }
  bool holds(Place p) const { return p.x >= 0 && p.y >= 0 && p.x < width && p.y < height; }

  // Cycles from one router's switch allocation to the next router's first stage.
  int flight() const { return (router_stages > 2 ? 2 : 1) + link_delay; }
  // Cycles that a head waits before it may ask for a VC.
  int routing_delay() const { return router_stages > 3 ? router_stages - 3 : 0; }
  int credit_flight() const { return 1 + link_delay + credit_delay; }
};

inline constexpr int kMaxVcs = 8;
inline constexpr int kMaxSide = 256;
inline constexpr int kMaxDepth = 4096;
inline constexpr int kMaxDelay = 32;

// What is wrong with it, in one line; empty if nothing is.
std::string complaint_about(const Config& config);

// One constant of a profile and where it comes from.
struct Origin {
  std::string_view name;
  std::string_view value;
  std::string_view source;  // "assumed: why" where there is none
};

struct Profile {
  std::string_view name;
  std::string_view about;
  Config config;
  int packet_flits;
  std::span<const Origin> origins;
};

// booksim, udn, tilegx36, tilegx72. nullptr: there is no such profile.
const Profile* find_profile(std::string_view name);
std::span<const Profile> all_profiles();

// Cycles from the creation of a packet of `flits` to the arrival of its last flit when nothing is
// in its way: H(R + D) + T + L - 1, where H routers of R stages and links of D cycles are on the
// way, and T cycles are lost where it turns.
Cycle zero_load_latency(const Config& config, Node from, Node to, int flits);
int routers_between(const Config& config, Node from, Node to);

}  // namespace nocsim
