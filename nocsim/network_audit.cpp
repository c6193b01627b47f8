// What the network looks like from outside: occupancy, stalls, and whether its books balance.
#include <algorithm>

#include "nocsim/network_hot.h"

namespace nocsim {

void Network::reset_link_counts() { std::fill(link_counts_.begin(), link_counts_.end(), 0); }

uint64_t Network::flits_at(Node node) const {
  uint64_t flits = 0;
  for (int vc = 0; vc < stride_; ++vc) {
    const Input& input = inputs_[index(node, vc)];
    flits += static_cast<uint16_t>(input.tail - input.head);
  }
  return flits;
}

std::vector<Stall> Network::stalls(Cycle at_least) const {
  std::vector<Stall> found;
  for (Node node = 0; node < routers_.size(); ++node)
    for (int vc = 0; vc < stride_; ++vc) {
      const Input& input = inputs_[index(node, vc)];
      if (!input.visible) continue;
      const uint32_t waited = static_cast<uint32_t>(cycle_) - input.since;
      if (waited < at_least) continue;
      found.push_back({node, vc / vcs_, vc % vcs_, front(node, vc).packet(), cycle_ - waited});
    }
  return found;
}

std::string Network::audit() const {
  const auto say = [&](const char* what, Node node, int port, int vc) {
    return std::string(what) + " at node " + std::to_string(node) + ", port " +
           std::to_string(port) + ", VC " + std::to_string(vc) + ", cycle " +
           std::to_string(cycle_);
  };
  uint64_t flits = 0;
  for (Node node = 0; node < routers_.size(); ++node) {
    const Router& router = routers_[node];
    flits += flits_at(node);
    if (router.waiting & router.active) return say("a VC both waits and has an output", node, 0, 0);
    if (router.has_credit & ~router.active) return say("a credit without an output", node, 0, 0);
    for (int port = 0; port < kSides; ++port)
      for (int vc = 0; vc < vcs_; ++vc) {
        const Node next = neighbours_[node * kSides + port];
        if (is_link(port) && next == node) continue;  // the edge of the mesh
        const int out = port * vcs_ + vc;
        const Output& output = outputs_[index(node, out)];
        const int there = opposite_side(port);
        const Input& fed = inputs_[index(next, there * vcs_ + vc)];
        int on_their_way = 0;
        for (Cycle slot = 0; slot <= wheel_mask_; ++slot)
          on_their_way += credit_wheel_.words[slot * routers_.size() + node] >> out & 1;
        const int depth = port == kLocal ? config_.eject_depth : config_.depth;
        const int used = static_cast<uint16_t>(fed.tail - fed.head);
        if (output.credits + used + on_their_way != depth)
          return say("credits are lost or made", node, port, vc);
        if (port == kNodeSide) continue;
        const bool owned = !(router.free & bit(out)) && !(router.emptying & bit(out));
        const Input& owner = inputs_[index(node, output.owner)];
        if (owned && !(router.active & bit(output.owner) && owner.out == out))
          return say("an output VC without an owner", node, port, vc);
        if (owned && (output.credits > 0) != (router.has_credit >> output.owner & 1))
          return say("a credit that its owner does not know of", node, port, vc);
      }
  }
  if (flits != flits_inside()) return "flits are lost or made, cycle " + std::to_string(cycle_);
  return {};
}

}  // namespace nocsim
