// The parts of Network that every hop of every flit goes through, to be inlined.
#pragma once

#include "nocsim/network.h"

namespace nocsim {

inline Flit Network::front(Node node, int vc) const {
  const size_t i = index(node, vc);
  return flits_[(i << depth_shift_) + (inputs_[i].head & depth_mask_)];
}

inline void Network::schedule(Wheel& wheel, Cycle at, Node node, uint64_t bits) {
  const Cycle slot = at & wheel_mask_;
  wheel.words[slot * routers_.size() + node] |= bits;
  wheel.nodes[slot].add(node);
}

inline int Network::route(Node node, const Packet& packet) const {
  const Place here = places_[node];
  const int horizontal = packet.to_x > here.x ? kEast : packet.to_x < here.x ? kWest : kLocal;
  const int vertical = packet.to_y > here.y ? kSouth : packet.to_y < here.y ? kNorth : kLocal;
  if (config_.order == Order::kXY) return horizontal != kLocal ? horizontal : vertical;
  return vertical != kLocal ? vertical : horizontal;
}

inline void Network::head_at_front(Node node, int vc, Cycle from) {
  Router& router = routers_[node];
  Input& input = inputs_[index(node, vc)];
  const PacketId packet = front(node, vc).packet();
  const int port = route(node, packets_[packet]);
  input.route = static_cast<uint8_t>(port);
  if (router.walls >> port & 1) {
    router.stuck |= bit(vc);
    faults_.push_back({node, port, packet, cycle_});
    return;
  }
  const int came_from = port_of_[vc];
  const bool turns =
      is_link(came_from) && is_link(port) && is_horizontal(came_from) != is_horizontal(port);
  const Cycle at = from + routing_delay_ + (turns ? config_.turn_delay : 0);
  if (at == from)
    router.waiting |= bit(vc);
  else
    schedule(head_wheel_, at, node, bit(vc));
}

inline void Network::push(Node node, int vc, Flit flit, uint64_t word) {
  const size_t i = index(node, vc);
  const size_t at = (i << depth_shift_) + (inputs_[i].tail++ & depth_mask_);
  flits_[at] = flit;
  if (carries_words_) words_[at] = word;
}

inline Flit Network::pop(size_t i) {
  Input& input = inputs_[i];
  const Flit flit = flits_[(i << depth_shift_) + (input.head++ & depth_mask_)];
  --input.visible;
  input.since = static_cast<uint32_t>(cycle_);
  last_move_ = cycle_;
  return flit;
}

// The credit goes to whoever feeds that VC: the router behind the link, or for the local input the
// node, or for ejected flits the router itself.
inline void Network::return_credit(Node node, int vc) {
  const int port = port_of_[vc];
  schedule(credit_wheel_, cycle_ + credit_flight_, neighbours_[node * kSides + port],
           bit(vc + to_other_side_[port]));
}

}  // namespace nocsim
