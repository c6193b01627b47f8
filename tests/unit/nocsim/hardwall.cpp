// Hardwalls: what wants to leave one faults its members, and what is left in one is drained.
#include <catch2/catch.hpp>

#include "nocsim/mesh.h"

using namespace nocsim;

namespace {

Config tiles_6x6() { return find_profile("tilegx36")->config; }

}  // namespace

TEST_CASE("packets within a hardwall are as without it") {
  Mesh mesh(tiles_6x6());
  const HardwallId wall = mesh.create_hardwall({1, 1, 3, 2});
  REQUIRE(mesh.hardwall_of(7) == wall);
  REQUIRE_FALSE(mesh.hardwall_of(0));
  mesh.start(7, [](Tile& tile) { tile.send(15, 0, {42}); });
  mesh.start(15, [](Tile& tile) { REQUIRE(tile.receive(0) == 42); });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.faults(wall).empty());
}

TEST_CASE("a packet that would leave a hardwall faults all its members, and nobody else") {
  Mesh mesh(tiles_6x6());
  const HardwallId wall = mesh.create_hardwall({0, 0, 2, 2});
  std::vector<Node> faulted;
  const auto waits = [&](Tile& tile) {
    try {
      if (tile.id() == 0) tile.send(5, 0, {1});
      tile.receive(0);
    } catch (const HardwallFault& fault) {
      faulted.push_back(tile.id());
      CHECK(fault.at == 1);
      CHECK(fault.port == kEast);
      throw;
    }
  };
  for (Node node : {0u, 1u, 6u, 7u}) mesh.start(node, waits);
  bool stranger_done = false;
  mesh.start(35, [&](Tile& tile) {
    tile.compute(1000);
    stranger_done = true;
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(faulted == std::vector<Node>{0, 1, 6, 7});
  CHECK(stranger_done);
  REQUIRE(mesh.faults(wall).size() == 1);
}

TEST_CASE("a packet from outside does not get in") {
  Mesh mesh(tiles_6x6());
  const HardwallId wall = mesh.create_hardwall({2, 0, 2, 2});
  mesh.start(0, [](Tile& tile) { tile.send(2, 0, {1}); });
  mesh.start(2, [](Tile& tile) { tile.receive(0); });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);  // both have ended: one sent, one faulted
  CHECK(mesh.faults(wall).size() == 1);
  CHECK(mesh.endpoint(2).words() == 0);
  CHECK(mesh.network().flits_inside() == 2);
}

TEST_CASE(
    "teardown completes owed packets, drains queues and switches, and leaves a clean rectangle") {
  Mesh mesh(tiles_6x6());
  const HardwallId wall = mesh.create_hardwall({0, 0, 3, 3});
  // 0 floods 2, which does not read; 6 stops in the middle of a packet; 12 sends out of the
  // rectangle.
  mesh.start(0, [](Tile& tile) {
    for (;;) tile.send(2, 0, {1, 2, 3});
  });
  mesh.start(6, [](Tile& tile) {
    tile.send(tile.header(8, 1) + 100);
    for (int i = 0; i < 10; ++i) tile.send(i);
    tile.receive(0);
  });
  mesh.start(12, [](Tile& tile) {
    tile.compute(2000);
    tile.send(tile.header(17, 1) + 20);
    for (int i = 0; i < 5; ++i) tile.send(i);
    tile.receive(0);
  });
  bool stranger_done = false;
  mesh.start(34, [&](Tile& tile) {
    for (int i = 0; i < 500; ++i) {
      tile.send(35, 0, {7});
      tile.compute(10);
    }
    stranger_done = true;
  });
  mesh.start(35, [](Tile& tile) {
    for (int i = 0; i < 500; ++i) REQUIRE(tile.receive(0) == 7);
  });
  mesh.run(3000);
  REQUIRE(mesh.faults(wall).size() == 1);
  REQUIRE(mesh.network().flits_at(2) > 0);

  const Teardown report = mesh.tear_down(wall);
  CHECK(report.complete);
  // What the faulted members still had to send: 90 words of one packet, what is left of another.
  CHECK(report.zeros_sent >= 90);
  CHECK(report.words_drained >= 118 + 10);
  CHECK(report.flits_discarded == 21);
  for (Node node : {0u, 1u, 2u, 6u, 7u, 8u, 12u, 13u, 14u}) {
    CHECK_FALSE(mesh.is_running(node));
    CHECK(mesh.network().flits_at(node) == 0);
    CHECK(mesh.endpoint(node).words() == 0);
  }
  CHECK(mesh.network().audit() == "");
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(stranger_done);

  // The rectangle's next user finds nothing of the last one's, and no wall.
  mesh.start(0, [](Tile& tile) { tile.send(5, 0, {99}); });
  mesh.start(5, [](Tile& tile) { REQUIRE(tile.receive(0) == 99); });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.network().flits_inside() == 0);
  CHECK(mesh.network().packets().alive() == 0);
}

TEST_CASE("a neighbour's wall stays up when one is torn down") {
  Mesh mesh(tiles_6x6());
  const HardwallId left = mesh.create_hardwall({0, 0, 2, 2});
  const HardwallId right = mesh.create_hardwall({2, 0, 2, 2});
  CHECK(mesh.tear_down(left).complete);
  mesh.start(0, [](Tile& tile) { tile.send(2, 0, {1}); });
  mesh.start(2, [](Tile& tile) { tile.receive(0); });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.faults(right).size() == 1);
  CHECK(mesh.endpoint(2).words() == 0);
}

TEST_CASE("hardwalls lie in the mesh and do not overlap") {
  Mesh mesh(tiles_6x6());
  mesh.create_hardwall({0, 0, 3, 3});
  CHECK_THROWS_AS(mesh.create_hardwall({2, 2, 2, 2}), std::invalid_argument);
  CHECK_THROWS_AS(mesh.create_hardwall({4, 4, 3, 1}), std::invalid_argument);
  CHECK_THROWS_AS(mesh.create_hardwall({4, 4, 0, 1}), std::invalid_argument);
  mesh.create_hardwall({3, 0, 3, 6});
}
