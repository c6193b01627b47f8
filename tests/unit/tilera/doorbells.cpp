// Doorbells: memory first, then the word; one of each tile at most; none too few.
#include "tests/unit/tilera/chips.h"

using namespace sluice;
using namespace sluice::tilera;
using nocsim::Outcome;
using test::TestChip;

namespace {

// The network without fences.
struct Unfenced : SimNoc {
  using SimNoc::SimNoc;
  void fence() {}
};
static_assert(Noc<Unfenced>);

// What two tiles share besides the network.
struct Told {
  Zeroed<SharedMemory> memory;
  alignas(64) shm::Shared<uint64_t> news[kMostTiles][32] = {};  // four lines each
};

// Tile 1 tells tile 0 so many things, one after the other. Returns how often a packet went before memory was written.
template <class Network>
uint64_t tell(uint32_t things) {
  nocsim::Mesh mesh(test::mesh_of({}));
  Told shared;
  mesh.start(1, [&](nocsim::Tile& tile) {
    Network noc(tile);
    Doorbells<Network> bells(noc, *shared.memory);
    for (uint32_t n = 1; n <= things; ++n) {
      shared.news[1][0].store(n);
      writes(noc, &shared.news[1], sizeof shared.news[1]);
      bells.ring(0);
      noc.spend(200);
    }
  });
  mesh.start(0, [&](nocsim::Tile& tile) {
    Network noc(tile);
    Doorbells<Network> bells(noc, *shared.memory);
    while (shared.news[1][0].load() < things) {
      (void)bells.await_ring();
      reads(noc, &shared.news[1], sizeof shared.news[1]);
    }
  });
  CHECK(mesh.run().kind == Outcome::Kind::kFinished);
  return mesh.tile(1).counts().sends_with_open_stores;
}

}  // namespace

TEST_CASE("memory is written before the doorbell is under way, and would not be without the fence") {
  CHECK(tell<SimNoc>(20) == 0);
  CHECK(tell<Unfenced>(20) > 0);
}

TEST_CASE("a tile that does not look has one doorbell of each other at most, and hears of all when it looks") {
  TestChip chip({"tilegx36", 35});
  Told shared;
  constexpr uint64_t kThings = 40;
  const TileId listener = chip.clients()[0];
  uint32_t complete = 0;
  std::size_t waiting = 0;
  for (TileId t : chip.clients())
    if (t != listener)
      chip.start(t, [&, t](Chip::Client& c) {
        for (uint64_t n = 1; n <= kThings; ++n) {
          shared.news[t][0].store(n);
          writes(c.noc(), &shared.news[t], sizeof shared.news[t]);
          c.bells().ring(listener);
          c.noc().spend(n * 7 % 31);
        }
      });
  chip.start(listener, [&](Chip::Client& c) {
    c.noc().spend(50);  // some ring, then all while it is slow
    while (complete < chip.plan().clients - 1) {
      waiting = std::max<std::size_t>(waiting, c.noc().count<kDoorbells>());
      const TileId who = c.bells().await_ring();
      reads(c.noc(), &shared.news[who], sizeof shared.news[who]);
      if (shared.news[who][0].load() == kThings) ++complete;
      c.noc().spend(complete * 5);
    }
  });
  const Outcome outcome = chip.run();
  INFO(outcome.describe());
  CHECK(outcome.kind == Outcome::Kind::kFinished);
  CHECK(waiting <= chip.plan().clients - 1);
  CHECK(waiting > 5);
  chip.check_bounds();
}

TEST_CASE("a doorbell of nobody, or of something else, is passed over") {
  TestChip chip({"tilegx36", 3});
  TileId heard = 0;
  const TileId listener = chip.clients()[0], other = chip.clients()[1];
  chip.start(other, [&](Chip::Client& c) {
    const Word header = c.noc().header(listener, kDoorbells);
    c.noc().send(header, Frame{.type = kBell, .sender = kMostTiles}.packed());
    c.noc().send(header, Frame{.type = kCredits, .sender = other}.packed());
    c.bells().ring(listener);
  });
  chip.start(listener, [&](Chip::Client& c) { heard = c.bells().await_ring(); });
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(heard == other);
}

TEST_CASE("a program that takes a tile over goes on with its doorbells, and gets no notices of its predecessor") {
  TestChip chip({"tilegx36", 3});
  const TileId listener = chip.clients()[0], other = chip.clients()[1];
  constexpr uint32_t kPrograms = 4;
  uint32_t heard = 0, notices = 0;
  DomainId last = shm::kNobody;
  chip.start(other, [&](Chip::Client& first) {
    for (uint32_t i = 0; i < kPrograms; ++i) {
      Chip::Client c(first.noc(), chip.plan(), chip.memory());
      const DomainId me = c.join(int32_t(i) + 1);
      CHECK(me != last);  // another program is another domain
      last = me;
      Message notice;
      notices += c.try_notice(notice);
      c.bells().ring(listener);
      c.noc().spend(2000);
      c.leave();
    }
  });
  chip.start(listener, [&](Chip::Client& first) {
    for (uint32_t i = 0; i < kPrograms; ++i) {
      Chip::Client c(first.noc(), chip.plan(), chip.memory());
      heard += c.await_ring_at(shm::kEveryListener) == other;
    }
  });
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(heard == kPrograms);
  CHECK(notices == 0);
  CHECK(chip.memory().of[listener].sleeping.load() == 2 * kPrograms);
}

TEST_CASE("the coordinator forgets a tile whose program ended without a word") {
  TestChip chip({"tilegx36", 3});
  const TileId server = chip.clients()[0], client = chip.clients()[1];
  DomainId dead = shm::kNobody;
  bool is_gone = false, is_told = false, was_alive = false;
  chip.start(server, [&](Chip::Client& c) { dead = c.join(1); });
  chip.start(client, [&](Chip::Client& c) {
    (void)c.join(2);
    while (dead == shm::kNobody) c.noc().spend(100);
    CHECK(c.meet(dead) == int(server));
    was_alive = c.directory().is_alive(dead);
    chip.end(server);
    (void)c.call({shm::kPing, 0, 0, {}});
    CHECK(c.bells().await_ring() == chip.plan().root);
    Message notice;
    is_told = c.try_notice(notice) && notice.type == shm::kPeerGone && notice.words[0] == dead;
    is_gone = !c.directory().is_alive(dead);
  });
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(was_alive);
  CHECK(is_told);
  CHECK(is_gone);
}
