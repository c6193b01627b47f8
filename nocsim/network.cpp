#include <algorithm>

#include "nocsim/network_hot.h"

namespace nocsim {

Network::Network(const Config& config, bool carries_words)
    : config_(config),
      vcs_(config.vcs),
      stride_(kSides * config.vcs),
      vc_mask_(bit(config.vcs) - 1),
      carries_words_(carries_words),
      together_(config.router_stages == 1),
      flight_(config.flight()),
      credit_flight_(config.credit_flight()),
      routing_delay_(config.routing_delay()),
      allocate_(allocator_for(config.arbitration)) {
  const auto nodes = static_cast<uint32_t>(config.nodes());
  const auto deepest = static_cast<uint32_t>(std::max(config.depth, config.eject_depth));
  depth_mask_ = std::bit_ceil(deepest) - 1;
  depth_shift_ = std::bit_width(depth_mask_);
  routers_.resize(nodes);
  inputs_.resize(size_t{nodes} * stride_);
  outputs_.resize(size_t{nodes} * stride_);
  flits_.resize(inputs_.size() << depth_shift_);
  if (carries_words_) words_.resize(flits_.size());
  link_counts_.resize(size_t{nodes} * kPorts);
  places_.resize(nodes);
  neighbours_.resize(size_t{nodes} * kSides);

  const int longest = std::max({flight_, credit_flight_, routing_delay_ + config.turn_delay + 1});
  const auto cycles = std::bit_ceil(static_cast<uint32_t>(longest + 1));
  wheel_mask_ = cycles - 1;
  for (Wheel* wheel : {&flit_wheel_, &credit_wheel_, &head_wheel_}) {
    wheel->words.resize(size_t{cycles} * nodes);
    wheel->nodes.assign(cycles, NodeSet(nodes));
  }
  busy_ = ejected_nodes_ = discarding_ = NodeSet(nodes);

  for (int port = 0; port < kSides; ++port) {
    to_other_side_[port] = (opposite_side(port) - port) * vcs_;
    for (int vc = 0; vc < vcs_; ++vc) port_of_[port * vcs_ + vc] = static_cast<uint8_t>(port);
  }
  for (Node n = 0; n < nodes; ++n) {
    places_[n] = config.place_of(n);
    Router& router = routers_[n];
    for (int port = 0; port < kSides; ++port) {
      const Place next = step_from(places_[n], port);
      const bool exists = !is_link(port) || config.holds(next);
      neighbours_[n * kSides + port] = exists ? config.node_at(next) : n;
      const int depth = port == kLocal ? config.eject_depth : config.depth;
      for (int vc = 0; vc < vcs_; ++vc)
        outputs_[index(n, port * vcs_ + vc)].credits = static_cast<uint16_t>(exists ? depth : 0);
      if (exists && port != kNodeSide) router.free |= vc_mask_ << (port * vcs_);
    }
  }
}

template <typename F>
void Network::arrive(Wheel& wheel, F&& f) {
  const Cycle slot = cycle_ & wheel_mask_;
  uint64_t* words = &wheel.words[slot * routers_.size()];
  wheel.nodes[slot].drain([&](Node node) {
    const uint64_t bits = words[node];
    words[node] = 0;
    f(node, bits);
  });
}

void Network::begin_cycle() {
  arrive(credit_wheel_, [&](Node node, uint64_t vcs) { credits_arrive(node, vcs); });
  arrive(flit_wheel_, [&](Node node, uint64_t vcs) { flits_arrive(node, vcs); });
  arrive(head_wheel_, [&](Node node, uint64_t vcs) { routers_[node].waiting |= vcs; });
}

void Network::end_cycle() {
  busy_.for_each([&](Node node) {
    (this->*allocate_)(node);
    if (!routers_[node].filled) busy_.remove(node);
  });
  discarding_.for_each([&](Node node) { discard(node); });
  ++cycle_;
}

void Network::flits_arrive(Node node, uint64_t vcs) {
  Router& router = routers_[node];
  const uint64_t inside = vcs & (bit(kNodeSide * vcs_) - 1);
  for_each_bit(vcs, [&](int vc) {
    Input& input = inputs_[index(node, vc)];
    if (input.visible++ == 0) input.since = static_cast<uint32_t>(cycle_);
  });
  if (const uint64_t ejected = vcs >> (kNodeSide * vcs_)) {
    router.ejected |= ejected;
    ejected_nodes_.add(node);
  }
  if (!inside) return;
  const uint64_t begun = inside & ~router.filled & ~router.active & ~router.stuck;
  router.filled |= inside;
  busy_.add(node);
  for_each_bit(begun, [&](int vc) { head_at_front(node, vc, cycle_); });
}

void Network::credits_arrive(Node node, uint64_t vcs) {
  Router& router = routers_[node];
  for_each_bit(vcs, [&](int vc) {
    Output& output = outputs_[index(node, vc)];
    ++output.credits;
    const uint64_t it = bit(vc);
    if (router.emptying & it) {
      const int depth = vc / vcs_ == kLocal ? config_.eject_depth : config_.depth;
      if (output.credits == depth) {
        router.emptying &= ~it;
        router.free |= it;
      }
    } else if (output.credits == 1 && vc < kNodeSide * vcs_ && !(router.free & it)) {
      router.has_credit |= bit(output.owner);
    }
  });
}

uint64_t Network::vcs_with_room(Node node) const {
  uint64_t room = 0;
  for (int vc = 0; vc < vcs_; ++vc)
    if (outputs_[index(node, kNodeSide * vcs_ + vc)].credits) room |= bit(vc);
  return room;
}

void Network::inject(Node node, int vc, Flit flit, uint64_t word) {
  --outputs_[index(node, kNodeSide * vcs_ + vc)].credits;
  push(node, kLocal * vcs_ + vc, flit, word);
  flits_arrive(node, bit(kLocal * vcs_ + vc));
  ++injected_flits_;
  last_move_ = cycle_;
}

Flit Network::arrival(Node node, int vc) const { return front(node, kNodeSide * vcs_ + vc); }

uint64_t Network::arrived_word(Node node, int vc) const {
  const size_t i = index(node, kNodeSide * vcs_ + vc);
  return words_[(i << depth_shift_) + (inputs_[i].head & depth_mask_)];
}

Flit Network::take(Node node, int vc) {
  const int from = kNodeSide * vcs_ + vc;
  const Flit flit = pop(index(node, from));
  if (!inputs_[index(node, from)].visible) {
    routers_[node].ejected &= ~bit(vc);
    if (!routers_[node].ejected) ejected_nodes_.remove(node);
  }
  return_credit(node, from);
  ++taken_flits_;
  return flit;
}

}  // namespace nocsim
