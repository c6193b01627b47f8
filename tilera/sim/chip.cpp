#include "tilera/sim/chip.h"

#include <sys/mman.h>

#include <new>

namespace sluice::tilera {
namespace {

QueueRoom room_of(const nocsim::Config& mesh) { return {uint32_t(mesh.queue_words), mesh.queues_share}; }

const nocsim::Config& checked(const nocsim::Config& mesh, const Plan& plan) {
  const char* complaint = uint32_t(mesh.nodes()) != plan.tiles ? "the plan is for another mesh" : complaint_about(plan, room_of(mesh));
  if (complaint != nullptr) throw std::invalid_argument(complaint);
  return mesh;
}

}  // namespace

template <class T>
Zeroed<T>::Zeroed() : memory_(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
}
template <class T>
Zeroed<T>::~Zeroed() {
  munmap(memory_, sizeof(T));
}
template class Zeroed<SharedMemory>;
template class Zeroed<core::CoordinatorCore>;
template class Zeroed<PairRegion>;

Chip::Chip(const nocsim::Config& mesh, const Plan& plan) : plan_(plan), mesh_(checked(mesh, plan)) {
  for (TileId t = 0; t < plan_.tiles; ++t) {
    if (plan_.is_client(t)) clients_.push_back(t);
    if (plan_.is_relay[t])
      mesh_.start(
          t,
          [this](nocsim::Tile& tile) {
            SimNoc noc(tile);
            RelayTile<SimNoc>(noc, plan_).run();
          },
          true);
  }
  coordinators_noc_ = std::make_unique<SimNoc>(mesh_.tile(plan_.root));
  coordinator_ = std::make_unique<CoordinatorTile<SimNoc>>(*coordinators_noc_, plan_, *memory_, *core_);
  mesh_.start(
      plan_.root,
      [this](nocsim::Tile&) {
        for (;;) {
          coordinator_->serve();
          for (TileId t : std::exchange(ended_, {})) coordinator_->depart(t);
        }
      },
      true);
}

Chip::~Chip() = default;

shm::PairView Chip::region(TileId writer, TileId reader) {
  auto& region = regions_[{writer, reader}];
  if (region == nullptr) region = std::make_unique<Zeroed<PairRegion>>();
  return {(*region)->bytes};
}

void Chip::start(TileId client, Program program) {
  mesh_.start(client, [this, program = std::move(program)](nocsim::Tile& tile) {
    SimNoc noc(tile);
    Client c(noc, plan_, *memory_);
    program(c);
  });
}

}  // namespace sluice::tilera
