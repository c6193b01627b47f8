// The latency of a packet that is alone, for every pair of nodes.
#include "nocsim/zero_load.h"

#include <catch2/catch.hpp>

#include "nocsim/sweep.h"

using namespace nocsim;

namespace {

void check_all_pairs(const Config& config, int flits) {
  ZeroLoad zero_load(config);
  const auto nodes = static_cast<Node>(config.nodes());
  for (Node from = 0; from < nodes; ++from)
    for (Node to = 0; to < nodes; ++to) {
      const int hops = std::abs(config.place_of(from).x - config.place_of(to).x) +
                       std::abs(config.place_of(from).y - config.place_of(to).y);
      const bool turns = config.place_of(from).x != config.place_of(to).x &&
                         config.place_of(from).y != config.place_of(to).y;
      const Cycle expected = (hops + 1) * (config.router_stages + config.link_delay) +
                             (turns ? config.turn_delay : 0) + flits - 1;
      const Cycle measured = zero_load.measure(from, to, flits);
      if (measured != expected) {
        CAPTURE(from, to, flits, config.router_stages, config.link_delay, config.turn_delay);
        CHECK(measured == expected);
      }
      REQUIRE(zero_load_latency(config, from, to, flits) == expected);
    }
}

}  // namespace

TEST_CASE("a packet that is alone takes H(R+1) + L - 1 cycles, for every pair of an 8x8 mesh") {
  for (int stages = 1; stages <= 6; ++stages)
    for (int flits : {1, 4, 9}) {
      Config config;
      config.router_stages = stages;
      check_all_pairs(config, flits);
    }
}

TEST_CASE("so it does on meshes of other shapes, in the other order, with other links and VCs") {
  for (auto [width, height] : {std::pair{1, 1}, {1, 7}, {5, 1}, {3, 3}, {9, 8}})
    for (int link : {0, 1, 3})
      for (int vcs : {1, 4}) {
        Config config;
        config.width = width;
        config.height = height;
        config.order = Order::kYX;
        config.link_delay = link;
        config.vcs = vcs;
        check_all_pairs(config, 4);
      }
}

TEST_CASE("on the user dynamic network a hop takes a cycle, and a turn one more") {
  for (const char* name : {"udn", "tilegx36", "tilegx72"}) {
    const Profile* profile = find_profile(name);
    REQUIRE(profile);
    REQUIRE(profile->config.router_stages + profile->config.link_delay == 1);
    for (int flits : {1, 2, 127}) check_all_pairs(profile->config, flits);
  }
}

TEST_CASE("the means are those that were published: 12.3, 28.2 and 21.9 cycles within 0.3") {
  Config small;
  small.width = small.height = 3;
  small.vcs = 1;
  small.router_stages = 2;
  CHECK(zero_loads(small, {}).mean() == Approx(12.3).margin(0.301));
  Config large;
  CHECK(zero_loads(large, {}).mean() == Approx(28.2).margin(0.3));
  large.router_stages = 2;
  CHECK(zero_loads(large, {}).mean() == Approx(21.9).margin(0.3));
}
