// Who talks to whom. The tiles are divided into as few pipelines as the queues have room for; within one, every driver tile talks to
// every stack tile, and every stack tile to every application tile.
//
// Who may have how much under way: a driver has `packets` requests at each stack tile, a stack tile `calls` at each application tile.
// What comes back for each has its place from the start, so no send ever waits for who does not take. Of one request under way
// between two tiles, in one direction, there are at most a message of two words, and before it one of a word that hands a
// buffer back: it is older than the next message between the two, and packets of a pair arrive in order. A stack tile asks the coordinator
// about one connection at a time, in a word.
#pragma once

#include <cstdint>
#include <vector>

#include "tilera/dlibos/model.h"
#include "tilera/noc.h"

namespace sluice::tilera::dlibos {

inline constexpr uint32_t kWordsUnderWay = 3;
inline constexpr uint32_t kMostUnderWay = 8;

struct Pipeline {
  std::array<std::vector<TileId>, kRoles> tiles;
  uint32_t packets = 0, calls = 0;
  Split split() const;
};

// Words that may wait at a tile of that role; at a stack tile with one for the coordinator's answer.
uint32_t words_at(Role role, const Split& split, uint32_t packets, uint32_t calls);
// How much may be under way with so many words' room; no packets if there is none.
Pipeline with_credits(const Split& split, uint32_t room);
// The split of each pipeline; empty if no number of them will do, or the coordinator's queue has not a word for each stack tile. Roles are dealt out evenly.
std::vector<Split> divide(const Split& split, uint32_t room);
// The tile of the coordinator, if there is one: the last.
TileId coordinator_of(const nocsim::Config& mesh);
// With tiles: each pipeline has a run of them, row by row, with its drivers first, then its stack. Throws std::invalid_argument.
std::vector<Pipeline> make_pipelines(const nocsim::Config& mesh, const Split& split);

// Requests for each cycle that no run with this split exceeds: the slowest role's tiles, of whose work only what is certain is counted.
double bound(const Setting& setting, const Split& split);
// Cycles that a request takes at the tiles of that role at least.
double least_cycles(const Setting& setting, Role role);

}  // namespace sluice::tilera::dlibos
