// A simulated chip with a coordinator, relays if its plan has any, and programs on the tiles of its clients.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "nocsim/mesh.h"
#include "tilera/client_tile.h"
#include "tilera/coordinator_tile.h"
#include "tilera/relay_tile.h"
#include "tilera/sim_noc.h"

namespace sluice::tilera {

// What a tile tells another one, besides the network.
struct PairRegion {
  alignas(shm::kPageBytes) std::byte bytes[shm::kPairBytes];
};

// Memory of zeros that is there only where it is touched.
template <class T>
class Zeroed {
 public:
  Zeroed();
  ~Zeroed();
  Zeroed(const Zeroed&) = delete;
  Zeroed& operator=(const Zeroed&) = delete;
  T& operator*() const { return *static_cast<T*>(memory_); }
  T* operator->() const { return static_cast<T*>(memory_); }

 private:
  void* memory_;
};

class Chip {
 public:
  using Client = ClientTile<SimNoc>;
  using Program = std::function<void(Client&)>;

  // Throws std::invalid_argument for a plan that must not be run on that mesh.
  Chip(const nocsim::Config& mesh, const Plan& plan);
  ~Chip();

  nocsim::Mesh& mesh() { return mesh_; }
  const Plan& plan() const { return plan_; }
  SharedMemory& memory() { return *memory_; }
  // The region from one tile to another.
  shm::PairView region(TileId writer, TileId reader);
  // The tiles of the clients, in order.
  const std::vector<TileId>& clients() const { return clients_; }
  void start(TileId client, Program program);
  // To the coordinator that tile's program has ended, when it next answers somebody: what an operating system would tell it.
  void end(TileId client) { ended_.push_back(client); }
  // Until the programs have ended, or for so many cycles.
  nocsim::Outcome run(nocsim::Cycle cycles = nocsim::Mesh::kForever) { return mesh_.run(cycles); }
  uint64_t requests() const { return coordinator_->requests(); }
  uint64_t strangers() const { return coordinator_->strangers(); }

 private:
  Plan plan_;
  Zeroed<SharedMemory> memory_;
  Zeroed<core::CoordinatorCore> core_;
  std::map<std::pair<TileId, TileId>, std::unique_ptr<Zeroed<PairRegion>>> regions_;
  std::vector<TileId> clients_;
  std::vector<TileId> ended_;
  std::unique_ptr<SimNoc> coordinators_noc_;
  std::unique_ptr<CoordinatorTile<SimNoc>> coordinator_;
  nocsim::Mesh mesh_;  // last: its programs, which it ends, use the rest
};

}  // namespace sluice::tilera
