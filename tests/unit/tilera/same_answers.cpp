// The core says over the network what it says when it is called directly: every reply word for word, and every notice.
#include <cstring>

#include "tests/unit/monitor/core/world.h"
#include "tests/unit/tilera/chips.h"

using namespace sluice;
using namespace sluice::tilera;
using core::kV4Loopback;
using core::test::World;
using test::Choice;
using test::TestChip;

namespace {

constexpr DomainId kServer = 2, kOther = 3, kFirst = 4, kSecond = 5;  // as they join, one after the other
constexpr uint16_t kPort = 8080;

struct Step {
  DomainId who;
  Message says;
};

Message listen(uint16_t port, bool reuse = false) {
  const core::AddressWords a = core::words_of(kV4Loopback);
  return {shm::kListen, 0, 0, {a.first, a.second, port | uint64_t{reuse ? 2u : 0u} << 32, 128}};
}
Message connect(uint16_t port, bool grant = false) {
  const core::AddressWords a = core::words_of(kV4Loopback);
  return {shm::kConnect, 0, 0, {a.first, a.second, port, grant}};
}
Message accepts(core::ListenerId l) { return {shm::kAcceptor, 0, 0, {l, uint64_t(shm::AcceptorRole::kAccepts)}}; }

// Listens, connects, waits, moves and withdraws, as clients do; and says what is wrong. `l`, `k`: the ids of the first two
// listeners, which the core gives out in order.
std::vector<Step> story(core::ListenerId l, core::ListenerId k) {
  const core::AddressWords a = core::words_of(kV4Loopback);
  return {
      {kFirst, connect(kPort)},
      {kServer, listen(kPort)},
      {kFirst, connect(kPort)},
      {kServer, accepts(l)},
      {kFirst, connect(kPort)},
      {kSecond, connect(kPort, true)},
      {kSecond, {shm::kPing, 0, 0, {1, 2, 3, 4, 5, 6, 7}}},
      {kServer, {shm::kMay, 0, 0, {kFirst, l}}},
      {kServer, {shm::kWho, 0, 0, {kFirst, 99}}},
      {kFirst, {shm::kLeasePorts, 0, 0, {}}},
      {kFirst, {shm::kWaiting, 0, 0, {l, 1}}},
      {kOther, listen(kPort + 1, true)},
      {kOther, accepts(k)},
      {kSecond, connect(kPort + 1, true)},
      {kServer, {shm::kIdle, 0, 0, {l, 1}}},
      {kFirst, {shm::kMove, 0, 0, {l | uint64_t{kServer} << 32, a.first, a.second, kPort}}},
      {kFirst, {shm::kWaiting, 0, 0, {l, 0}}},
      {kServer, {shm::kUnlisten, 0, 0, {l}}},  // revokes the second's grant
      {kSecond, connect(kPort, true)},
      {kOther, {shm::kUnlisten, 0, 0, {k}}},
      {kFirst, {shm::kCannotMeet, 0, 0, {kServer | uint64_t{7} << 32}}},
      {kServer, {99, 0, 0, {1, 2}}},  // no such request
      {kServer, {shm::kListen, 0, 0, {0, 0, 0, 0}}},
  };
}

bool is_notice(const Message& m, uint16_t type, uint64_t word) { return m.type == type && m.words[0] == word; }

struct Heard {
  std::vector<Message> replies;
  std::vector<std::pair<DomainId, Message>> notices;
};

// What the core says in a world where it is called.
Heard directly(const std::vector<Step>& steps) {
  World w;
  w.core = std::make_unique<core::CoordinatorCore>();
  w.core->init(w, 2);
  for (int32_t pid = 1; pid <= 4; ++pid) (void)w.core->admit({0, 1, pid}, shm::kNobody);
  CHECK(w.core->pair(kFirst, kServer) == 0);
  Heard h;
  for (const Step& s : steps) {
    std::size_t before = w.replies.size();
    w.core->handle(s.who, s.says);
    h.replies.push_back(w.replies.size() == before ? Message{kTaken, 0, 0, {}} : w.replies.back().second);
  }
  w.core->remove(kServer);
  for (auto [to, l] : w.revoked) h.notices.push_back({to, {shm::kRevoke, 0, 0, {l}}});
  for (auto [to, l] : w.reconsidered) h.notices.push_back({to, {shm::kReconsider, 0, 0, {l}}});
  for (auto [to, dead] : w.told_gone) h.notices.push_back({to, {shm::kPeerGone, 0, 0, {dead}}});
  for (auto n : w.not_met) h.notices.push_back({n.to, {shm::kUnmet, 0, 0, {n.peer, n.generation}}});
  return h;
}

// What four clients hear over the network, of which one speaks at a time.
Heard over(const Choice& choice, const std::vector<Step>& steps) {
  TestChip chip(choice);
  Heard h;
  h.replies.resize(steps.size());
  std::size_t turn = 0;
  uint32_t joined = 0;
  const TileId speakers[] = {chip.clients().front(), chip.clients()[1], chip.clients()[2], chip.clients().back()};
  for (uint32_t n = 0; n < 4; ++n)
    chip.start(speakers[n], [&, n](Chip::Client& c) {
      const DomainId me = kServer + n;
      while (joined != n) c.noc().spend(10);
      CHECK(c.join(int32_t(n) + 1) == me);
      ++joined;
      while (joined < 4) c.noc().spend(10);
      if (me == kFirst) CHECK(c.meet(kServer) == int(speakers[0]));
      if (me == kFirst) CHECK(c.meet(77) == -ESRCH);
      if (me == kFirst) joined = 5;
      while (joined < 5) c.noc().spend(10);
      while (turn < steps.size()) {
        if (steps[turn].who != me) {
          c.noc().spend(10);
          continue;
        }
        h.replies[turn] = c.call(steps[turn].says);
        h.replies[turn].id = 0;
        ++turn;
      }
      if (me == kServer) {
        c.leave();
        CHECK_FALSE(c.directory().is_alive(me));
        ++turn;
      }
      while (turn == steps.size()) c.noc().spend(10);
      for (Message notice; c.try_notice(notice);) h.notices.push_back({me, notice});
    });
  const nocsim::Outcome outcome = chip.run(10'000'000);
  INFO(outcome.describe());
  CHECK(outcome.kind == nocsim::Outcome::Kind::kFinished);
  chip.check_bounds();
  return h;
}

}  // namespace

TEST_CASE("listen, connect, wait, move and withdraw are answered over the network as by the core itself") {
  // The ids of listeners: what the core gives the first two.
  const Heard first = directly({{kServer, listen(kPort)}, {kOther, listen(kPort + 1)}});
  const auto steps = story(core::ListenerId(first.replies[0].words[0]), core::ListenerId(first.replies[1].words[0]));
  const Heard expected = directly(steps);
  CHECK(expected.replies[0].status == ENOENT);
  CHECK(expected.replies[4].status == 0);
  CHECK(std::count_if(expected.notices.begin(), expected.notices.end(),
                      [](const auto& n) { return n.first == kSecond && n.second.type == shm::kRevoke; }) >= 1);
  CHECK(std::count_if(expected.notices.begin(), expected.notices.end(),
                      [](const auto& n) { return n.first == kFirst && is_notice(n.second, shm::kPeerGone, kServer); }) == 1);
  for (const Choice& choice : test::kChoices) {
    if (choice.clients < 4) continue;
    INFO(choice.profile << ", " << choice.clients << " clients, packets of " << choice.packet_words);
    const Heard heard = over(choice, steps);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      INFO("step " << i);
      CHECK(memcmp(&heard.replies[i], &expected.replies[i], sizeof(Message)) == 0);
    }
    for (const auto& [to, notice] : expected.notices) {
      INFO("notice " << notice.type << " to " << to);
      auto same = [&](const auto& n) { return n.first == to && memcmp(&n.second, &notice, sizeof notice) == 0; };
      if (to == kServer && notice.type == shm::kPeerGone) continue;
      CHECK(std::count_if(heard.notices.begin(), heard.notices.end(), same) ==
            std::count_if(expected.notices.begin(), expected.notices.end(), same));
    }
    CHECK(heard.notices.size() == expected.notices.size());
  }
}

TEST_CASE("the directory shows a port and a life before the reply says so") {
  TestChip chip({"tilegx36", 35});
  bool before = true, after = false, alive = false;
  chip.start(chip.clients()[0], [&](Chip::Client& c) {
    const DomainId me = c.join(1);
    alive = c.directory().is_alive(me);
    before = c.directory().has_port(kPort);
    (void)c.call(listen(kPort));
    after = c.directory().has_port(kPort);
  });
  CHECK(chip.run().kind == nocsim::Outcome::Kind::kFinished);
  CHECK(alive);
  CHECK_FALSE(before);
  CHECK(after);
}

TEST_CASE("more notices than there is room for become one that says so") {
  TestChip chip({"tilegx36", 35});
  constexpr uint32_t kMany = 80;
  uint32_t told = 0, overruns = 0;
  bool over = false;
  chip.start(chip.clients()[0], [&](Chip::Client& c) {
    (void)c.join(1);
    while (!over) c.noc().spend(100);
    for (Message n; c.try_notice(n);) ++(n.type == kOverrun ? overruns : told);
    CHECK(c.bells().await_ring() == chip.plan().root);
    CHECK_FALSE(c.bells().is_rung());
  });
  chip.start(chip.clients()[1], [&](Chip::Client& c) {
    c.noc().spend(2000);
    for (uint32_t i = 0; i < kMany; ++i) {
      (void)c.join(int32_t(i) + 10);
      if (c.meet(kServer) < 0) FAIL("no peer");
      c.leave();
    }
    over = true;
  });
  CHECK(chip.run().kind == nocsim::Outcome::Kind::kFinished);
  CHECK(told == shm::kMessages);
  CHECK(overruns == 1);
  chip.check_bounds();
}
