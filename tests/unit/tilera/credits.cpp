// The arithmetic of credits, and that a bad plan is refused.
#include "tests/unit/tilera/chips.h"

using namespace sluice;
using namespace sluice::tilera;
using test::plan_of;

TEST_CASE("35 clients have 3 words of the coordinator's queue each, 71 one") {
  const Plan p = plan_of({"tilegx36", 35});
  CHECK(p.relays == 0);
  CHECK(p.packet_words == 3);
  CHECK(p.depth == 1);
  const Demand root = demand_on(p, p.root);
  CHECK(root.words[kRequests] == 105);
  const Demand client = demand_on(p, 0);
  CHECK(client.words[kReplies] == 8);
  CHECK(client.words[kDoorbells] == 35);

  const Plan full = plan_of({"tilegx72", 71});
  CHECK(full.relays == 0);
  CHECK(full.packet_words == 1);
}

TEST_CASE("few clients have long packets and many credits") {
  CHECK(plan_of({"tilegx36", 1}).packet_words == 8);
  CHECK(plan_of({"tilegx36", 1}).depth == 14);
  CHECK(plan_of({"tilegx36", 14}).packet_words == 8);
  CHECK(plan_of({"tilegx36", 15}).packet_words == 7);
}

TEST_CASE("relays stand where the clients of 72 tiles would have less than 3 words each") {
  const Plan p = plan_of({"tilegx72", 69});
  CHECK(p.relays == 2);
  CHECK(p.packet_words == 3);
  uint32_t through[kMostTiles] = {};
  for (TileId t = 0; t < p.tiles; ++t)
    if (p.is_client(t)) {
      CHECK(p.is_relay[p.via[t]]);
      ++through[p.via[t]];
    }
  for (TileId t = 0; t < p.tiles; ++t)
    if (p.is_relay[t]) CHECK((through[t] == 34 || through[t] == 35));
}

TEST_CASE("every plan that is made is one that may be run") {
  for (uint32_t words : {8u, 30u, 60u, 118u})
    for (bool shared : {true, false})
      for (uint32_t width : {1u, 2u, 3u, 6u, 9u})
        for (uint32_t clients = 0; clients <= width * 8; clients += clients < 8 ? 1 : 7) {
          Wish wish{.width = width, .height = 8, .clients = clients, .room = {words, shared}};
          Plan p;
          if (make_plan(wish, p) != nullptr) continue;
          CHECK(complaint_about(p, wish.room) == nullptr);
          CHECK(p.clients == clients);
          uint32_t found = 0;
          for (TileId t = 0; t < p.tiles; ++t) found += p.is_client(t);
          CHECK(found == clients);
        }
}

TEST_CASE("a plan whose credits are more than a queue holds is refused") {
  const QueueRoom room;
  auto is_refused = [&](auto change) {
    Plan p = plan_of({"tilegx72", 69});
    REQUIRE(complaint_about(p, room) == nullptr);
    change(p);
    return complaint_about(p, room) != nullptr;
  };
  CHECK(is_refused([](Plan& p) { p.depth = 2; }));
  CHECK(is_refused([](Plan& p) { p.packet_words = 4; }));
  CHECK(is_refused([](Plan& p) { p.forwards = 20; }));
  CHECK(is_refused([](Plan& p) { p.forwards = 0; }));
  CHECK(is_refused([](Plan& p) { p.depth = 0; }));
  CHECK(is_refused([](Plan& p) { p.packet_words = 9; }));
  CHECK(is_refused([](Plan& p) { p.clients = 70; }));
  CHECK(is_refused([](Plan& p) { p.via[0] = 1; }));
  CHECK(is_refused([](Plan& p) { p.via[0] = uint8_t(p.root); }) == false);
  CHECK(is_refused([](Plan& p) {
    for (TileId t = 0; t < p.tiles; ++t)
      if (p.is_client(t)) p.via[t] = uint8_t(p.root);
  }));
  CHECK(is_refused([](Plan& p) { p.tiles = kMostTiles + 1; }));
}

TEST_CASE("a queue of its own for each kind has more room, and one word too few is refused") {
  Plan p = plan_of({"tilegx72", 69});
  CHECK(complaint_about(p, {117, true}) == nullptr);
  CHECK(complaint_about(p, {116, true}) != nullptr);   // a relay: 35 x 3 requests, 12 credits
  CHECK(complaint_about(p, {105, false}) == nullptr);
  CHECK(complaint_about(p, {104, false}) != nullptr);
}

TEST_CASE("a chip does not start with a plan that its queues do not hold") {
  nocsim::Config mesh = test::mesh_of({});
  const Plan p = plan_of({"tilegx36", 35});
  CHECK_NOTHROW(Chip(mesh, p));
  mesh.queue_words = 104;
  CHECK_THROWS_AS(Chip(mesh, p), std::invalid_argument);
  CHECK_THROWS_AS(Chip(test::mesh_of({"tilegx72"}), p), std::invalid_argument);
}
