// With Tilera's library only, or with what stands in for it in a test.
#if __has_include(<tmc/udn.h>)

#include "tilera/tilegx/tmc.h"

#include "tilera/tilegx_noc.h"

namespace sluice::tilera {

void begin_on_tile(TileGxNoc& noc, TileId here, uint32_t tiles) { noc.init(here, tiles, tmc_header); }

}  // namespace sluice::tilera

#endif
