// Who sends to whom, who wins, and what a measurement says of itself.
#include "nocsim/traffic.h"

#include <catch2/catch.hpp>
#include <map>
#include <numeric>
#include <set>

#include "nocsim/sweep.h"

using namespace nocsim;

namespace {

Node to(Pattern pattern, Node from, int width = 8, int height = 8) {
  Config config;
  config.width = width;
  config.height = height;
  Traffic traffic;
  traffic.pattern = pattern;
  Random random;
  return destination(traffic, config, from, random);
}

// Flits that node 0 gets from each node of a line, when all send to it as fast as they can.
std::vector<uint64_t> shares(Arbitration arbitration) {
  Config config;
  config.width = 8;
  config.height = 1;
  config.vcs = 1;
  config.arbitration = arbitration;
  Network network(config);
  Traffic traffic;
  traffic.pattern = Pattern::kHotspot;
  traffic.hotspot_percent = 100;
  Sources sources(network, traffic, 1);
  sources.set_rate(kFullRate / 2);
  std::vector<uint64_t> flits(8);
  for (int i = 0; i < 40'000; ++i) {
    network.begin_cycle();
    network.nodes_with_arrivals().for_each([&](Node node) {
      const Flit flit = network.take(node, 0);
      const Packet& packet = network.packets()[flit.packet()];
      if (node == 0) ++flits[packet.from];
      if (flit.is_tail()) network.packets().destroy(flit.packet());
    });
    sources.run();
    network.end_cycle();
  }
  return flits;
}

}  // namespace

TEST_CASE("each pattern sends where its name says") {
  CHECK(to(Pattern::kTranspose, 1) == 8);
  CHECK(to(Pattern::kTranspose, 63) == 63);
  CHECK(to(Pattern::kBitComp, 0) == 63);
  CHECK(to(Pattern::kBitComp, 5) == 58);
  CHECK(to(Pattern::kBitRev, 1) == 32);
  CHECK(to(Pattern::kBitRev, 6) == 24);
  CHECK(to(Pattern::kShuffle, 33) == 3);
  CHECK(to(Pattern::kShuffle, 5) == 10);
  CHECK(to(Pattern::kTornado, 0) == 3 * 8 + 3);
  CHECK(to(Pattern::kTornado, 63) == 2 * 8 + 2);
  CHECK(to(Pattern::kNeighbor, 0) == 9);
  CHECK(to(Pattern::kNeighbor, 63) == 0);
}

TEST_CASE("each permutation reaches every node once") {
  for (Pattern pattern : {Pattern::kTranspose, Pattern::kBitComp, Pattern::kBitRev,
                          Pattern::kShuffle, Pattern::kTornado, Pattern::kNeighbor})
    for (int side : {1, 2, 4, 8}) {
      std::set<Node> reached;
      for (Node from = 0; from < static_cast<Node>(side * side); ++from)
        reached.insert(to(pattern, from, side, side));
      CAPTURE(name_of(pattern), side);
      CHECK(reached.size() == static_cast<size_t>(side * side));
      CHECK(*reached.rbegin() == static_cast<Node>(side * side - 1));
    }
}

TEST_CASE("uniform traffic reaches everybody else alike, and nobody sends to itself") {
  Config config;
  Traffic traffic;
  Random random(3);
  std::map<Node, int> reached;
  for (int i = 0; i < 63'000; ++i) ++reached[destination(traffic, config, 9, random)];
  CHECK(reached.size() == 63);
  CHECK_FALSE(reached.contains(9));
  for (auto [node, times] : reached) {
    CAPTURE(node);
    CHECK(times > 800);
    CHECK(times < 1200);
  }
}

TEST_CASE("a hotspot gets its share") {
  Config config;
  Traffic traffic;
  traffic.pattern = Pattern::kHotspot;
  traffic.hotspot = 20;
  traffic.hotspot_percent = 25;
  Random random(3);
  int hits = 0;
  for (int i = 0; i < 10'000; ++i) hits += destination(traffic, config, 0, random) == 20;
  CHECK(hits > 2400);
  CHECK(hits < 2800);  // a quarter, and what the uniform rest sends there
}

TEST_CASE("random numbers are what they were on another day") {
  Random random(1, 2);
  const uint64_t first = random.next();
  CHECK(first == Random(1, 2).next());
  CHECK(first != Random(1, 3).next());
  CHECK(first != Random(2, 2).next());
  CHECK(first == 248382218779318986u);
  std::vector<uint32_t> drawn;
  for (int i = 0; i < 5; ++i) drawn.push_back(random.below(1000));
  CHECK(drawn == std::vector<uint32_t>{534, 509, 791, 495, 38});
}

TEST_CASE("in turn, who is near gets more of a line's end; by age, all get the same") {
  const std::vector<uint64_t> in_turn = shares(Arbitration::kRoundRobin);
  CHECK(in_turn[1] > 5 * in_turn[4]);
  const std::vector<uint64_t> by_age = shares(Arbitration::kOldest);
  for (Node node = 2; node < 8; ++node) {
    CAPTURE(node, by_age[node], by_age[1]);
    CHECK(by_age[node] * 10 > by_age[1] * 8);
    CHECK(by_age[node] * 10 < by_age[1] * 12);
  }
}

TEST_CASE("a light load converges, a heavy one is called saturated") {
  SweepPlan plan;
  plan.config.width = plan.config.height = 3;
  const SweepRow light = measure(plan, 10'000);
  CHECK(light.converged);
  CHECK_FALSE(light.saturated);
  CHECK(light.latency_avg == Approx(zero_loads(plan.config, plan.traffic).mean()).epsilon(0.02));
  plan.most_drain_periods = 2;
  const SweepRow heavy = measure(plan, 990'000);
  CHECK(heavy.saturated);
  CHECK(heavy.accepted < 0.95);
}

TEST_CASE("what is accepted crosses the links that its routes name") {
  SweepPlan plan;
  plan.config.width = 4;
  plan.config.height = 1;
  plan.traffic.pattern = Pattern::kNeighbor;  // 0 to 1 to 2 to 3, and 3 to 0
  const SweepRow row = measure(plan, 300'000);
  for (const LinkUse& link : row.links) {
    CAPTURE(link.from, link.port, link.flits_per_cycle);
    CHECK(link.flits_per_cycle == Approx(0.3).epsilon(0.05));
  }
  CHECK(row.links.size() == 3 + 3 + 4);
}
