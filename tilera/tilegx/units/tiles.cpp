// The programs of tiles, whole.
#include "tilera/client_tile.h"
#include "tilera/connection.h"
#include "tilera/coordinator_tile.h"
#include "tilera/relay_tile.h"
#include "tilera/tilegx_noc.h"

namespace sluice::tilera {

template class CoordinatorTile<TileGxNoc>;
template class RelayTile<TileGxNoc>;
template class ClientTile<TileGxNoc>;
template class Doorbells<TileGxNoc>;
template class Connection<TileGxNoc>;
template class DirectoryWriter<TileGxNoc>;

// As docs/tilera.md has it, for all but clients.
const char* run_tile(TileGxNoc& noc, Plan& plan, SharedMemory& memory, core::CoordinatorCore& core) {
  if (const char* complaint = make_plan({.width = 6, .height = 6, .clients = 35}, plan)) return complaint;
  if (noc.here() == plan.root) CoordinatorTile(noc, plan, memory, core).run();
  if (plan.is_relay[noc.here()]) RelayTile(noc, plan).run();
  return nullptr;
}

}  // namespace sluice::tilera
