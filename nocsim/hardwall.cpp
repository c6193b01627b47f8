// Rectangles of tiles that packets cannot leave, and how such a rectangle is emptied.
#include <stdexcept>

#include "nocsim/mesh.h"

namespace nocsim {

HardwallId Mesh::create_hardwall(const Rectangle& r) {
  const Config& c = config();
  if (r.width < 1 || r.height < 1 || !c.holds({r.x, r.y}) ||
      !c.holds({r.x + r.width - 1, r.y + r.height - 1}))
    throw std::invalid_argument("the hardwall does not lie in the mesh");
  for (const Hardwall& other : hardwalls_)
    if (other.exists && other.rectangle.overlaps(r))
      throw std::invalid_argument("hardwalls may not overlap");

  Hardwall wall{.rectangle = r};
  for (int y = r.y; y < r.y + r.height; ++y)
    for (int x = r.x; x < r.x + r.width; ++x) {
      const Node member = c.node_at({x, y});
      wall.members.push_back(member);
      for (int port = 0; port < kLocal; ++port) {
        const Place outside = step_from({x, y}, port);
        if (r.holds(outside) || !c.holds(outside)) continue;
        wall.edges.emplace_back(member, port);
        wall.edges.emplace_back(c.node_at(outside), opposite(port));
      }
    }
  for (const auto& [node, port] : wall.edges) network_.raise_wall(node, port);
  hardwalls_.push_back(std::move(wall));
  return static_cast<HardwallId>(hardwalls_.size() - 1);
}

std::optional<HardwallId> Mesh::hardwall_of(Node node) const {
  for (size_t i = 0; i < hardwalls_.size(); ++i)
    if (hardwalls_[i].exists && hardwalls_[i].rectangle.holds(config().place_of(node)))
      return static_cast<HardwallId>(i);
  return std::nullopt;
}

// The rectangle that the packet is in answers for it; if it is in none, the one that it wants to
// enter hears of it.
void Mesh::deliver_faults() {
  if (!network_.has_faults()) return;
  for (const WallFault& fault : network_.take_faults()) {
    std::optional<HardwallId> id = hardwall_of(fault.node);
    if (!id)
      id = hardwall_of(config().node_at(step_from(config().place_of(fault.node), fault.port)));
    if (!id) continue;
    hardwalls_[*id].faults.push_back(fault);
    for (Node member : hardwalls_[*id].members) {
      if (!is_running(member)) continue;
      tiles_[member].fault = fault;
      ready_.add(member);
    }
  }
}

void Mesh::drain_members() {
  for (Node member : torn_down_->members) {
    Tile& tile = *tiles_[member].tile;
    if (tile.words_left_ > 0 && network_.vcs_with_room(member) & bit(tile.vc_)) {
      --tile.words_left_;
      network_.inject(member, tile.vc_, Flit(tile.packet_, tile.words_left_ == 0), 0);
      ++teardown_.zeros_sent;
    }
    if (tiles_[member].endpoint.drain_one()) ++teardown_.words_drained;
  }
}

bool Mesh::is_empty(const Hardwall& wall) const {
  for (Node member : wall.members) {
    const Endpoint& endpoint = tiles_[member].endpoint;
    if (tiles_[member].tile->words_left_ || endpoint.words() || endpoint.is_open() ||
        network_.flits_at(member))
      return false;
  }
  return true;
}

Teardown Mesh::tear_down(HardwallId id, Cycle limit) {
  // By index: programs of others may create hardwalls meanwhile.
  for (Node member : hardwalls_[id].members) stop(member);
  for (const auto& [node, port] : hardwalls_[id].edges)
    if (hardwalls_[id].rectangle.holds(config().place_of(node))) network_.discard_stuck(node, true);

  teardown_ = {};
  const Cycle begun = cycle();
  const uint64_t discarded = network_.discarded_flits();
  // Empty, and still so when the last credits are back: drained twice with a barrier between.
  for (Cycle empty_for = 0; empty_for <= network_.longest_delay() && cycle() - begun < limit;) {
    torn_down_ = &hardwalls_[id];
    step();
    empty_for = is_empty(hardwalls_[id]) ? empty_for + 1 : 0;
  }
  torn_down_ = nullptr;
  teardown_.complete = is_empty(hardwalls_[id]);
  teardown_.cycles = cycle() - begun;
  teardown_.flits_discarded = network_.discarded_flits() - discarded;
  if (!teardown_.complete) return teardown_;
  hardwalls_[id].exists = false;
  for (const auto& [node, port] : hardwalls_[id].edges) {
    network_.discard_stuck(node, false);
    // A neighbour's wall may be the same one.
    const Node other = config().node_at(step_from(config().place_of(node), port));
    if (!hardwall_of(node) && !hardwall_of(other)) network_.lower_wall(node, port);
  }
  return teardown_;
}

}  // namespace nocsim
