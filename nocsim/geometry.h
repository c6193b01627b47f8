// Nodes, ports and rectangles of a 2-D mesh. Node n is at x = n % width, y = n / width; y grows
// to the south.
#pragma once

#include <cstdint>

namespace nocsim {

using Node = uint32_t;
using Cycle = uint64_t;

enum Port : uint8_t { kNorth, kEast, kSouth, kWest, kLocal };
inline constexpr int kPorts = 5;
// The node itself seen from its router: behind the local output (where flits are ejected to) and
// before the local input (who has to know of credits).
inline constexpr int kNodeSide = 5;
inline constexpr int kSides = 6;

constexpr bool is_link(int port) { return port < kLocal; }
constexpr int opposite(int port) { return port ^ 2; }
// Where what leaves through `port` comes in; the local port and the node side face each other.
constexpr int opposite_side(int port) {
  return port == kLocal ? kNodeSide : port == kNodeSide ? kLocal : opposite(port);
}
constexpr bool is_horizontal(int port) { return port == kEast || port == kWest; }
constexpr char name_of(int port) { return "NESWL"[port]; }

struct Place {
  int x = 0;
  int y = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

struct Rectangle {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;

  bool holds(Place p) const { return p.x >= x && p.y >= y && p.x < x + width && p.y < y + height; }
  bool overlaps(const Rectangle& other) const {
    return x < other.x + other.width && other.x < x + width && y < other.y + other.height &&
           other.y < y + height;
  }
};

constexpr Place step_from(Place p, int port) {
  switch (port) {
    case kNorth:
      return {p.x, p.y - 1};
    case kEast:
      return {p.x + 1, p.y};
    case kSouth:
      return {p.x, p.y + 1};
    case kWest:
      return {p.x - 1, p.y};
    default:
      return p;
  }
}

}  // namespace nocsim
