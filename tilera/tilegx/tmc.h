// Where the headers of packets come from on a TILE-Gx with Tilera's library, whose layout of them is not public.
#pragma once

#include <tmc/udn.h>

#include "tilera/noc.h"

namespace sluice::tilera {

// For TileGxNoc::init(), after tmc_udn_init(), and after tmc_udn_activate() in this thread.
inline Word tmc_header(TileId to, Queue queue) {
  constexpr unsigned long kDemux[kQueues] = {UDN0_DEMUX_TAG, UDN1_DEMUX_TAG, UDN2_DEMUX_TAG, UDN3_DEMUX_TAG};
  DynamicHeader header = tmc_udn_header_from_cpu(int(to));
  header.bits.demux = kDemux[queue];
  return header.word;
}

}  // namespace sluice::tilera
