// Requests over the simulated network: whole, in order, for every number of clients, whatever they do.
#include <cstring>

#include "tests/unit/tilera/chips.h"

using namespace sluice;
using namespace sluice::tilera;
using nocsim::Outcome;
using test::Choice;
using test::kChoices;
using test::TestChip;

namespace {

Message ping_of(uint32_t id, uint32_t words, uint64_t seed) {
  Message m{shm::kPing, 0, id, {}};
  for (uint32_t i = 0; i < words; ++i) m.words[i] = seed * 8 + i + 1;
  return m;
}
bool are_equal(const Message& a, const Message& b) { return memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST_CASE("a request of any length comes back whole, over every plan") {
  for (const Choice& choice : kChoices) {
    INFO(choice.profile << ", " << choice.clients << " clients, packets of " << choice.packet_words);
    TestChip chip(choice);
    uint32_t wrong = 0, right = 0;
    for (TileId t : chip.clients())
      chip.start(t, [&, t](Chip::Client& c) {
        if (c.join(int32_t(t) + 1) == shm::kNobody) ++wrong;
        for (uint32_t words = 0; words <= shm::kMessageWords; ++words) {
          Message m = ping_of(0, words, t);
          const Message reply = c.call(m);
          m.id = reply.id;
          ++(are_equal(m, reply) ? right : wrong);
        }
      });
    CHECK(chip.run().kind == Outcome::Kind::kFinished);
    CHECK(wrong == 0);
    CHECK(right == 8 * chip.plan().clients);
    CHECK(chip.requests() == 9 * chip.plan().clients);
    chip.check_bounds();
  }
}

TEST_CASE("a client that sends as much as it may gets its answers in order, and no queue overflows") {
  for (const Choice& choice : kChoices) {
    INFO(choice.profile << ", " << choice.clients << " clients, packets of " << choice.packet_words);
    TestChip chip(choice);
    constexpr uint32_t kEach = 60;
    uint32_t wrong = 0;
    for (TileId t : chip.clients())
      chip.start(t, [&, t](Chip::Client& c) {
        (void)c.join(int32_t(t) + 1);
        uint32_t sent = 0;
        for (uint32_t answered = 0; answered < kEach; ++answered) {
          while (sent < kEach && c.try_send(ping_of(sent, sent * 5 % 8, t))) ++sent;
          if (sent - answered != std::min(kEach - answered, chip.plan().depth)) ++wrong;
          if (t % 3 == 0 && answered % 8 == 0) c.noc().spend(3000);  // lets its replies lie
          if (!are_equal(c.receive(), ping_of(answered, answered * 5 % 8, t))) ++wrong;
        }
        if (c.credits() != chip.plan().depth) ++wrong;
      });
    const Outcome outcome = chip.run();
    INFO(outcome.describe());
    CHECK(outcome.kind == Outcome::Kind::kFinished);
    CHECK(wrong == 0);
    chip.check_bounds();
  }
}

TEST_CASE("clients that never look at their replies hold up nobody else") {
  TestChip chip({"tilegx36", 35});
  uint32_t answered = 0, wanted = 0;
  for (TileId t : chip.clients()) {
    wanted += t % 2 == 0 ? 0 : 50;
    chip.start(t, [&, t](Chip::Client& c) {
      (void)c.join(int32_t(t) + 1);
      if (t % 2 == 0) {
        while (c.try_send(ping_of(1, 7, t))) {
        }
        return;
      }
      for (uint32_t i = 0; i < 50; ++i) answered += c.call(ping_of(0, 1, t)).words[0] == t * 8 + 1;
    });
  }
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(answered == wanted);
  chip.check_bounds();
}

TEST_CASE("queues that hold exactly what the credits say are enough, shared by the four or not") {
  for (bool shared : {true, false}) {
    nocsim::Config mesh = test::mesh_of({"tilegx36"});
    mesh.queue_words = 105;
    mesh.queues_share = shared;
    const Plan plan = test::plan_of({"tilegx36", 35});
    REQUIRE(demand_on(plan, plan.root).words[kRequests] == 105);
    Chip chip(mesh, plan);
    chip.mesh().set_watchdog(20'000);  // longer than all 35 take in turn
    uint32_t answered = 0;
    for (TileId t : chip.clients())
      chip.start(t, [&, t](Chip::Client& c) {
        (void)c.join(int32_t(t) + 1);
        for (uint32_t i = 0; i < 40; ++i) answered += c.call(ping_of(0, 2, t)).words[1] == t * 8 + 2;
      });
    const Outcome outcome = chip.run();
    INFO(outcome.describe());
    CHECK(outcome.kind == Outcome::Kind::kFinished);
    CHECK(answered == 35 * 40);
  }
}

TEST_CASE("a hardwall around all of it is torn down in the middle of a flood, and leaves nothing") {
  TestChip chip({"tilegx36", 35});
  const nocsim::HardwallId wall = chip.mesh().create_hardwall({0, 0, 6, 6});
  for (TileId t : chip.clients())
    chip.start(t, [&, t](Chip::Client& c) {
      (void)c.join(int32_t(t) + 1);
      for (uint32_t i = 0;; ++i) {
        while (c.try_send(ping_of(i, i % 8, t))) {
        }
        (void)c.receive();
      }
    });
  CHECK(chip.run(30'000).kind == Outcome::Kind::kLimit);
  CHECK(chip.mesh().faults(wall).empty());
  const nocsim::Teardown teardown = chip.mesh().tear_down(wall);
  CHECK(teardown.complete);
  CHECK(teardown.words_drained > 0);
  CHECK(chip.mesh().network().audit() == "");
}

TEST_CASE("without credits the same flood stops the mesh for ever") {
  nocsim::Mesh mesh(test::mesh_of({}));
  constexpr TileId kRoot = 21;
  constexpr uint32_t kEach = 40;
  auto send = [](nocsim::Tile& tile, TileId to, Queue queue) {
    SimNoc noc(tile);
    send_message(noc, to, queue, ping_of(0, 7, tile.id()));
  };
  for (TileId t = 0; t < 36; ++t)
    if (t != kRoot)
      mesh.start(t, [&](nocsim::Tile& tile) {
        for (uint32_t i = 0; i < kEach; ++i) send(tile, kRoot, kRequests);
        for (uint32_t i = 0; i < kEach * 8; ++i) tile.receive(kReplies);
      });
  mesh.start(
      kRoot,
      [&](nocsim::Tile& tile) {
        SimNoc noc(tile);
        for (;;) {
          const Frame f = Frame::unpacked(noc.receive<kRequests>());
          (void)receive_rest<kRequests>(noc, f);
          send(tile, f.sender, kReplies);
        }
      },
      true);
  CHECK(mesh.run(1'000'000).kind == Outcome::Kind::kDeadlock);
}

TEST_CASE("packets of strangers, and of impossible lengths, are counted and change nothing") {
  TestChip chip({"tilegx36", 10});
  Message reply;
  chip.start(chip.clients()[0], [&](Chip::Client& c) {
    (void)c.join(1);
    const Word header = c.noc().header(chip.plan().root, kRequests);
    c.noc().send(header, Frame{.type = shm::kPing, .sender = chip.plan().root}.packed());
    c.noc().send(header, Frame{.type = shm::kPing, .sender = 60000}.packed());
    c.noc().send(header, Frame{.type = shm::kPing, .words = 11, .sender = c.noc().here()}.packed());
    reply = c.call(ping_of(0, 2, 3));
  });
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(chip.strangers() == 3);
  CHECK(reply.words[1] == 26);
}
