// Full queues, back-pressure, deadlock, and the watchdog.
#include <catch2/catch.hpp>

#include "nocsim/mesh.h"

using namespace nocsim;

namespace {

Config line(int tiles) {
  Config config = find_profile("udn")->config;
  config.width = tiles;
  config.height = 1;
  return config;
}

void send_words(Tile& tile, Node to, int queue, int words) {
  for (int i = 0; i < words; ++i) tile.send(to, queue, {static_cast<uint64_t>(i)});
}

}  // namespace

TEST_CASE("a full queue blocks its sender, and lets it go on when it is read") {
  Mesh mesh(line(2));
  Cycle sent = 0;
  mesh.start(0, [&](Tile& tile) {
    send_words(tile, 1, 0, 300);
    sent = tile.cycle();
  });
  mesh.start(1, [](Tile& tile) {
    tile.compute(5000);
    for (uint64_t i = 0; i < 300; ++i) REQUIRE(tile.receive(0) == i);
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(sent > 5000);
  CHECK(mesh.endpoint(1).most_words() == 118);
  CHECK(mesh.tile(0).counts().waiting_to_send > 4000);
}

TEST_CASE("a full queue blocks strangers whose way passes it") {
  // 0 floods 2, which does not read. 1 sends to 3, behind the same link.
  Mesh mesh(line(4));
  Cycle arrived = 0;
  mesh.start(0, [](Tile& tile) { send_words(tile, 2, 0, 200); });
  mesh.start(1, [](Tile& tile) {
    tile.compute(1000);
    tile.send(3, 0, {1});
  });
  mesh.start(2, [](Tile& tile) {
    tile.compute(20'000);
    for (int i = 0; i < 200; ++i) tile.receive(0);
  });
  mesh.start(3, [&](Tile& tile) {
    tile.receive(0);
    arrived = tile.cycle();
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(arrived > 20'000);
}

TEST_CASE("a stranger elsewhere is not blocked") {
  Mesh mesh(find_profile("udn")->config);
  Cycle arrived = 0;
  mesh.start(0, [](Tile& tile) { send_words(tile, 2, 0, 200); });
  mesh.start(2, [](Tile& tile) {
    tile.compute(20'000);
    for (int i = 0; i < 200; ++i) tile.receive(0);
  });
  mesh.start(7, [](Tile& tile) { tile.send(9, 0, {1}); });
  mesh.start(9, [&](Tile& tile) {
    tile.receive(0);
    arrived = tile.cycle();
  });
  REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
  CHECK(arrived < 20);
}

TEST_CASE("queues that share their capacity block each other, queues that have it each do not") {
  for (bool share : {true, false}) {
    Config config = line(2);
    config.queues_share = share;
    config.queue_words = 20;
    Mesh mesh(config);
    Cycle arrived = 0;
    mesh.start(0, [](Tile& tile) {
      send_words(tile, 1, 0, 20);
      tile.send(1, 1, {1});
    });
    mesh.start(1, [&](Tile& tile) {
      tile.compute(1000);
      // With a shared capacity this word has to wait for room.
      if (tile.available() & 0b10) arrived = tile.cycle();
      for (int i = 0; i < 20; ++i) tile.receive(0);
      tile.receive(1);
    });
    REQUIRE(mesh.run().kind == Outcome::Kind::kFinished);
    CHECK((arrived != 0) == !share);
  }
}

TEST_CASE("two tiles that overrun each other stop, and run says who waits for what") {
  Mesh mesh(line(2));
  for (Node node : {0u, 1u})
    mesh.start(node, [node](Tile& tile) {
      send_words(tile, 1 - node, 0, 400);
      for (int i = 0; i < 400; ++i) tile.receive(0);
    });
  const Outcome outcome = mesh.run();
  REQUIRE(outcome.kind == Outcome::Kind::kDeadlock);
  REQUIRE(outcome.waiters.size() == 2);
  CHECK(outcome.waiters[0].what == "waits to send");
  CHECK_FALSE(outcome.stalls.empty());
  CHECK(outcome.describe().starts_with("deadlock"));
}

TEST_CASE("the watchdog sees it too, while others run on") {
  Mesh mesh(line(4));
  for (Node node : {0u, 1u})
    mesh.start(node, [node](Tile& tile) { send_words(tile, 1 - node, 0, 400); });
  mesh.start(3, [](Tile& tile) {
    for (;;) tile.compute(1);
  });
  mesh.set_watchdog(1000);
  const Outcome outcome = mesh.run(100'000);
  REQUIRE(outcome.kind == Outcome::Kind::kStalled);
  CHECK(outcome.cycle < 5000);
  REQUIRE(outcome.stalls.size() >= 2);
  CHECK(outcome.stalls[0].since + 1000 <= outcome.cycle);
}

TEST_CASE("with no more requests out than the other's queue can hold, they never do") {
  for (int words_each : {1, 7, 118}) {
    Mesh mesh(line(2));
    for (Node node : {0u, 1u})
      mesh.start(node, [=](Tile& tile) {
        // A credit for each word that the other may have in its queue.
        int credits = words_each;
        int sent = 0, received = 0;
        while (received < 2000) {
          if (sent < 2000 && credits > 0) {
            tile.send(1 - node, 0, {static_cast<uint64_t>(sent++)});
            --credits;
            continue;
          }
          REQUIRE(tile.receive(0) == static_cast<uint64_t>(received++));
          ++credits;  // what the other has read of mine: it sends as many as it reads
        }
      });
    mesh.set_watchdog(1000);
    const Outcome outcome = mesh.run(1'000'000);
    CAPTURE(words_each, outcome.describe());
    CHECK(outcome.kind == Outcome::Kind::kFinished);
    CHECK(mesh.endpoint(0).most_words() <= static_cast<size_t>(words_each));
  }
}

TEST_CASE("a tile that waits for a word that nobody sends is a deadlock, at once") {
  Mesh mesh(line(2));
  mesh.start(0, [](Tile& tile) { tile.receive(3); });
  mesh.start(1, [](Tile& tile) { tile.compute(700); });
  const Outcome outcome = mesh.run();
  REQUIRE(outcome.kind == Outcome::Kind::kDeadlock);
  CHECK(outcome.cycle < 800);
  REQUIRE(outcome.waiters.size() == 1);
  CHECK(outcome.waiters[0].what == "waits for a word in queue 3");
}
