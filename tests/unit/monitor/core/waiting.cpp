// Connections that wait for a busy acceptor, and the idle ones that could take them.
#include <errno.h>

#include <catch2/catch.hpp>

#include "tests/unit/monitor/core/world.h"

namespace sluice::monitor::core {
namespace {

using test::World;
using Calls = std::vector<std::pair<DomainId, ListenerId>>;

constexpr uint16_t kPort = 8080;

// Two processes accept at one listener; neither sleeps.
struct Busy : World {
  DomainId busy = process(), idle = process();
  DomainId first = process(), second = process();
  ListenerId id = serve(busy, kV4Any, kPort);
  Busy() { accepts(idle, id); }

  // As the shim does: sleeps, looks, speaks up.
  void falls_asleep(DomainId d) {
    ++sleeps[d];
    waiting.insert(d);
    if (waited.count(id) != 0) is_idle(d, id);
  }
  Calls calls() { return std::exchange(reconsidered, {}); }
};

TEST_CASE_METHOD(Busy, "who waits is called at once when a sibling is idle") {
  falls_asleep(idle);
  CHECK(waits(first, id));
  CHECK(calls() == Calls{{first, id}});
  CHECK(waited.empty());
  CHECK(move(first, id, busy).domain == idle);
}

TEST_CASE_METHOD(Busy, "who waits is called when a sibling falls asleep") {
  CHECK(waits(first, id));
  CHECK(calls().empty());
  CHECK(waited == std::set<ListenerId>{id});
  falls_asleep(idle);
  CHECK(calls() == Calls{{first, id}});
  CHECK(waited.empty());
}

TEST_CASE_METHOD(Busy, "a process that becomes an acceptor and sleeps takes what waits") {
  waits(first, id);
  DomainId fresh = process();
  accepts(fresh, id);
  falls_asleep(fresh);
  CHECK(calls() == Calls{{first, id}});
  CHECK(move(first, id, busy).domain == fresh);
}

TEST_CASE_METHOD(Busy, "one that sleeps before it is known as an acceptor takes what waits") {
  DomainId fresh = process();
  falls_asleep(fresh);
  waits(first, id);
  CHECK(calls().empty());
  accepts(fresh, id);
  CHECK(calls() == Calls{{first, id}});
}

TEST_CASE_METHOD(Busy, "the oldest is called first, one for each idle process") {
  waits(first, id);
  waits(second, id);
  waits(first, id);
  falls_asleep(idle);
  CHECK(calls() == Calls{{first, id}});
  CHECK(waited.size() == 1);
  CHECK(move(first, id, busy).domain == idle);
  falls_asleep(idle);
  CHECK(calls() == Calls{{second, id}});
  CHECK(waited.empty());
}

TEST_CASE_METHOD(Busy, "one that does not come is passed over when the idle one speaks up again") {
  waits(first, id);
  waits(second, id);
  falls_asleep(idle);
  is_idle(idle, id);
  CHECK(calls() == Calls{{first, id}, {second, id}});
}

TEST_CASE_METHOD(Busy, "one that waits no more gives its turn to the next") {
  waits(first, id);
  waits(second, id);
  falls_asleep(idle);
  waits_no_more(first, id);
  CHECK(calls() == Calls{{first, id}, {second, id}});
}

TEST_CASE_METHOD(Busy, "who comes too late waits again, before the others") {
  waits(first, id);
  waits(second, id);
  falls_asleep(idle);
  calls();
  waiting.clear();
  CHECK(move(first, id, busy).status == EAGAIN);
  falls_asleep(idle);
  CHECK(calls() == Calls{{first, id}});
}

TEST_CASE_METHOD(Busy, "the process where it waits is not the idle one") {
  falls_asleep(busy);
  waits(first, id);
  CHECK(calls() == Calls{{first, id}});
  CHECK(move(first, id, busy).status == EBUSY);
  CHECK(waited.empty());
  CHECK(move(first, id, idle).domain == busy);
}

TEST_CASE_METHOD(Busy, "nobody is sent to itself") {
  falls_asleep(idle);
  waits(idle, id);
  CHECK(calls().empty());
  CHECK(move(idle, id, busy).status == EAGAIN);
}

TEST_CASE_METHOD(Busy, "a process that sleeps at another listener is not idle at this one") {
  falls_asleep(idle);
  asleep_at[idle] = id + 1;
  waits(first, id);
  CHECK(calls().empty());
}

TEST_CASE_METHOD(Busy, "a process that looks again and again takes one each time") {
  waits(first, id);
  waits(second, id);
  is_idle(idle, id, true);
  CHECK(move(first, id, busy).domain == idle);
  CHECK(move(second, id, busy).status == EAGAIN);
}

TEST_CASE_METHOD(Busy, "a process that looks while nobody waits is not idle for ever") {
  is_idle(idle, id, true);
  waits(first, id);
  CHECK(calls().empty());
}

TEST_CASE_METHOD(Busy, "of those asleep, one that was given nothing yet is chosen") {
  DomainId third = process();
  accepts(third, id);
  falls_asleep(idle);
  falls_asleep(third);
  DomainId one = connect(first, kV4Loopback, kPort).domain;
  DomainId other = connect(first, kV4Loopback, kPort).domain;
  CHECK(one != other);
  CHECK(one != busy);
  CHECK(other != busy);
}

TEST_CASE_METHOD(Busy, "one asleep counts as idle although what it was given never came") {
  falls_asleep(idle);
  CHECK(connect(first, kV4Loopback, kPort).domain == idle);
  waits(second, id);
  CHECK(calls() == Calls{{second, id}});
  CHECK(move(second, id, busy).domain == idle);
}

TEST_CASE_METHOD(Busy, "listeners with SO_REUSEPORT do not take from each other") {
  ListenerId own = serve(first, kV4Any, 80, {.flags = shm::kListenReusePort});
  ListenerId others = serve(idle, kV4Any, 80, {.flags = shm::kListenReusePort});
  falls_asleep(idle);
  CHECK(own != others);
  waits(second, own);
  CHECK(calls().empty());
  CHECK(move(second, own, first, 80).status == EAGAIN);
}

TEST_CASE_METHOD(Busy, "a connection does not move to a listener with another address") {
  falls_asleep(idle);
  CHECK(move(first, id, busy, kPort + 1).status == ENOENT);
  CHECK(move(first, id, busy, kPort, kV6Loopback).status == ENOENT);
  CHECK(move(first, id, busy, kPort).status == 0);
}

TEST_CASE_METHOD(Busy, "other namespaces neither wait nor move") {
  DomainId stranger = process(1000, 2);
  falls_asleep(idle);
  waits(stranger, id);
  CHECK(calls().empty());
  CHECK(waited.empty());
  CHECK(move(stranger, id, busy).status == ENOENT);
}

TEST_CASE_METHOD(Busy, "only who accepts there calls") {
  waits(first, id);
  is_idle(second, id);
  accepts(second, id, test::AcceptorRole::kHolder);
  is_idle(second, id);
  CHECK(calls().empty());
}

TEST_CASE_METHOD(Busy, "the dead do not wait") {
  waits(first, id);
  core->remove(first);
  CHECK(waited.empty());
  falls_asleep(idle);
  CHECK(calls().empty());
}

TEST_CASE_METHOD(Busy, "nobody waits at a listener that is closed") {
  waits(first, id);
  unlisten(busy, id);
  CHECK(waited.size() == 1);
  unlisten(idle, id);
  CHECK(waited.empty());
}

TEST_CASE_METHOD(World, "one process cannot fill the line") {
  DomainId server = process(), other = process(), greedy = process(), modest = process();
  std::vector<ListenerId> ids;
  for (uint16_t port = 1; port <= 2 * kWaitsPerDomain; ++port) {
    ids.push_back(serve(server, kV4Any, port));
    accepts(other, ids.back());
    waits(greedy, ids.back());
  }
  CHECK(waited.size() == kWaitsPerDomain);
  waits(modest, ids.back());
  CHECK(waited.count(ids.back()) == 1);
}

}  // namespace
}  // namespace sluice::monitor::core
