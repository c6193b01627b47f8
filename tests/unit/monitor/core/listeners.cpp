// Who may listen where, and whom a connect reaches.
#include <errno.h>

#include <catch2/catch.hpp>

#include "tests/unit/monitor/core/world.h"

namespace sluice::monitor::core {
namespace {

using test::Connected;
using test::ListenOptions;
using test::Message;
using Role = shm::AcceptorRole;

constexpr uint16_t kPort = 8080;
constexpr uint64_t kOtherNetns = 2;
constexpr Address kHost = v4(192, 168, 1, 5);
constexpr Address kV6Host = {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}};

struct World : test::World {
  DomainId server = process();
  DomainId client = process(2000);
  int status(const Address& a, uint16_t port = kPort) { return connect(client, a, port).status; }
  ListenerId reached(const Address& a) {
    Connected c = connect(client, a, kPort);
    return c.status == 0 ? c.listener : 0;
  }
};

TEST_CASE_METHOD(World, "a connect reaches the process that accepts") {
  ListenerId id = serve(server, kV4Loopback, kPort, {.backlog = 511});
  REQUIRE(id != 0);
  Connected c = connect(client, kV4Loopback, kPort);
  CHECK(c.status == 0);
  CHECK(c.domain == server);
  CHECK(c.listener == id);
  CHECK(c.backlog == 511);
  CHECK(c.choices == 0);
  CHECK(c.address == kV4Loopback);
  CHECK(c.pid == core->domain(server).identity.pid);
}

TEST_CASE_METHOD(World, "a process may connect to itself") {
  serve(server, kV4Loopback, kPort);
  CHECK(connect(server, kV4Loopback, kPort).domain == server);
}

TEST_CASE_METHOD(World, "a connect to a port without a listener is ENOENT") {
  serve(server, kV4Loopback, kPort);
  CHECK(status(kV4Loopback, kPort + 1) == ENOENT);
  CHECK(status(kHost) == ENOENT);
  CHECK(status(kV6Loopback) == ENOENT);
}

TEST_CASE_METHOD(World, "a connect to a listener on which nobody accepts yet is EAGAIN") {
  listen(server, kV4Loopback, kPort);
  CHECK(status(kV4Loopback) == EAGAIN);
}

TEST_CASE_METHOD(World, "the only holder gets connections before it accepts") {
  ListenerId id = listen(server, kV4Loopback, kPort, {.only = true});
  CHECK(reached(kV4Loopback) == id);
}

TEST_CASE_METHOD(World, "a holder that is no longer the only one must accept first") {
  ListenerId id = listen(server, kV4Loopback, kPort, {.only = true});
  DomainId child = process();
  accepts(child, id, Role::kHolder);
  CHECK(status(kV4Loopback) == EAGAIN);
  accepts(child, id);
  CHECK(connect(client, kV4Loopback, kPort).domain == child);
}

TEST_CASE_METHOD(World, "who accepts is preferred to an only holder") {
  listen(server, kV4Any, kPort, {.flags = shm::kListenReusePort, .only = true});
  DomainId other = process();
  serve(other, kV4Any, kPort, {.flags = shm::kListenReusePort});
  for (int i = 0; i < 4; ++i) CHECK(connect(client, kV4Loopback, kPort).domain == other);
}

TEST_CASE_METHOD(World, "an acceptor that goes back to holding gets no more connections") {
  ListenerId id = serve(server, kV4Loopback, kPort);
  accepts(server, id, Role::kHolder);
  CHECK(status(kV4Loopback) == EAGAIN);
}

TEST_CASE_METHOD(World, "the wildcard of IPv4 listens on every IPv4 address and on no other") {
  ListenerId id = serve(server, kV4Any, kPort);
  CHECK(reached(kV4Loopback) == id);
  CHECK(reached(v4(127, 9, 9, 9)) == id);
  CHECK(reached(kHost) == id);
  CHECK(status(kV6Loopback) == ENOENT);
  CHECK(status(kV6Host) == ENOENT);
}

TEST_CASE_METHOD(World, "the wildcard of IPv6 listens on IPv4 too") {
  ListenerId id = serve(server, kV6Any, kPort);
  CHECK(reached(kV6Loopback) == id);
  CHECK(reached(kV6Host) == id);
  CHECK(reached(kV4Loopback) == id);
  CHECK(reached(kHost) == id);
}

TEST_CASE_METHOD(World, "with IPV6_V6ONLY the wildcard of IPv6 leaves IPv4 alone") {
  ListenerId id = serve(server, kV6Any, kPort, {.flags = shm::kListenV6Only});
  CHECK(reached(kV6Loopback) == id);
  CHECK(status(kV4Loopback) == ENOENT);
  ListenerId v4_id = serve(server, kV4Any, kPort);
  CHECK(v4_id != id);
  CHECK(reached(kV4Loopback) == v4_id);
  CHECK(reached(kV6Loopback) == id);
}

TEST_CASE_METHOD(World, "a bound address is preferred to a wildcard, whoever came first") {
  ListenerId any = serve(server, kV4Any, kPort);
  ListenerId loopback = serve(server, kV4Loopback, kPort);
  ListenerId host = serve(server, kHost, kPort);
  CHECK(reached(kV4Loopback) == loopback);
  CHECK(reached(kHost) == host);
  CHECK(reached(v4(127, 0, 0, 2)) == any);
  CHECK(reached(v4(10, 0, 0, 1)) == any);
}

TEST_CASE_METHOD(World, "for IPv4 its own wildcard is preferred to that of IPv6") {
  ListenerId v6_any = serve(server, kV6Any, kPort);
  ListenerId v4_any = serve(server, kV4Any, kPort);
  CHECK(reached(kV4Loopback) == v4_any);
  CHECK(reached(kV6Loopback) == v6_any);
}

TEST_CASE_METHOD(World, "the closest listener gets the connect even if nobody accepts on it") {
  serve(server, kV4Any, kPort);
  listen(server, kV4Loopback, kPort);
  CHECK(status(kV4Loopback) == EAGAIN);
}

TEST_CASE_METHOD(World, "a connect to the unspecified address goes to loopback") {
  ListenerId v4_id = serve(server, kV4Loopback, kPort);
  ListenerId v6_id = serve(server, kV6Loopback, kPort);
  Connected c = connect(client, kV4Any, kPort);
  CHECK(c.listener == v4_id);
  CHECK(c.address == kV4Loopback);
  c = connect(client, kV6Any, kPort);
  CHECK(c.listener == v6_id);
  CHECK(c.address == kV6Loopback);
}

TEST_CASE_METHOD(World, "loopback of one network namespace is not loopback of another") {
  serve(server, kV4Loopback, kPort);
  DomainId stranger = process(1000, kOtherNetns);
  CHECK(connect(stranger, kV4Loopback, kPort).status == ENOENT);
  ListenerId theirs = serve(stranger, kV4Loopback, kPort);
  CHECK(connect(stranger, kV4Loopback, kPort).listener == theirs);
  CHECK(connect(client, kV4Loopback, kPort).domain == server);
}

TEST_CASE_METHOD(World, "a port is in the directory while some namespace listens on it") {
  ListenerId id = listen(server, kV4Loopback, kPort);
  DomainId stranger = process(1000, kOtherNetns);
  listen(stranger, kV4Any, kPort);
  CHECK(ports == std::set<uint16_t>{kPort});
  unlisten(server, id);
  CHECK(ports == std::set<uint16_t>{kPort});
  core->remove(stranger);
  CHECK(ports.empty());
}

// ---- several acceptors ------------------------------------------------------------------

struct Workers : World {
  ListenerId id = serve(server, kV4Any, kPort);
  DomainId workers[3] = {server, process(), process()};
  Workers() {
    accepts(workers[1], id);
    accepts(workers[2], id);
  }
  DomainId chosen(const test::ConnectOptions& o = {}) { return connect(client, kV4Loopback, kPort, o).domain; }
};

TEST_CASE_METHOD(Workers, "acceptors get connections in turn") {
  std::map<DomainId, int> times;
  for (int i = 0; i < 30; ++i) ++times[chosen()];
  for (DomainId w : workers) CHECK(times[w] == 10);
}

TEST_CASE_METHOD(Workers, "an acceptor that waits is preferred") {
  for (DomainId w : workers) {
    waiting = {w};
    for (int i = 0; i < 5; ++i) CHECK(chosen() == w);
  }
}

TEST_CASE_METHOD(Workers, "waiting acceptors share connections") {
  waiting = {workers[0], workers[2]};
  std::map<DomainId, int> times;
  for (int i = 0; i < 60; ++i) ++times[chosen()];
  CHECK(times[workers[0]] > 10);
  CHECK(times[workers[1]] == 0);
  CHECK(times[workers[2]] > 10);
}

TEST_CASE_METHOD(Workers, "a redirected connect avoids the acceptor that it comes from") {
  waiting = {workers[1]};
  for (int i = 0; i < 10; ++i)
    CHECK(chosen({.avoid_listener = id, .avoid_domain = workers[1]}) != workers[1]);
}

TEST_CASE_METHOD(World, "a redirected connect without another acceptor is EAGAIN") {
  ListenerId id = serve(server, kV4Any, kPort);
  CHECK(connect(client, kV4Loopback, kPort, {.avoid_listener = id, .avoid_domain = server}).status == EAGAIN);
  CHECK(connect(client, kV4Loopback, kPort, {.avoid_listener = id + 1, .avoid_domain = server}).status == 0);
}

TEST_CASE_METHOD(Workers, "a dead acceptor gets no connection") {
  core->remove(workers[1]);
  for (int i = 0; i < 10; ++i) CHECK(chosen() != workers[1]);
}

// ---- SO_REUSEPORT and users -------------------------------------------------------------

TEST_CASE_METHOD(World, "listeners with SO_REUSEPORT are separate and share connections") {
  ListenerId first = serve(server, kV4Any, kPort, {.flags = shm::kListenReusePort});
  ListenerId second = serve(process(), kV4Any, kPort, {.flags = shm::kListenReusePort});
  CHECK(first != second);
  std::map<ListenerId, int> times;
  for (int i = 0; i < 20; ++i) ++times[reached(kV4Loopback)];
  CHECK(times[first] == 10);
  CHECK(times[second] == 10);
}

TEST_CASE_METHOD(World, "nobody listens where another user does, with SO_REUSEPORT or without") {
  listen(server, kV4Any, kPort, {.flags = shm::kListenReusePort});
  DomainId other_user = process(4000);
  CHECK(listen_status(other_user, kV4Any, kPort, {.flags = shm::kListenReusePort}) == EACCES);
  CHECK(listen_status(other_user, kV4Loopback, kPort) == EACCES);
  CHECK(listen_status(other_user, kV6Any, kPort) == EACCES);
  CHECK(listen_status(other_user, kV4Any, kPort + 1) == 0);
}

TEST_CASE_METHOD(World, "another user may listen on an address that does not overlap") {
  listen(server, kV4Loopback, kPort);
  DomainId other_user = process(4000);
  CHECK(listen_status(other_user, kHost, kPort) == 0);
  CHECK(listen_status(other_user, kV6Any, kPort, {.flags = shm::kListenV6Only}) == 0);
  CHECK(listen_status(other_user, kV6Any, kPort + 1) == 0);
  CHECK(listen_status(process(4000, kOtherNetns), kV4Loopback, kPort) == 0);
}

TEST_CASE_METHOD(World, "a policy that forbids listening is EACCES") {
  policy_allows = false;
  CHECK(listen_status(server, kV4Any, 80) == EACCES);
  CHECK(core->listeners() == 0);
  CHECK(ports.empty());
}

TEST_CASE_METHOD(World, "nobody listens on port zero") {
  CHECK(listen_status(server, kV4Any, 0) == EINVAL);
}

// ---- joining and leaving ----------------------------------------------------------------

TEST_CASE_METHOD(World, "a process that holds the same socket after exec joins the listener") {
  ListenerId id = serve(server, kV4Any, kPort, {.backlog = 10});
  DomainId executed = process();
  CHECK(listen(executed, kV4Any, kPort, {.backlog = 20}) == id);
  CHECK(core->listeners() == 1);
  CHECK(connect(client, kV4Loopback, kPort).backlog == 20);
}

TEST_CASE_METHOD(World, "listening again changes the backlog and forgets no acceptor") {
  ListenerId id = serve(server, kV4Any, kPort, {.backlog = 10});
  CHECK(listen(server, kV4Any, kPort, {.backlog = 20}) == id);
  CHECK(connect(client, kV4Loopback, kPort).backlog == 20);
}

TEST_CASE_METHOD(World, "a listener lives until its last holder lets go") {
  ListenerId id = serve(server, kV4Any, kPort);
  DomainId child = process();
  accepts(child, id);
  CHECK(unlisten(server, id));
  CHECK(connect(client, kV4Loopback, kPort).domain == child);
  CHECK(unlisten(child, id));
  CHECK(status(kV4Loopback) == ENOENT);
  CHECK(core->listeners() == 0);
}

TEST_CASE_METHOD(World, "who does not hold a listener cannot close it") {
  ListenerId id = serve(server, kV4Any, kPort);
  CHECK(unlisten(client, id));
  CHECK(unlisten(process(), id));
  CHECK(unlisten(server, id + 1));
  CHECK(reached(kV4Loopback) == id);
}

TEST_CASE_METHOD(World, "another user's process cannot accept on a listener") {
  ListenerId id = serve(server, kV4Any, kPort);
  DomainId thief = process(4000);
  accepts(thief, id);
  for (int i = 0; i < 4; ++i) CHECK(connect(client, kV4Loopback, kPort).domain == server);
}

TEST_CASE_METHOD(World, "a process of another network namespace accepts only if it descends from a holder") {
  ListenerId id = serve(server, kV4Any, kPort);
  accepts(process(1000, kOtherNetns), id);
  CHECK(connect(client, kV4Loopback, kPort).domain == server);

  DomainId child = core->reserve(server);
  REQUIRE(core->enter(child, {1000, kOtherNetns, 77}));
  accepts(child, id);
  unlisten(server, id);
  CHECK(connect(client, kV4Loopback, kPort).domain == child);
}

TEST_CASE_METHOD(World, "an unknown role or listener changes nothing") {
  ListenerId id = serve(server, kV4Any, kPort);
  CHECK(accepts(server, id, Role(3)));
  CHECK(accepts(server, id, Role(UINT64_MAX)));
  CHECK(accepts(server, id + 1));
  CHECK(accepts(server, 0));
  CHECK(accepts(server, UINT32_MAX));
  CHECK(reached(kV4Loopback) == id);
}

TEST_CASE_METHOD(World, "the id of a closed listener names none that comes after it") {
  ListenerId old_id = serve(server, kV4Any, kPort);
  unlisten(server, old_id);
  ListenerId id = serve(server, kV4Any, kPort);
  CHECK(id != old_id);
  unlisten(server, old_id);
  accepts(server, old_id, Role::kHolder);
  CHECK(reached(kV4Loopback) == id);
}

// ---- grants -----------------------------------------------------------------------------

struct Granted : World {
  ListenerId id = serve(server, kV4Any, kPort);
  bool ask_grant() { return connect(client, kV4Loopback, kPort, {.grant = true}).choices == 1; }
  // Whether the client's grant, and nothing else, has ended since last asked.
  bool is_revoked() {
    auto ended = std::exchange(revoked, {});
    return ended == decltype(ended){{client, id}};
  }
};

TEST_CASE_METHOD(Granted, "a grant is given to who asks") {
  CHECK(connect(client, kV4Loopback, kPort).choices == 0);
  CHECK(ask_grant());
  CHECK(ask_grant());
  CHECK(revoked.empty());
}

TEST_CASE_METHOD(Granted, "a coordinator that gives no grants connects all the same") {
  core->give_no_grants();
  CHECK_FALSE(ask_grant());
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).domain == server);
}

TEST_CASE_METHOD(Granted, "a grant ends when another process holds the listener") {
  ask_grant();
  accepts(process(), id, Role::kHolder);
  CHECK(is_revoked());
}

TEST_CASE_METHOD(Granted, "a grant ends when another listener comes to the port") {
  ask_grant();
  ListenerId closer = listen(server, kV4Loopback, kPort);
  CHECK(is_revoked());
  CHECK_FALSE(ask_grant());
  unlisten(server, closer);
  CHECK(ask_grant());
}

TEST_CASE_METHOD(Granted, "a grant does not end when another namespace uses the port") {
  ask_grant();
  serve(process(1000, kOtherNetns), kV4Any, kPort);
  CHECK(revoked.empty());
}

TEST_CASE_METHOD(Granted, "a grant ends when the listener is closed") {
  ask_grant();
  unlisten(server, id);
  CHECK(is_revoked());
}

TEST_CASE_METHOD(Granted, "a grant ends when the acceptor dies") {
  ask_grant();
  core->remove(server);
  CHECK(is_revoked());
}

TEST_CASE_METHOD(Granted, "a grant ends when the acceptor stops accepting") {
  ask_grant();
  accepts(server, id, Role::kHolder);
  CHECK(is_revoked());
}

TEST_CASE_METHOD(World, "a grant outlives the first accept of the only holder") {
  ListenerId id = listen(server, kV4Any, kPort, {.only = true});
  REQUIRE(connect(client, kV4Loopback, kPort, {.grant = true}).choices == 1);
  accepts(server, id);
  CHECK(revoked.empty());
}

TEST_CASE_METHOD(Granted, "a revoked grant may be had again, and ends again") {
  for (int i = 0; i < 3; ++i) {
    CHECK(ask_grant());
    DomainId sibling = process();
    accepts(sibling, id);
    CHECK(is_revoked());
    core->remove(sibling);
  }
}

struct GrantedTwo : Granted {
  DomainId sibling = process();
  GrantedTwo() { accepts(sibling, id); }
  Connected numbered(uint32_t n) { return connect(client, kV4Loopback, kPort, {.grant = true, .number = n}); }
};

TEST_CASE_METHOD(GrantedTwo, "with several acceptors a grant says among how many there is a choice") {
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).choices == 2);
  CHECK(connect(client, kV4Loopback, kPort).choices == 0);
  accepts(process(), id);
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).choices == 3);
}

TEST_CASE_METHOD(GrantedTwo, "each of several acceptors can be asked for by its number") {
  waiting = {server};
  std::set<DomainId> told;
  for (uint32_t n = 1; n <= 2; ++n) {
    CHECK(numbered(n).choices == 2);
    told.insert(numbered(n).domain);
  }
  CHECK(told == std::set<DomainId>{server, sibling});
  CHECK(numbered(3).domain == numbered(1).domain);
  CHECK(numbered(~0u).status == 0);
}

TEST_CASE_METHOD(GrantedTwo, "one of several acceptors is given no choice among them, as it is one itself") {
  CHECK(connect(server, kV4Loopback, kPort, {.grant = true}).choices == 0);
  core->remove(sibling);
  CHECK(connect(server, kV4Loopback, kPort, {.grant = true}).choices == 1);
}

TEST_CASE_METHOD(GrantedTwo, "a choice among several ends with one of them, and when another comes") {
  numbered(1);
  core->remove(sibling);
  CHECK(is_revoked());
  CHECK(ask_grant());
  accepts(process(), id);
  CHECK(is_revoked());
}

TEST_CASE_METHOD(Granted, "in a group of SO_REUSEPORT a choice ends for all of its listeners at once") {
  unlisten(server, id);
  ListenOptions reuse{.flags = shm::kListenReusePort};
  ListenerId first = serve(server, kV4Any, kPort, reuse);
  ListenerId second = serve(process(), kV4Any, kPort, reuse);
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).choices == 2);
  revoked.clear();
  unlisten(server, first);
  CHECK(std::set(revoked.begin(), revoked.end()) ==
        std::set<std::pair<DomainId, ListenerId>>{{client, first}, {client, second}});
}

TEST_CASE_METHOD(Granted, "among more acceptors than a client can keep the coordinator chooses") {
  for (uint32_t n = 1; n < shm::kMostChoices; ++n) accepts(process(), id);
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).choices == shm::kMostChoices);
  accepts(process(), id);
  CHECK(connect(client, kV4Loopback, kPort, {.grant = true}).choices == 0);
}

TEST_CASE_METHOD(Granted, "the dead are not told that their grant has ended") {
  ask_grant();
  core->remove(client);
  core->remove(server);
  CHECK(revoked.empty());
}

// ---- limits -----------------------------------------------------------------------------

TEST_CASE_METHOD(World, "one process cannot take every listener") {
  for (uint32_t port = 1; port <= kListenersPerDomain; ++port)
    REQUIRE(listen(server, kV4Any, uint16_t(port)) != 0);
  CHECK(listen_status(server, kV4Any, 60000) == ENOSPC);
  CHECK(listen_status(process(), kV4Any, 60000) == 0);
}

TEST_CASE_METHOD(World, "a full table of listeners refuses and recovers") {
  uint32_t opened = 0;
  for (uint32_t port = 1; port < 65536; ++port) {
    if (opened % kListenersPerDomain == 0) server = process();
    int result = listen_status(server, kV4Any, uint16_t(port));
    if (result == ENOSPC) break;
    REQUIRE(result == 0);
    ++opened;
  }
  CHECK(opened == kMaxListeners - 1);
  CHECK(core->listeners() == opened);
  core->remove(server);
  CHECK(listen_status(process(), kV4Any, 65000) == 0);
}

}  // namespace
}  // namespace sluice::monitor::core
