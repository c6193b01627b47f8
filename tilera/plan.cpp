// Where coordinator and relays stand, who sends where, and how many credits there are.
#include "tilera/credits.h"

namespace sluice::tilera {
namespace {

// A share of a queue below this many words sends too much through memory, at 48 cycles a request: then relays are better, if
// there are tiles for them. From it on each word more is one request type less that does (docs/tilera.md has the cycles).
constexpr uint32_t kShortestShare = 3;
// More would not be under way anyway.
constexpr uint32_t kMostForwards = 12;

uint32_t distance(uint32_t width, TileId a, TileId b) {
  // Rows by repeated subtraction: a tile has no division.
  uint32_t ay = 0, by = 0;
  for (; a >= width; a -= width) ++ay;
  for (; b >= width; b -= width) ++by;
  return (a > b ? a - b : b - a) + (ay > by ? ay - by : by - ay);
}

// Side by side in the middle row, the coordinator in the middle of them.
void place(const Wish& wish, Plan& p) {
  const TileId row = (wish.height / 2) * wish.width;
  p.root = row + wish.width / 2;
  uint32_t step = 0;  // width / (relays + 1)
  while ((step + 1) * (p.relays + 1) <= wish.width) ++step;
  for (uint32_t r = 0, x = step; r < p.relays; ++r, x += step) {
    TileId t = row + x;
    while (t == p.root || p.is_relay[t]) ++t;  // there are fewer relays than tiles beside the root in the row
    p.is_relay[t] = true;
  }
}

// The tiles nearest to where requests go become clients first.
void assign(const Wish& wish, Plan& p) {
  for (TileId t = 0; t < p.tiles; ++t) p.via[t] = p.is_relay[t] ? uint8_t(p.root) : uint8_t(t);
  uint32_t share = 0;  // of each relay, rounded up
  while (p.relays != 0 && share * p.relays < p.clients) ++share;
  uint32_t taken[kMostTiles] = {};
  for (uint32_t n = 0; n < p.clients; ++n) {
    TileId best = 0, best_via = 0;
    uint32_t least = ~0u;
    for (TileId via = 0; via < p.tiles; ++via) {
      const bool serves = p.relays == 0 ? via == p.root : p.is_relay[via] && taken[via] < share;
      for (TileId t = 0; serves && t < p.tiles; ++t) {
        if (t == p.root || p.is_relay[t] || p.via[t] != t) continue;
        const uint32_t d = distance(wish.width, t, via);
        if (d < least) least = d, best = t, best_via = via;
      }
    }
    p.via[best] = uint8_t(best_via);
    ++taken[best_via];
  }
}

const char* fill(const Wish& wish, Plan& p) {
  if (p.clients == 0 || p.clients + p.relays + 1 > p.tiles) return "not as many tiles as that";
  place(wish, p);
  assign(wish, p);
  const bool chooses_depth = wish.depth == Wish::kChosen;
  p.depth = chooses_depth ? 1 : wish.depth;
  p.forwards = p.relays != 0 ? 1 : 0;
  if (const char* complaint = complaint_about(p, wish.room)) return complaint;
  while (p.relays != 0 && p.forwards < kMostForwards) {
    ++p.forwards;
    if (complaint_about(p, wish.room) == nullptr) continue;
    --p.forwards;
    break;
  }
  while (chooses_depth && p.depth < kMostDepth) {
    ++p.depth;
    if (complaint_about(p, wish.room) == nullptr) continue;
    --p.depth;
    break;
  }
  return nullptr;
}

}  // namespace

const char* make_plan(const Wish& wish, Plan& plan) {
  if (wish.width == 0 || wish.height == 0 || wish.width * wish.height > kMostTiles) return "no such mesh";
  const bool chooses_relays = wish.relays == Wish::kChosen, chooses_words = wish.packet_words == Wish::kChosen;
  const char* complaint = nullptr;
  auto try_words = [&](uint32_t relays, uint32_t most, uint32_t least) {
    for (uint32_t words = most; words >= least; --words) {
      plan = {};
      plan.tiles = wish.width * wish.height;
      plan.clients = wish.clients;
      plan.relays = relays;
      plan.packet_words = words;
      complaint = fill(wish, plan);
      if (complaint == nullptr) return true;
    }
    return false;
  };
  const uint32_t most = chooses_words ? shm::kFramedWords : wish.packet_words;
  const uint32_t least = chooses_words ? kShortestShare : wish.packet_words;
  for (uint32_t relays = chooses_relays ? 0 : wish.relays; relays < wish.width; ++relays) {
    if (try_words(relays, most, least)) return nullptr;
    if (!chooses_relays) break;
  }
  // No tile is left for a relay.
  if (chooses_words && chooses_relays && try_words(0, kShortestShare - 1, 1)) return nullptr;
  return complaint;
}

}  // namespace sluice::tilera
