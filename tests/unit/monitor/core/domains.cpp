// Who comes, who goes, who hears of it, and the small requests.
#include <errno.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/unit/monitor/core/world.h"

namespace sluice::monitor::core {
namespace {

using test::Message;
using Told = std::vector<std::pair<DomainId, DomainId>>;

struct World : test::World {
  Told news() {
    Told all = std::exchange(told_gone, {});
    std::sort(all.begin(), all.end());
    return all;
  }
};

TEST_CASE_METHOD(World, "every process gets an id of its own and is alive until it is removed") {
  DomainId a = process(), b = process();
  CHECK(a != b);
  CHECK(a > shm::kCoordinator);
  CHECK(alive == std::set<DomainId>{a, b});
  CHECK(core->present() == 2);
  core->remove(a);
  CHECK(alive == std::set<DomainId>{b});
  core->remove(a);
  CHECK(core->present() == 1);
}

TEST_CASE_METHOD(World, "the id of a dead process rests before it is given again") {
  DomainId a = process();
  core->remove(a);
  for (int i = 0; i < 1000; ++i) CHECK(process() != a);
}

TEST_CASE_METHOD(World, "who is let go of for want of something comes back under its id, and nobody hears of a death") {
  DomainId a = process(), b = process();
  REQUIRE(core->pair(a, b) == 0);
  Identity identity = core->domain(a).identity;
  core->suspend(a);
  CHECK(alive == std::set<DomainId>{a, b});
  CHECK(news().empty());
  CHECK(core->is_expected(a));
  CHECK(core->present() == 1);
  CHECK(core->admit(identity, a) == a);
  CHECK(core->present() == 2);
  core->suspend(a);
  core->remove(a);  // it ended meanwhile
  CHECK(news() == Told{{b, a}});
  CHECK(alive == std::set<DomainId>{b});
  CHECK(core->present() == 1);
}

TEST_CASE_METHOD(World, "who cannot share memory with a neighbour says so to that one, and to nobody else") {
  DomainId a = process(), b = process(), c = process();
  REQUIRE(core->pair(a, b) == 0);
  Message m{};
  m.type = shm::kCannotMeet;
  m.words[0] = a | uint64_t{7} << 32;
  core->handle(b, m);
  CHECK(std::exchange(not_met, {}) == std::vector<NotMet>{{a, b, 7}});
  core->handle(c, m);                        // no neighbour
  m.words[0] = b | uint64_t{7} << 32;
  core->handle(b, m);                        // itself
  m.words[0] = (shm::kMaxDomains + 5u);
  core->handle(b, m);
  CHECK(not_met.empty());
}

TEST_CASE_METHOD(World, "ids run out without a crash and come back with the dead") {
  DomainId last = shm::kNobody;
  uint32_t given = 0;
  while (DomainId d = process()) {
    last = d;
    ++given;
  }
  CHECK(given == shm::kFirstInFlight - 2);
  CHECK(core->reserve(last) == shm::kNobody);
  core->remove(last);
  CHECK(process() == last);
}

TEST_CASE_METHOD(World, "what stands in for a passed connection lives, is no process, and takes no process's id") {
  DomainId sender = process();
  DomainId first = core->begin_flight(sender), second = core->begin_flight(sender);
  CHECK(first >= shm::kFirstInFlight);
  CHECK(second >= shm::kFirstInFlight);
  CHECK(first != second);
  CHECK(alive.count(first) == 1);
  CHECK(core->present() == 1);
  core->remove(first);
  CHECK(alive.count(first) == 0);
  CHECK(core->is_alive(second));
  CHECK(core->present() == 1);
  CHECK(core->begin_flight(shm::kNobody) == shm::kNobody);
  CHECK(core->begin_flight(second) == shm::kNobody);
  CHECK(core->reserve(second) == shm::kNobody);
}

TEST_CASE_METHOD(World, "ids for passed connections run out without a crash and come back") {
  DomainId sender = process(), last = shm::kNobody;
  uint32_t given = 0;
  while (DomainId d = core->begin_flight(sender)) {
    last = d;
    ++given;
  }
  CHECK(given == shm::kMaxDomains - shm::kFirstInFlight);
  CHECK(process() != shm::kNobody);
  core->remove(last);
  CHECK(core->begin_flight(sender) == last);
}

TEST_CASE_METHOD(World, "nobody registers under the id of a passed connection") {
  CHECK(core->admit({1000, 1, 10}, shm::kFirstInFlight) < shm::kFirstInFlight);
  DomainId a = process();
  core->announce(a, shm::kFirstInFlight + 1, 77);
  CHECK_FALSE(core->is_expected(shm::kFirstInFlight + 1));
}

TEST_CASE_METHOD(World, "who was passed a connection hears of the death of its other side") {
  DomainId peer = process(), taker = process();
  CHECK(core->share(taker, peer) == 0);
  CHECK(core->share(taker, taker) == 0);
  core->remove(peer);
  CHECK(news() == Told{{taker, peer}});
  CHECK(core->share(taker, peer) == ESRCH);
}

TEST_CASE_METHOD(World, "so does one who was passed it before its other side came to a new coordinator") {
  DomainId other = process(), taker = process();
  core->announce(other, 4242, 99);
  CHECK(core->share(taker, 4242) == 0);
  core->remove(4242);
  CHECK(news() == Told{{other, 4242}, {taker, 4242}});
}

TEST_CASE_METHOD(World, "a process gets the id it had before the coordinator restarted, if it is free") {
  CHECK(core->admit({1000, 1, 10}, 4242) == 4242);
  DomainId second = core->admit({1000, 1, 11}, 4242);
  CHECK(second != 4242);
  CHECK(second != shm::kNobody);
}

TEST_CASE_METHOD(World, "ids that nobody can have are not given") {
  for (DomainId wanted : {shm::kNobody, shm::kCoordinator, shm::kMaxDomains, UINT32_MAX}) {
    DomainId id = core->admit({1000, 1, 10}, wanted);
    CHECK(DomainTable::is_valid(id));
    CHECK(id != wanted);
  }
}

// ---- fork -------------------------------------------------------------------------------

TEST_CASE_METHOD(World, "a reserved child is alive and has no say until it enters") {
  DomainId parent = process();
  DomainId child = core->reserve(parent);
  REQUIRE(child != shm::kNobody);
  CHECK(alive.count(child) == 1);
  CHECK(core->present() == 2);
  CHECK(tell(child, {shm::kPing}));
  CHECK(core->enter(child, {1000, 1, 77}));
  CHECK(ask(child, {shm::kPing}).status == 0);
  CHECK_FALSE(core->enter(child, {1000, 1, 78}));
}

TEST_CASE_METHOD(World, "only reserved ids can be entered, only the living reserve") {
  DomainId parent = process();
  CHECK_FALSE(core->enter(parent, {0, 1, 77}));
  CHECK_FALSE(core->enter(parent + 1, {0, 1, 77}));
  CHECK_FALSE(core->enter(UINT32_MAX, {0, 1, 77}));
  CHECK(core->reserve(parent + 1) == shm::kNobody);
  CHECK(core->reserve(UINT32_MAX) == shm::kNobody);
  core->remove(parent);
  CHECK(core->reserve(parent) == shm::kNobody);
}

TEST_CASE_METHOD(World, "a child that inherits connections hears of the deaths its parent hears of") {
  DomainId parent = process(), peer = process();
  REQUIRE(core->pair(parent, peer) == 0);
  DomainId child = core->reserve(parent);
  core->enter(child, {1000, 1, 77});
  core->remove(peer);
  CHECK(news() == Told{{parent, peer}, {child, peer}});
}

TEST_CASE_METHOD(World, "a reserved child hears of deaths before it has said a word") {
  DomainId parent = process(), peer = process();
  REQUIRE(core->pair(parent, peer) == 0);
  DomainId child = core->reserve(parent);
  core->remove(peer);
  CHECK(news() == Told{{parent, peer}, {child, peer}});
}

TEST_CASE_METHOD(World, "a peer hears of the death of a child that shares its connections") {
  DomainId parent = process(), peer = process();
  REQUIRE(core->pair(parent, peer) == 0);
  DomainId child = core->reserve(parent);
  core->remove(child);
  CHECK(news() == Told{{parent, child}, {peer, child}});
}

// ---- pairs and deaths -------------------------------------------------------------------

TEST_CASE_METHOD(World, "a death is told to those who share regions with the dead, once") {
  DomainId a = process(), b = process(), c = process(), d = process();
  CHECK(core->pair(a, b) == 0);
  CHECK(core->pair(b, a) == 0);
  CHECK(core->pair(c, a) == 0);
  CHECK(core->pair(c, d) == 0);
  core->remove(a);
  CHECK(news() == Told{{b, a}, {c, a}});
  core->remove(b);
  CHECK(news().empty());
  core->remove(c);
  CHECK(news() == Told{{d, c}});
}

TEST_CASE_METHOD(World, "nobody pairs with the absent or with another network namespace") {
  DomainId a = process();
  CHECK(core->pair(a, a) == 0);
  CHECK(core->pair(a, a + 1) == ESRCH);
  CHECK(core->pair(a, 0) == ESRCH);
  CHECK(core->pair(a, UINT32_MAX) == ESRCH);
  CHECK(core->pair(a, process(1000, 2)) == EACCES);
  CHECK(core->pair(a, core->reserve(a)) == ESRCH);
}

TEST_CASE_METHOD(World, "when the table of pairs is full everybody hears of a child's death") {
  std::vector<DomainId> all;
  bool full = false;
  while (!full) {
    all.push_back(process());
    for (std::size_t i = 0; i + 1 < all.size() && !full; ++i)
      full = core->pair(all[i], all.back()) == ENOMEM;
  }
  DomainId child = core->reserve(all[0]);
  REQUIRE(child != shm::kNobody);
  core->remove(child);
  Told told = news();
  CHECK(told.size() == all.size());
  CHECK(std::unique(told.begin(), told.end()) == told.end());
  core->remove(all[1]);
  CHECK(core->pair(process(), all[0]) == 0);
}

// ---- after a restart of the coordinator -------------------------------------------------

TEST_CASE_METHOD(World, "an announced peer is alive and watched until it registers") {
  DomainId a = process();
  core->announce(a, 4242, 99);
  CHECK(alive.count(4242) == 1);
  CHECK(watched == std::map<DomainId, int32_t>{{4242, 99}});
  CHECK(core->admit({1000, 1, 99}, 4242) == 4242);
  CHECK(watched.empty());
  core->remove(4242);
  CHECK(news() == Told{{a, 4242}});
}

TEST_CASE_METHOD(World, "an announced peer that has died is reported") {
  DomainId a = process();
  core->announce(a, 4242, 99);
  core->remove(4242);
  CHECK(news() == Told{{a, 4242}});
  CHECK(watched.empty());
  CHECK(alive == std::set<DomainId>{a});
}

TEST_CASE_METHOD(World, "an announced peer whom nobody knows any more is forgotten") {
  DomainId a = process(), b = process();
  core->announce(a, 4242, 99);
  core->announce(b, 4242, 99);
  core->remove(a);
  CHECK(alive.count(4242) == 1);
  core->remove(b);
  CHECK(alive.empty());
  CHECK(watched.empty());
}

TEST_CASE_METHOD(World, "nobody takes an announced id but the process that was announced") {
  DomainId a = process();
  core->announce(a, 4242, 99);
  CHECK(core->admit({1000, 1, 100}, 4242) != 4242);
  CHECK(core->admit({1000, 1, 99}, 4242) == 4242);
}

TEST_CASE_METHOD(World, "an announced peer whose id belongs to another process is gone") {
  DomainId a = process(), b = process();
  core->announce(a, b, core->domain(b).identity.pid + 1);
  CHECK(news() == Told{{a, b}});
  core->announce(a, b, core->domain(b).identity.pid);
  CHECK(news().empty());
  core->remove(b);
  CHECK(news() == Told{{a, b}});
}

TEST_CASE_METHOD(World, "announcements of impossible peers are ignored") {
  DomainId a = process();
  for (DomainId peer : {shm::kNobody, shm::kCoordinator, shm::kMaxDomains, UINT32_MAX, a})
    core->announce(a, peer, 1);
  core->announce(a + 1, 4242, 1);
  CHECK(alive == std::set<DomainId>{a});
  CHECK(watched.empty());
}

// ---- ports ------------------------------------------------------------------------------

struct Ports : World {
  static constexpr uint32_t kFirst = 61000, kBlocks = 2 * kUnquestionedLeases;
  Ports() { core->add_port_range(kFirst, kFirst + kBlocks * kPortsPerLease - 1); }
  Message lease(DomainId d) { return ask(d, {shm::kLeasePorts}); }
};

TEST_CASE_METHOD(Ports, "leased ports belong to one process at a time") {
  DomainId a = process(), b = process();
  std::set<uint64_t> firsts;
  for (uint32_t i = 0; i < kUnquestionedLeases; ++i) {
    for (DomainId d : {a, b}) {
      Message m = lease(d);
      REQUIRE(m.status == 0);
      uint64_t first = m.words[0] & 0xffffffff, count = m.words[0] >> 32;
      CHECK(count == kPortsPerLease);
      CHECK(first >= kFirst);
      CHECK(first + count <= kFirst + kBlocks * kPortsPerLease);
      CHECK((first - kFirst) % kPortsPerLease == 0);
      CHECK(firsts.insert(first).second);
    }
  }
  CHECK(lease(process()).status == ENOSPC);
}

TEST_CASE_METHOD(Ports, "leased ports come back at death") {
  for (int i = 0; i < 100; ++i) {
    DomainId d = process();
    REQUIRE(lease(d).status == 0);
    REQUIRE(lease(d).status == 0);
    core->remove(d);
  }
}

TEST_CASE_METHOD(Ports, "one process leaves a quarter of the ports to others") {
  DomainId greedy = process();
  uint32_t leases = 0;
  while (lease(greedy).status == 0) ++leases;
  CHECK(leases == kBlocks * 3 / 4);
  CHECK(lease(process()).status == 0);
}

TEST_CASE_METHOD(Ports, "ports on which somebody listens are not leased") {
  DomainId server = process();
  for (uint32_t block = 1; block < kBlocks; ++block)
    REQUIRE(listen(server, kV4Any, uint16_t(kFirst + block * kPortsPerLease + 7)) != 0);
  DomainId a = process();
  CHECK((lease(a).words[0] & 0xffffffff) == kFirst);
  CHECK(lease(a).status == ENOSPC);
}

TEST_CASE_METHOD(World, "without a range there are no ports to lease") {
  CHECK(ask(process(), {shm::kLeasePorts}).status == ENOSPC);
}

// ---- the rest ---------------------------------------------------------------------------

TEST_CASE_METHOD(World, "a ping comes back as it was") {
  Message m = ask(process(), {shm::kPing, 0, 0, {1, 2, 3, 4, 5, 6, UINT64_MAX}});
  CHECK(m.status == 0);
  CHECK(m.words[0] == 1);
  CHECK(m.words[6] == UINT64_MAX);
}

TEST_CASE_METHOD(World, "an unknown request is EOPNOTSUPP") {
  DomainId a = process();
  for (uint16_t type : {uint16_t(0), uint16_t(shm::kCannotMeet + 1), uint16_t(64), uint16_t(UINT16_MAX)})
    CHECK(ask(a, {type}).status == EOPNOTSUPP);
}

TEST_CASE_METHOD(World, "requests of the absent are not heard") {
  DomainId dead = process();
  core->remove(dead);
  for (DomainId from : {dead, shm::kNobody, shm::kCoordinator, shm::kMaxDomains, UINT32_MAX})
    for (uint16_t type = 0; type < 10; ++type) CHECK(tell(from, {type}));
}

TEST_CASE_METHOD(World, "a bell is rung for the present only") {
  DomainId a = process(), b = process();
  CHECK(tell(a, {shm::kRing, 0, 0, {b}}));
  CHECK(rung == std::vector<DomainId>{b});
  core->remove(b);
  for (uint64_t to : {uint64_t{b}, uint64_t{0}, uint64_t{1}, uint64_t{1} << 32 | a, UINT64_MAX})
    CHECK(tell(a, {shm::kRing, 0, 0, {to}}));
  CHECK(rung.size() == 1);
}

TEST_CASE_METHOD(World, "death takes listeners, grants, ports and pairs along") {
  core->add_port_range(61000, 61999);
  DomainId server = process(), client = process();
  serve(server, kV4Any, 80);
  serve(server, kV6Any, 81);
  REQUIRE(connect(client, kV4Loopback, 80, {.grant = true}).choices == 1);
  REQUIRE(core->pair(client, server) == 0);
  REQUIRE(ask(client, {shm::kLeasePorts}).status == 0);
  core->remove(server);
  core->remove(client);
  CHECK(core->present() == 0);
  CHECK(core->listeners() == 0);
  CHECK(ports.empty());
  CHECK(alive.empty());
  CHECK(core->domain(client).memberships == 0);
}

TEST_CASE_METHOD(World, "the id of a dead process is for no other one that asks for it") {
  DomainId dead = core->admit({1000, 1, 5000}, shm::kNobody);
  core->remove(dead);
  CHECK(core->admit({1000, 1, 6000}, dead) != dead);
  CHECK(core->admit({1001, 1, 5000}, dead) != dead);
  // The same process comes back: its connection to the coordinator was lost.
  CHECK(core->admit({1000, 1, 5000}, dead) == dead);
  // Nobody had this one since the coordinator began, so it is from before.
  CHECK(core->admit({1000, 1, 7000}, dead + 1000) == dead + 1000);
}

}  // namespace
}  // namespace sluice::monitor::core
