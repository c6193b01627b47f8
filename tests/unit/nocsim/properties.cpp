// What holds for any mesh under any traffic: nothing is lost or made twice, packets of a pair stay
// in order and whole, and credits add up. The words are written by the senders and read by the
// receivers; the network's own counters are only looked at besides.
#include <catch2/catch.hpp>
#include <deque>
#include <map>

#include "nocsim/network.h"
#include "nocsim/random.h"

using namespace nocsim;

namespace {

Config any_config(Random& random) {
  Config c;
  c.width = 1 + static_cast<int>(random.below(5));
  c.height = 1 + static_cast<int>(random.below(5));
  c.order = random.below(2) ? Order::kXY : Order::kYX;
  c.vcs = 1 + static_cast<int>(random.below(kMaxVcs));
  c.depth = 1 + static_cast<int>(random.below(9));
  c.eject_depth = 1 + static_cast<int>(random.below(4));
  c.router_stages = 1 + static_cast<int>(random.below(5));
  c.link_delay = static_cast<int>(random.below(3));
  c.turn_delay = static_cast<int>(random.below(3));
  c.credit_delay = static_cast<int>(random.below(3));
  c.arbitration = static_cast<Arbitration>(random.below(3));
  c.reuse = random.below(2) ? Reuse::kAfterTail : Reuse::kAfterTailCredit;
  return c;
}

struct Word {
  Node from, to;
  uint32_t packet, flit;

  uint64_t packed() const {
    return uint64_t{from} << 52 | uint64_t{to} << 40 | uint64_t{packet} << 16 | flit;
  }
  static Word of(uint64_t w) {
    return {static_cast<Node>(w >> 52), static_cast<Node>(w >> 40 & 0xfff),
            static_cast<uint32_t>(w >> 16 & 0xffffff), static_cast<uint32_t>(w & 0xffff)};
  }
};

// Sends packets between random nodes and checks what arrives.
class Exchange {
 public:
  Exchange(const Config& config, uint64_t seed)
      : network_(config, true),
        random_(seed),
        senders_(config.nodes()),
        receivers_(config.nodes()) {
    load_ = 1 + random_.below(100);
    laziness_ = random_.below(90);
  }

  void run(int packets) {
    to_make_ = packets;
    int idle = 0;
    for (Cycle end = 400'000; received_ < packets || network_.flits_inside();) {
      REQUIRE(network_.cycle() < end);
      const uint64_t before = network_.hops() + received_flits_;
      cycle();
      idle = network_.hops() + received_flits_ == before ? idle + 1 : 0;
      REQUIRE(idle < 5000);
      if (network_.cycle() % 64 == 0) REQUIRE(network_.audit() == "");
    }
    for (int i = 0; i < 40; ++i) cycle();
    REQUIRE(network_.audit() == "");
    REQUIRE(made_ == packets);
    REQUIRE(received_ == packets);
    REQUIRE(sent_flits_ == received_flits_);
    REQUIRE(network_.packets().alive() == 0);
  }

 private:
  struct Sender {
    bool busy = false;
    PacketId packet = 0;
    Word next{};
    uint32_t flits = 0;
    int vc = 0;
  };
  struct Receiver {
    // By VC: the packet that is arriving.
    std::map<int, Word> open;
  };

  void cycle() {
    network_.begin_cycle();
    for (Node node = 0; node < senders_.size(); ++node) receive(node);
    for (Node node = 0; node < senders_.size(); ++node) send(node);
    network_.end_cycle();
  }

  void send(Node node) {
    Sender& s = senders_[node];
    const uint64_t room = network_.vcs_with_room(node);
    if (!s.busy) {
      if (made_ == to_make_ || random_.below(100) >= load_) return;
      begin(node, s);
    }
    // The VC is chosen anew until the first flit is in.
    if (s.next.flit == 0) {
      if (!room) return;
      s.vc = round_robin(room, static_cast<int>(random_.below(network_.config().vcs)));
    }
    if (!(room & bit(s.vc))) return;
    const bool last = s.next.flit + 1 == s.flits;
    network_.inject(node, s.vc, Flit(s.packet, last), s.next.packed());
    ++sent_flits_;
    ++s.next.flit;
    s.busy = !last;
  }

  void begin(Node node, Sender& s) {
    const Node to = random_.below(static_cast<uint32_t>(senders_.size()));
    s.flits = 1 + random_.below(12);
    s.next = {node, to, pairs_made_[{node, to}]++, 0};
    const Place place = network_.config().place_of(to);
    s.packet = network_.packets().create({.from = node,
                                          .to = to,
                                          .to_x = static_cast<uint16_t>(place.x),
                                          .to_y = static_cast<uint16_t>(place.y),
                                          .flits = static_cast<uint16_t>(s.flits),
                                          .created = network_.cycle()});
    s.busy = true;
    ++made_;
  }

  void receive(Node node) {
    for_each_bit(network_.arrivals_at(node), [&](int vc) {
      if (random_.below(100) < laziness_) return;
      const Word word = Word::of(network_.arrived_word(node, vc));
      const Flit flit = network_.take(node, vc);
      const uint16_t flits = network_.packets()[flit.packet()].flits;
      ++received_flits_;
      auto [open, begins] = receivers_[node].open.try_emplace(vc, word);
      // Whole: from the first flit on, the flits of one packet and no other, one after the other.
      if (begins)
        REQUIRE(word.flit == 0);
      else
        REQUIRE(word.packed() ==
                Word{open->second.from, open->second.to, open->second.packet, open->second.flit + 1}
                    .packed());
      REQUIRE(word.to == node);
      open->second = word;
      REQUIRE(flit.is_tail() == (word.flit + 1u == flits));
      if (!flit.is_tail()) return;
      receivers_[node].open.erase(open);
      network_.packets().destroy(flit.packet());
      ++received_;
      // In order for the pair, if there is one way only; VCs may overtake each other.
      const uint32_t expected = pairs_received_[{word.from, word.to}]++;
      if (network_.config().vcs == 1) REQUIRE(word.packet == expected);
      REQUIRE(seen_.try_emplace(Word{word.from, word.to, word.packet, 0}.packed(), true).second);
    });
  }

  Network network_;
  Random random_;
  uint32_t load_, laziness_;
  std::vector<Sender> senders_;
  std::vector<Receiver> receivers_;
  std::map<std::pair<Node, Node>, uint32_t> pairs_made_, pairs_received_;
  std::map<uint64_t, bool> seen_;
  int to_make_ = 0, made_ = 0, received_ = 0;
  uint64_t sent_flits_ = 0, received_flits_ = 0;
};

}  // namespace

TEST_CASE(
    "no flit is lost or duplicated, pairs stay in order, packets stay whole, credits add up") {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    const Config config = any_config(random);
    CAPTURE(seed, config.width, config.height, config.vcs, config.depth, config.router_stages,
            config.link_delay);
    Exchange(config, seed + 1000).run(300);
  }
}
