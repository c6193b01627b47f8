// The mesh of routers, cycle by cycle.
//
//            input VCs (a FIFO each)                       output VCs (credits, owner)
//   link --> [ | | | ] --+-- VC allocation: which output VC --+--> link --> the next router's FIFO
//   link --> [ | | | ] --+-- switch allocation: who crosses --+--> link
//   node --> [ | | | ] --+   one flit for each input and output +--> node
//
// A cycle is: begin_cycle() (flits and credits arrive), then the node side injects and takes
// flits, then end_cycle() (all routers allocate, time goes on). A flit that wins the switch is put
// into the next FIFO at once, by the only one who writes there, and becomes visible when it
// arrives: a wheel of cycles holds a word of input VCs for each node. So do credits. Everything
// that crosses from one router to another takes a cycle at least, hence the order in which routers
// are served does not matter.
//
// VCs of a router are numbered port * vcs + vc, so that a set of them is one word; port 5 is the
// node side: as an input the FIFO of ejected flits, as an output the node's own credits.
//
// Router stages (config.h): with two or more, switch allocation sees what VC allocation did in
// earlier cycles, so a head needs a cycle for each; with one, what it did in this cycle.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nocsim/bits.h"
#include "nocsim/config.h"
#include "nocsim/packet.h"

namespace nocsim {

// A head that wanted to cross a wall.
struct WallFault {
  Node node;  // where it is stuck
  int port;   // where it wanted to go
  PacketId packet;
  Cycle cycle;
};

// A flit that has been first in its FIFO for long.
struct Stall {
  Node node;
  int port;  // kNodeSide: ejected, and the node does not take it
  int vc;
  PacketId packet;
  Cycle since;
};

// Follows the flits of single packets, for pictures.
class Tracer {
 public:
  virtual ~Tracer() = default;
  // A flit of a packet with a tag leaves `node` through `port` (kLocal: ejected), and arrives then.
  virtual void moved(const Packet& packet, bool is_tail, Node node, int port, Cycle leaves,
                     Cycle arrives) = 0;
};

class Network {
 public:
  // `carries_words`: each flit has a word of payload with it.
  explicit Network(const Config& config, bool carries_words = false);

  const Config& config() const { return config_; }
  Cycle cycle() const { return cycle_; }
  PacketPool& packets() { return packets_; }
  const PacketPool& packets() const { return packets_; }

  void begin_cycle();
  void end_cycle();
  // Nothing is on its way: skips to that cycle.
  void skip_to(Cycle cycle) { cycle_ = cycle; }

  // ---- the node side; between begin_cycle and end_cycle ----
  // The VCs of the local input that have room, as bits 0..vcs-1.
  uint64_t vcs_with_room(Node node) const;
  // At most one flit for each node and cycle. The flits of one VC are whole packets, in order.
  void inject(Node node, int vc, Flit flit, uint64_t word = 0);
  const NodeSet& nodes_with_arrivals() const { return ejected_nodes_; }
  // The VCs with ejected flits that wait for the node, as bits.
  uint64_t arrivals_at(Node node) const { return routers_[node].ejected; }
  Flit arrival(Node node, int vc) const;
  uint64_t arrived_word(Node node, int vc) const;
  // Removes the first one. The packet is the caller's to destroy after its tail.
  Flit take(Node node, int vc);

  // ---- walls ----
  // No packet begins to cross that link any more; those that want to become faults, and stay where
  // they are.
  void raise_wall(Node node, int port);
  // Those that are stuck there go on.
  void lower_wall(Node node, int port);
  bool has_faults() const { return !faults_.empty(); }
  std::vector<WallFault> take_faults() { return std::exchange(faults_, {}); }
  // From now on (or no longer), packets that are stuck at walls of that node are discarded, one
  // flit of each VC in a cycle.
  void discard_stuck(Node node, bool discards);
  uint64_t discarded_flits() const { return discarded_flits_; }

  // ---- what it looks like from outside ----
  uint64_t flits_inside() const { return injected_flits_ - taken_flits_ - discarded_flits_; }
  // Flits in the FIFOs of one router, and on their way to it.
  uint64_t flits_at(Node node) const;
  uint64_t hops() const { return hops_; }
  Cycle last_move() const { return last_move_; }
  // What has left something arrives within so many cycles.
  Cycle longest_delay() const { return wheel_mask_ + 1; }
  // Flits that left the node through that port, since reset_link_counts().
  uint64_t link_count(Node node, int port) const { return link_counts_[node * kPorts + port]; }
  void reset_link_counts();
  std::vector<Stall> stalls(Cycle at_least) const;
  void trace(Tracer* tracer) { tracer_ = tracer; }
  // Checks that credits, flits and owners add up. Empty, or what does not.
  std::string audit() const;

 private:
  struct Router {
    uint64_t filled = 0;      // input VCs with a flit that has arrived
    uint64_t waiting = 0;     // whose first flit is a head without an output VC
    uint64_t active = 0;      // with an output VC
    uint64_t has_credit = 0;  // active ones whose output VC has a credit
    uint64_t free = 0;        // output VCs that no packet has
    uint64_t emptying = 0;    // output VCs whose tail has left and whose credits are not all back
    uint64_t stuck = 0;       // input VCs whose head wants to cross a wall
    uint64_t ejected = 0;     // bits 0..vcs-1
    uint8_t input_next[kPorts] = {};  // round-robin positions of the switch allocator
    uint8_t output_next[kPorts] = {};
    uint8_t vc_next[kPorts] = {};
    uint8_t walls = 0;
  };
  struct Input {
    uint16_t head = 0;
    uint16_t tail = 0;  // head..tail: visible ones first, then those that have not arrived
    uint16_t visible = 0;
    uint8_t route = 0;    // output port of the first packet
    uint8_t out = 0;      // its output VC
    uint32_t since = 0;   // when the first flit became the first
    uint8_t vc_next = 0;  // round-robin position of VC allocation's first half
  };
  struct Output {
    uint16_t credits = 0;
    uint8_t owner = 0;
    uint8_t next = 0;  // round-robin position of VC allocation's second half
  };
  // Words by cycle (modulo) and node.
  struct Wheel {
    std::vector<uint64_t> words;
    std::vector<NodeSet> nodes;
  };

  size_t index(Node node, int vc) const { return size_t{node} * stride_ + vc; }
  Flit front(Node node, int vc) const;
  void schedule(Wheel& wheel, Cycle at, Node node, uint64_t bits);
  template <typename F>
  void arrive(Wheel& wheel, F&& f);

  void flits_arrive(Node node, uint64_t vcs);
  void credits_arrive(Node node, uint64_t vcs);
  void push(Node node, int vc, Flit flit, uint64_t word);
  Flit pop(size_t input);
  void return_credit(Node node, int vc);
  // The first flit of that VC is a head from the cycle `from` on.
  void head_at_front(Node node, int vc, Cycle from);
  int route(Node node, const Packet& packet) const;

  // router.cpp
  using Allocate = void (Network::*)(Node);
  template <Arbitration kBy>
  void allocate(Node node);
  template <Arbitration kBy>
  void allocate_vcs(Node node, uint64_t waiting, uint64_t free);
  template <Arbitration kBy>
  void allocate_switch(Node node);
  template <Arbitration kBy>
  int choose(Node node, uint64_t vcs, int next) const;
  template <Arbitration kBy>
  int candidate_of(Node node, int port, uint64_t vcs) const;
  void cross(Node node, int vc);
  void discard(Node node);
  static Allocate allocator_for(Arbitration by);

  Config config_;
  int vcs_;
  int stride_;  // VCs of a node, the node side included
  uint64_t vc_mask_;
  uint32_t depth_mask_;
  int depth_shift_;
  bool carries_words_;
  uint8_t port_of_[kSides * kMaxVcs];  // by VC
  int to_other_side_[kSides];          // what to add to an output VC for the input VC behind it
  bool together_;
  int flight_;
  int credit_flight_;
  int routing_delay_;
  Allocate allocate_;

  Cycle cycle_ = 0;
  std::vector<Router> routers_;
  std::vector<Input> inputs_;
  std::vector<Output> outputs_;
  std::vector<Flit> flits_;
  std::vector<uint64_t> words_;
  std::vector<Place> places_;
  std::vector<Node> neighbours_;
  std::vector<uint64_t> link_counts_;
  PacketPool packets_;

  Cycle wheel_mask_;
  Wheel flit_wheel_;
  Wheel credit_wheel_;
  Wheel head_wheel_;
  NodeSet busy_;  // with filled input VCs
  NodeSet ejected_nodes_;
  NodeSet discarding_;

  std::vector<WallFault> faults_;
  Tracer* tracer_ = nullptr;
  uint64_t injected_flits_ = 0;
  uint64_t taken_flits_ = 0;
  uint64_t discarded_flits_ = 0;
  uint64_t hops_ = 0;
  Cycle last_move_ = 0;
};

}  // namespace nocsim
