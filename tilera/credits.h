// Who may have how much under way, so that no demux queue is ever full.
//
// A queue of the network has no back-pressure for each sender: once it is full it blocks the mesh behind it, and two
// tiles that each wait for room at the other wait for ever. So its words are divided among its senders beforehand:
//
//     sum over senders of (packets under way x words of the longest) <= words of the queue
//
// and nobody sends without a credit. A request's credit comes back with its reply, whose place at the
// client is the same credit: there are never more replies than requests. A doorbell's comes back through
// memory (doorbells.h), a relay's in packets of control. With that every send ends, whatever others do.
//
// Where one tile's queue has not a packet's room for each client, relays stand between (relay_tile.h): each takes the
// requests of a part of the clients, and has a few under way to the root. Replies need no relay.
#pragma once

#include "shm/noc_frame.h"
#include "tilera/noc.h"

namespace sluice::tilera {

// What a tile's demultiplexer holds.
struct QueueRoom {
  uint32_t words = 118;
  bool shared = true;  // by the four queues; else each has as many
};

inline constexpr uint32_t kMostDepth = 16;  // requests that a client has under way
inline constexpr uint32_t kBellWords = 1, kCreditWords = 1;

struct Plan {
  uint32_t tiles = 0;
  TileId root = 0;  // where the coordinator's core runs
  uint32_t clients = 0;
  uint32_t relays = 0;
  uint32_t packet_words = 0;  // of the longest request; what is longer lies in memory
  uint32_t depth = 0;         // credits of each client
  uint32_t forwards = 0;      // credits of each relay at the root
  // Where a tile sends its requests. A relay's: to the root. A tile that has no part: to itself.
  uint8_t via[kMostTiles] = {};
  bool is_relay[kMostTiles] = {};

  bool is_client(TileId t) const { return t < tiles && t != root && via[t] != t && !is_relay[t]; }
};

// The words that may be in each queue of a tile at once, by a plan.
struct Demand {
  uint32_t words[kQueues] = {};
  bool fits(const QueueRoom& room) const {
    uint32_t sum = 0;
    for (uint32_t w : words) {
      if (w > room.words) return false;
      sum += w;
    }
    return !room.shared || sum <= room.words;
  }
};
inline Demand demand_on(const Plan& plan, TileId tile) {
  Demand d;
  for (TileId t = 0; t < plan.tiles; ++t)
    if (t != tile && plan.via[t] == tile) {
      d.words[kRequests] += plan.packet_words * (plan.is_relay[t] ? plan.forwards : plan.depth);
    }
  if (plan.is_relay[tile]) d.words[kControl] = kCreditWords * plan.forwards;
  if (plan.is_client(tile)) {
    d.words[kReplies] = shm::kFramedWords * plan.depth;
    d.words[kDoorbells] = kBellWords * plan.clients;  // the others, and the root
  }
  return d;
}

// Why a plan must not be run, or null.
inline const char* complaint_about(const Plan& plan, const QueueRoom& room) {
  if (plan.tiles > kMostTiles || plan.root >= plan.tiles) return "no such tiles";
  if (plan.packet_words == 0 || plan.packet_words > shm::kFramedWords) return "a request has 1 to 8 words";
  if (plan.depth == 0 || plan.depth > kMostDepth) return "a client has 1 to 16 credits";
  if (plan.relays != 0 && plan.forwards == 0) return "a relay without credits";
  uint32_t clients = 0, relays = 0;
  for (TileId t = 0; t < plan.tiles; ++t) {
    const TileId via = plan.via[t];
    if (via >= plan.tiles) return "a client's requests go to no tile";
    if (plan.is_relay[t] && (via != plan.root || t == plan.root)) return "a relay sends elsewhere than to the root";
    if (plan.is_client(t) && via != plan.root && !plan.is_relay[via]) return "a client's requests go to a client";
    clients += plan.is_client(t);
    relays += plan.is_relay[t];
    if (!demand_on(plan, t).fits(room)) return "credits x words are more than a queue holds";
  }
  return clients == plan.clients && relays == plan.relays ? nullptr : "clients or relays do not add up";
}

// What is asked of a plan.
struct Wish {
  uint32_t width = 0, height = 0;
  uint32_t clients = 0;
  QueueRoom room;
  uint32_t relays = kChosen;
  uint32_t packet_words = kChosen;
  uint32_t depth = kChosen;
  static constexpr uint32_t kChosen = ~0u;
};
// The plan for it, or why there is none.
const char* make_plan(const Wish& wish, Plan& plan);

}  // namespace sluice::tilera
