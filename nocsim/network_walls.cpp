// Walls between routers: links that no packet may begin to cross.
#include "nocsim/network_hot.h"

namespace nocsim {

void Network::raise_wall(Node node, int port) {
  Router& router = routers_[node];
  router.walls |= static_cast<uint8_t>(1 << port);
  for_each_bit(router.filled & ~router.active & ~router.stuck, [&](int vc) {
    if (inputs_[index(node, vc)].route != port) return;
    router.waiting &= ~bit(vc);
    for (Cycle slot = 0; slot <= wheel_mask_; ++slot)
      head_wheel_.words[slot * routers_.size() + node] &= ~bit(vc);
    router.stuck |= bit(vc);
    faults_.push_back({node, port, front(node, vc).packet(), cycle_});
  });
}

void Network::lower_wall(Node node, int port) {
  Router& router = routers_[node];
  router.walls &= static_cast<uint8_t>(~(1 << port));
  for_each_bit(router.stuck, [&](int vc) {
    if (inputs_[index(node, vc)].route != port) return;
    router.stuck &= ~bit(vc);
    head_at_front(node, vc, cycle_);
  });
}

void Network::discard_stuck(Node node, bool discards) {
  if (discards)
    discarding_.add(node);
  else
    discarding_.remove(node);
}

void Network::discard(Node node) {
  Router& router = routers_[node];
  for_each_bit(router.stuck & router.filled, [&](int vc) {
    const Flit flit = pop(index(node, vc));
    const bool more = inputs_[index(node, vc)].visible;
    if (!more) router.filled &= ~bit(vc);
    return_credit(node, vc);
    ++discarded_flits_;
    if (!flit.is_tail()) return;
    packets_.destroy(flit.packet());
    router.stuck &= ~bit(vc);
    if (more) head_at_front(node, vc, cycle_ + 1);
  });
}

}  // namespace nocsim
