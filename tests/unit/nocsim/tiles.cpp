// Programs on tiles: ordinary blocking code, in modelled time.
#include <catch2/catch.hpp>
#include <memory>
#include <numeric>

#include "nocsim/mesh.h"

using namespace nocsim;

namespace {

Config udn(const char* name = "udn") { return find_profile(name)->config; }

// Half of what a word there and a word back take.
double half_round_trip(const Config& config, Node from, Node to) {
  Mesh mesh(config);
  Cycle begun = 0, ended = 0;
  mesh.start(from, [&](Tile& tile) {
    begun = tile.cycle();
    tile.send(to, 0, {1});
    tile.receive(0);
    ended = tile.cycle();
  });
  mesh.start(to, [&](Tile& tile) {
    tile.receive(0);
    tile.send(from, 0, {2});
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  return static_cast<double>(ended - begun) / 2;
}

}  // namespace

TEST_CASE("a word that one tile sends is what another receives, from the queue it was sent to") {
  Mesh mesh(udn());
  std::vector<uint64_t> got;
  mesh.start(0, [](Tile& tile) {
    tile.send(35, 2, {7, 8, 9});
    const uint64_t header = tile.header(35, 3);
    tile.send(header + 2);
    tile.send(10);
    tile.send(11);
  });
  mesh.start(35, [&](Tile& tile) {
    for (int queue : {3, 3, 2, 2, 2}) got.push_back(tile.receive(queue));
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(got == std::vector<uint64_t>{10, 11, 7, 8, 9});
  CHECK(mesh.tile(0).counts().words_sent == 7);
  CHECK(mesh.tile(35).counts().words_received == 5);
}

TEST_CASE(
    "the half round trip of a word grows by a cycle with each hop, and a turn costs one more") {
  const double one = half_round_trip(udn(), 0, 1);
  CHECK(half_round_trip(udn(), 0, 2) == one + 1);
  CHECK(half_round_trip(udn(), 0, 5) == one + 4);
  CHECK(half_round_trip(udn(), 0, 7) == one + 2);
}

TEST_CASE("packets of a pair arrive in order, and words of two senders never mix") {
  Mesh mesh(udn());
  constexpr int kPackets = 60, kWords = 5;
  for (Node sender : {0u, 5u, 30u, 35u})
    mesh.start(sender, [sender](Tile& tile) {
      for (uint64_t packet = 0; packet < kPackets; ++packet) {
        tile.send(tile.header(14, 0) + kWords);
        for (uint64_t word = 0; word < kWords; ++word) {
          tile.send(sender << 20 | packet << 8 | word);
          if ((packet + word) % 3 == 0) tile.compute(packet % 11);
        }
      }
    });
  mesh.start(14, [](Tile& tile) {
    std::vector<uint64_t> next(36);
    for (int i = 0; i < 4 * kPackets; ++i) {
      const uint64_t first = tile.receive(0);
      const Node sender = static_cast<Node>(first >> 20);
      REQUIRE((first >> 8 & 0xfff) == next[sender]++);
      REQUIRE((first & 0xff) == 0);
      for (uint64_t word = 1; word < kWords; ++word) REQUIRE(tile.receive(0) == (first | word));
      if (i % 7 == 0) tile.compute(40);
    }
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.network().audit() == "");
}

TEST_CASE("available, count and wait_for look at the queues and take time") {
  Mesh mesh(udn());
  mesh.start(1, [](Tile& tile) {
    tile.send(0, 1, {1, 2, 3});
    tile.send(0, 2, {4});
  });
  mesh.start(0, [](Tile& tile) {
    const Cycle begun = tile.cycle();
    REQUIRE(tile.available() == 0);
    REQUIRE(tile.cycle() == begun + 2);
    REQUIRE(tile.wait_for(0b110) == 0b010);
    tile.compute(100);
    REQUIRE(tile.available() == 0b110);
    REQUIRE(tile.count(1) == 3);
    REQUIRE(tile.count(2) == 1);
    REQUIRE(tile.count(0) == 0);
    tile.receive(1);
    REQUIRE(tile.count(1) == 2);
    REQUIRE(tile.wait_for(0b001 | 0b100) == 0b100);
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
}

TEST_CASE("4096 tiles run a program each, and pass a token round") {
  Config config = udn();
  config.width = config.height = 64;
  Mesh mesh(config);
  const Node nodes = 64 * 64;
  uint64_t result = 0;
  for (Node node = 0; node < nodes; ++node)
    mesh.start(node, [&, node](Tile& tile) {
      if (node == 0) {
        tile.send(1, 0, {1});
        result = tile.receive(0);
        return;
      }
      const uint64_t token = tile.receive(0);
      tile.compute(3);
      tile.send((node + 1) % nodes, 0, {token + 1});
    });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(result == nodes);
}

TEST_CASE("a thousand tiles that all talk at once finish in the same cycle in every run") {
  const auto run = [] {
    Config config = udn();
    config.width = config.height = 32;
    Mesh mesh(config);
    uint64_t sum = 0;
    for (Node node = 0; node < 1024; ++node)
      mesh.start(node, [&, node](Tile& tile) {
        for (uint64_t i = 0; i < 10; ++i) {
          tile.send((node * 7 + 13) % 1024, 0, {i, node});
          tile.compute(node % 5);
          tile.receive(0);
          sum = sum * 31 + tile.receive(0);
        }
      });
    const Outcome outcome = mesh.run();
    REQUIRE(outcome.kind == Outcome::Kind::kFinished);
    REQUIRE(mesh.network().audit() == "");
    return std::pair(outcome.cycle, sum);
  };
  CHECK(run() == run());
}

TEST_CASE("what a program throws comes out of run, and the others can go on") {
  Mesh mesh(udn());
  bool done = false;
  mesh.start(0, [](Tile& tile) {
    tile.compute(10);
    throw std::runtime_error("tile 0");
  });
  mesh.start(1, [&](Tile& tile) {
    tile.compute(20);
    done = true;
  });
  CHECK_THROWS_WITH(mesh.run(), "tile 0");
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(done);
}

TEST_CASE("an exception that is being handled stays with its tile while others handle theirs") {
  Mesh mesh(udn());
  for (Node node = 0; node < 8; ++node)
    mesh.start(node, [node](Tile& tile) {
      try {
        throw static_cast<int>(node);
      } catch (int value) {
        tile.compute(1 + node);
        try {
          throw static_cast<int>(node + 100);
        } catch (int inner) {
          tile.compute(8 - node);
          REQUIRE(inner == static_cast<int>(node + 100));
        }
        REQUIRE(value == static_cast<int>(node));
      }
    });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
}

TEST_CASE("a program that is stopped, or alive when its mesh goes, runs its destructors") {
  const auto token = std::make_shared<int>(0);
  {
    Mesh mesh(udn());
    for (Node node : {0u, 1u, 2u})
      mesh.start(
          node,
          [token](Tile& tile) {
            const auto mine = token;
            tile.receive(0);
          },
          node == 2);
    CHECK(mesh.run(50).kind == Outcome::Kind::kDeadlock);
    CHECK(token.use_count() == 7);
    mesh.stop(0);
    CHECK(token.use_count() == 6);
    CHECK_FALSE(mesh.is_running(0));
  }
  CHECK(token.use_count() == 1);
}

TEST_CASE("run ends for programs in the foreground, and after the cycles that it was given") {
  Mesh mesh(udn());
  mesh.start(
      0,
      [](Tile& tile) {
        for (;;) tile.send(static_cast<Node>(tile.receive(0)), 0, {1});
      },
      true);
  mesh.start(1, [](Tile& tile) {
    tile.send(0, 0, {1});
    tile.receive(0);
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  mesh.start(1, [](Tile& tile) { tile.compute(1'000'000'000'000); });
  const Cycle begun = mesh.cycle();
  const Outcome outcome = mesh.run(1000);
  CHECK(outcome.kind == Outcome::Kind::kLimit);
  CHECK(outcome.cycle == begun + 1000);
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.cycle() >= begun + 1'000'000'000'000);
}

TEST_CASE("what cannot be sent is refused") {
  Mesh mesh(udn());
  mesh.start(0, [](Tile& tile) {
    REQUIRE_THROWS_AS(tile.header(36, 0), std::invalid_argument);
    REQUIRE_THROWS_AS(tile.header(0, 4), std::invalid_argument);
    REQUIRE_THROWS_AS(tile.send(5), std::invalid_argument);
    REQUIRE_THROWS_AS(tile.receive(4), std::invalid_argument);
    const std::vector<uint64_t> long_packet(1024);
    REQUIRE_THROWS_AS(tile.send(1, 0, long_packet), std::invalid_argument);
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK_THROWS_AS(Mesh([] {
                    Config config;
                    config.vcs = 0;
                    return config;
                  }()),
                  std::invalid_argument);
}

TEST_CASE("loads and stores cost what the lines' state says") {
  struct alignas(64) Line {
    uint64_t word = 0;
  };
  static Line line, other;
  line = other = {};
  Mesh mesh(udn());
  const auto cost = [](Tile& tile, auto&& access) {
    const Cycle begun = tile.cycle();
    access();
    return tile.cycle() - begun - 1;
  };
  mesh.start(0, [&](Tile& tile) {
    REQUIRE(cost(tile, [&] { tile.load(line.word); }) == 80);
    REQUIRE(cost(tile, [&] { tile.load(line.word); }) == 2);
    tile.store(line.word, 5);
    tile.fence();
    tile.send(1, 0, {1});
    tile.receive(0);
    // Tile 1 has written it meanwhile.
    REQUIRE(cost(tile, [&] { REQUIRE(tile.load(line.word) == 6); }) == 50);
    REQUIRE(cost(tile, [&] { tile.load(line.word); }) == 2);
    // 512 lines on lies what takes its place in the L1, not in the L2.
    static Line many[600];
    for (Line& l : many) tile.load(l.word);
    REQUIRE(cost(tile, [&] { tile.load(line.word); }) == 11);
  });
  mesh.start(1, [&](Tile& tile) {
    tile.receive(0);
    REQUIRE(cost(tile, [&] { REQUIRE(tile.load(line.word) == 5); }) == 50);
    tile.store(line.word, 6);
    REQUIRE(cost(tile, [&] { tile.fence(); }) > 40);
    REQUIRE(cost(tile, [&] { tile.fence(); }) == 1);
    // Nobody has read it since: it is still this tile's.
    tile.store(line.word, 6);
    REQUIRE(cost(tile, [&] { tile.fence(); }) == 1);
    tile.send(0, 0, {1});
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.tile(0).counts().sends_with_open_stores == 0);
}

TEST_CASE("a header that is sent before a store has arrived is counted") {
  static uint64_t data;
  Mesh mesh(udn());
  mesh.start(0, [](Tile& tile) {
    tile.store(data, 1);
    tile.send(1, 0, {1});
    tile.store(data, 2);
    tile.fence();
    tile.send(1, 0, {1});
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(mesh.tile(0).counts().sends_with_open_stores == 1);
}
