// What a message costs by itself over each kind of queue, to be held against what was measured on a TILEPro64.
#pragma once

#include "tilera/dlibos/model.h"

namespace sluice::tilera::dlibos {

// Half of the cycles that a message and its answer take between two tiles that are so many hops apart in a row, where the one that answers
// is the receiver of `senders` tiles, and all but one of these are silent. Throws std::invalid_argument where the mesh has no such tiles.
double half_round_trip(const Setting& setting, uint32_t hops, uint32_t senders);

}  // namespace sluice::tilera::dlibos
