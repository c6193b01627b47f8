// Whatever clients send, the core neither crashes nor gives anybody what is not theirs. Built
// with AddressSanitizer as well.
#include <errno.h>

#include <catch2/catch.hpp>
#include <random>

#include "tests/unit/monitor/core/rules.h"
#include "tests/unit/monitor/core/world.h"

namespace sluice::monitor::core {
namespace {

using test::Message;

constexpr int kMessages = 1'000'000;

struct Chaos : test::World {
  std::mt19937_64 random{42};
  std::vector<DomainId> crowd;  // ids given lately
  ListenerId known_listeners[64] = {};
  uint64_t connected = 0, called = 0;

  uint64_t below(uint64_t n) { return random() % n; }
  uint64_t wild() { return random() >> below(64); }
  DomainId someone() {
    return crowd.empty() || below(50) == 0 ? DomainId(wild()) : crowd[below(crowd.size())];
  }
  Address some_address() {
    const Address known[] = {kV4Any, kV4Loopback, kV6Any, kV6Loopback, v4(10, 0, 0, 1)};
    return below(20) ? known[below(5)] : address_of(wild(), wild());
  }
  uint64_t some_listener() { return below(10) ? known_listeners[below(64)] : wild(); }

  void come_and_go() {
    switch (below(8)) {
      case 0: return core->remove(someone());
      case 1: return keep(core->reserve(someone()));
      case 2: return void(core->enter(someone(), identity()));
      case 3: return void(core->pair(someone(), someone()));
      case 4: return core->announce(someone(), someone(), int32_t(below(100)));
      default: return keep(core->admit(identity(), below(2) ? 0 : someone()));
    }
  }
  Identity identity() { return {uint32_t(below(3)), below(2), int32_t(below(100))}; }
  void keep(DomainId d) {
    if (d == shm::kNobody) return;
    if (crowd.size() >= 40) {
      core->remove(crowd[0]);
      crowd.erase(crowd.begin());
    }
    crowd.push_back(d);
  }

  Message some_message() {
    Message m{};
    m.type = uint16_t(below(20) ? below(shm::kMay + 2) : wild());
    m.status = uint16_t(wild());
    m.id = uint32_t(wild());
    for (uint64_t& word : m.words) word = below(3) ? below(10) : wild();
    AddressWords a = words_of(some_address());
    if (m.type == shm::kListen || m.type == shm::kConnect) {
      if (below(20)) m.words[0] = a.first, m.words[1] = a.second;
      if (below(20)) m.words[2] = below(30) | below(4) << 32;
    }
    if (m.type == shm::kUnlisten || m.type == shm::kAcceptor || m.type == shm::kWaiting ||
        m.type == shm::kIdle) {
      m.words[0] = some_listener();
      if (below(5)) m.words[1] = below(3);
    }
    if (m.type == shm::kMove) {
      m.words[0] = some_listener() | uint64_t{someone()} << 32;
      if (below(20)) m.words[1] = a.first, m.words[2] = a.second, m.words[3] = below(30);
    }
    return m;
  }

  // Whether the one reply that `m` may have had is in order.
  bool is_fair(DomainId from, const Message& m) {
    if (replies.empty()) return true;
    auto [to, r] = replies[0];
    if (replies.size() != 1 || to != from || r.id != m.id || alive.count(from) == 0) return false;
    if (r.status != 0) return true;
    if (m.type == shm::kListen) known_listeners[below(64)] = ListenerId(r.words[0]);
    if (m.type != shm::kConnect && m.type != shm::kMove) return true;
    ++connected;
    const Domain& theirs = core->domain(DomainId(r.words[0]));
    return theirs.presence == Presence::kPresent && theirs.memberships != 0 &&
           int32_t(r.words[4]) == theirs.identity.pid;
  }
};

TEST_CASE_METHOD(Chaos, "a million random messages get fair replies and leave nothing behind") {
  core->add_port_range(60000, 65535);
  test::Rules rules;
  rules.rule({.uids = {{1, 1}}, .ports = {{0, 5}}}).rule({Verdict::kKernel, kListening, {{2, 2}}, {{3, 9}}});
  rules.limit({.uids = {{0, 0}}, .clients = 5, .requests = 20000, .burst = 10}).limit({.uids = {{1, 1}}, .bytes = 9});
  for (int i = 0; i < kMessages; ++i) {
    if (below(50) == 0) come_and_go();
    if (below(2000) == 0) core->set_policy(below(2) ? static_cast<const Policy*>(rules) : nullptr);
    core->tell_time(uint64_t(i) * 1000);
    if (below(100) == 0) waiting = {someone(), someone()};
    policy_allows = below(20) != 0;
    replies.clear();
    DomainId from = someone();
    Message m = some_message();
    core->handle(from, m);
    if (!is_fair(from, m)) FAIL("message " << i << " of type " << m.type);
    revoked.clear();
    told_gone.clear();
    rung.clear();
    called += reconsidered.size();
    reconsidered.clear();
  }
  CHECK(connected > 500);
  CHECK(called > 10);

  for (DomainId d = 0; d < shm::kMaxDomains; ++d) core->remove(d);
  core->remove(UINT32_MAX);
  CHECK(core->present() == 0);
  CHECK(core->listeners() == 0);
  CHECK(alive.empty());
  CHECK(ports.empty());
  CHECK(waited.empty());
  CHECK(watched.empty());
}

TEST_CASE_METHOD(test::World, "values at the edges of every word do no harm") {
  DomainId a = process();
  serve(a, kV4Any, 80);
  const uint64_t edges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, uint64_t{1} << 32,
                            uint64_t{1} << 63, UINT64_MAX};
  for (uint16_t type = 0; type <= shm::kMay + 1; ++type)
    for (uint64_t first : edges)
      for (uint64_t second : edges)
        for (uint64_t third : edges)
          core->handle(a, {type, 0, 0, {first, second, third, first, second, third, first}});
  core->remove(a);
  CHECK(core->listeners() == 0);
  CHECK(ports.empty());
}

}  // namespace
}  // namespace sluice::monitor::core
