// What a router decides in a cycle. Both allocators are separable and ask the input side first;
// a round-robin position moves past a winner, and stays where the request was in vain.
#include "nocsim/network_hot.h"

namespace nocsim {

Network::Allocate Network::allocator_for(Arbitration by) {
  switch (by) {
    case Arbitration::kOldest:
      return &Network::allocate<Arbitration::kOldest>;
    case Arbitration::kFixed:
      return &Network::allocate<Arbitration::kFixed>;
    default:
      return &Network::allocate<Arbitration::kRoundRobin>;
  }
}

template <Arbitration kBy>
void Network::allocate(Node node) {
  Router& router = routers_[node];
  const uint64_t waiting = router.waiting, free = router.free;
  if (together_) {
    if (waiting) allocate_vcs<kBy>(node, waiting, free);
    if (router.filled & router.has_credit) allocate_switch<kBy>(node);
    return;
  }
  if (router.filled & router.has_credit) allocate_switch<kBy>(node);
  if (waiting) allocate_vcs<kBy>(node, waiting, free);
}

// Who of these input VCs comes first.
template <Arbitration kBy>
int Network::choose(Node node, uint64_t vcs, int next) const {
  if constexpr (kBy == Arbitration::kRoundRobin) return round_robin(vcs, next);
  if constexpr (kBy == Arbitration::kFixed) return lowest(vcs);
  int oldest = lowest(vcs);
  for_each_bit(vcs & (vcs - 1), [&](int vc) {
    if (packets_[front(node, vc).packet()].created < packets_[front(node, oldest).packet()].created)
      oldest = vc;
  });
  return oldest;
}

template <Arbitration kBy>
void Network::allocate_vcs(Node node, uint64_t waiting, uint64_t free) {
  Router& router = routers_[node];
  const size_t base = index(node, 0);
  uint64_t requests[kPorts * kMaxVcs];  // by output VC
  uint64_t wanted = 0;
  for_each_bit(waiting, [&](int vc) {
    const Input& input = inputs_[base + vc];
    const uint64_t possible = free & vc_mask_ << (input.route * vcs_);
    if (!possible) return;
    const int out =
        kBy == Arbitration::kRoundRobin ? round_robin(possible, input.vc_next) : lowest(possible);
    if (!(wanted & bit(out))) requests[out] = 0;
    requests[out] |= bit(vc);
    wanted |= bit(out);
  });
  const int all = kPorts * vcs_;
  for_each_bit(wanted, [&](int out) {
    Output& output = outputs_[base + out];
    const int vc = choose<kBy>(node, requests[out], output.next);
    Input& input = inputs_[base + vc];
    input.out = static_cast<uint8_t>(out);
    input.vc_next = static_cast<uint8_t>(out + 1 == all ? 0 : out + 1);
    output.owner = static_cast<uint8_t>(vc);
    output.next = static_cast<uint8_t>(vc + 1 == all ? 0 : vc + 1);
    router.free &= ~bit(out);
    router.waiting &= ~bit(vc);
    router.active |= bit(vc);
    if (output.credits) router.has_credit |= bit(vc);
  });
}

// The one VC of an input port that asks for the switch: for each output in reach the VC whose turn
// it is, then the output whose turn it is.
template <Arbitration kBy>
int Network::candidate_of(Node node, int port, uint64_t vcs) const {
  if (!(vcs & (vcs - 1))) return lowest(vcs);
  const Router& router = routers_[node];
  const int first = port * vcs_;
  if constexpr (kBy != Arbitration::kRoundRobin) return choose<kBy>(node, vcs, 0);
  const size_t base = index(node, 0);
  if (vcs_ == 2) {
    const int turn = first + router.vc_next[port], other = 2 * first + 1 - turn;
    const int out = inputs_[base + turn].route, others = inputs_[base + other].route;
    if (out == others) return turn;
    // Of two outputs the one that comes first from the position on, going round.
    const int next = router.input_next[port];
    const auto steps = [next](int to) { return to >= next ? to - next : to - next + kPorts; };
    return steps(out) < steps(others) ? turn : other;
  }
  int by_output[kPorts];
  uint64_t outputs = 0;
  const int turn = first + router.vc_next[port];
  const uint64_t before = vcs & (bit(turn) - 1);
  for (const uint64_t part : {vcs & ~before, before})
    for_each_bit(part, [&](int vc) {
      const int out = inputs_[base + vc].route;
      if (outputs & bit(out)) return;
      outputs |= bit(out);
      by_output[out] = vc;
    });
  return by_output[round_robin(outputs, router.input_next[port])];
}

template <Arbitration kBy>
void Network::allocate_switch(Node node) {
  Router& router = routers_[node];
  const size_t base = index(node, 0);
  uint64_t requests[kPorts];  // by output port, input VCs
  uint64_t wanted = 0;
  for (uint64_t rest = router.filled & router.has_credit; rest;) {
    const int port = port_of_[lowest(rest)];
    const uint64_t of_port = vc_mask_ << (port * vcs_);
    const int vc = candidate_of<kBy>(node, port, rest & of_port);
    rest &= ~of_port;
    const int out = inputs_[base + vc].route;
    if (!(wanted & bit(out))) requests[out] = 0;
    requests[out] |= bit(vc);
    wanted |= bit(out);
  }
  for_each_bit(wanted, [&](int out) {
    const int vc = choose<kBy>(node, requests[out], router.output_next[out] * vcs_);
    const int port = port_of_[vc];
    router.output_next[out] = static_cast<uint8_t>(port + 1 == kPorts ? 0 : port + 1);
    router.input_next[port] = static_cast<uint8_t>(out + 1 == kPorts ? 0 : out + 1);
    const int in_port = vc - port * vcs_;
    router.vc_next[port] = static_cast<uint8_t>(in_port + 1 == vcs_ ? 0 : in_port + 1);
    cross(node, vc);
  });
}

void Network::cross(Node node, int vc) {
  Router& router = routers_[node];
  const size_t i = index(node, vc);
  Input& input = inputs_[i];
  const int port = input.route, out = input.out;
  const uint64_t word =
      carries_words_ ? words_[(i << depth_shift_) + (input.head & depth_mask_)] : 0;
  const Flit flit = pop(i);
  return_credit(node, vc);
  if (!input.visible) router.filled &= ~bit(vc);
  Output& output = outputs_[index(node, out)];
  if (--output.credits == 0) router.has_credit &= ~bit(vc);

  const int next_vc = out + to_other_side_[port];
  const Node next = neighbours_[node * kSides + port];
  push(next, next_vc, flit, word);
  schedule(flit_wheel_, cycle_ + flight_, next, bit(next_vc));
  ++link_counts_[node * kPorts + port];
  ++hops_;
  if (tracer_ && packets_[flit.packet()].tag)
    tracer_->moved(packets_[flit.packet()], flit.is_tail(), node, port, cycle_, cycle_ + flight_);

  if (!flit.is_tail()) return;
  router.active &= ~bit(vc);
  router.has_credit &= ~bit(vc);
  if (config_.reuse == Reuse::kAfterTail)
    router.free |= bit(out);
  else
    router.emptying |= bit(out);
  if (input.visible) head_at_front(node, vc, cycle_ + 1);
}

}  // namespace nocsim
