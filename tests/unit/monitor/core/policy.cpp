// Rules and patterns by themselves, then what the core makes of them.
#include "tests/unit/monitor/core/rules.h"

#include <errno.h>

#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/monitor/core/world.h"

namespace sluice::monitor::core {
namespace {

using namespace std::literals;
using test::Rules;
using test::World;

constexpr uint32_t kAlice = 1000, kBob = 1001;

// ---- patterns ---------------------------------------------------------------------------

TEST_CASE("a pattern without stars covers itself and nothing else") {
  CHECK(covers("/usr/bin/a", "/usr/bin/a"));
  CHECK_FALSE(covers("/usr/bin/a", "/usr/bin/ab"));
  CHECK_FALSE(covers("/usr/bin/ab", "/usr/bin/a"));
  CHECK_FALSE(covers("/usr/bin/a", ""));
  CHECK_FALSE(covers("**", ""));
}

TEST_CASE("one star stays within a component, two cross slashes") {
  CHECK(covers("/run/*.sock", "/run/app.sock"));
  CHECK(covers("/run/*.sock", "/run/.sock"));
  CHECK_FALSE(covers("/run/*.sock", "/run/app/a.sock"));
  CHECK(covers("/run/**.sock", "/run/app/a.sock"));
  CHECK(covers("/run/**/a.sock", "/run/x/y/a.sock"));
  CHECK_FALSE(covers("/run/**/a.sock", "/run/a.sock"));
  CHECK(covers("/run/**", "/run/x/y/z"));
  CHECK(covers("**", "/anything"));
  CHECK_FALSE(covers("*", "/anything"));
}

TEST_CASE("stars find the place that fits, however often the rest begins before") {
  CHECK(covers("/a*b*c", "/aXbYbZc"));
  CHECK(covers("/**/b*/c", "/b1/x/b2/b3/c"));
  CHECK_FALSE(covers("/**/b*/c", "/b1/x/b2/b3/d"));
  CHECK(covers("/*a*a*a*a", "/aaaaaaaaaaaa"));
  CHECK_FALSE(covers("/*a*a*a*b", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
  CHECK(covers("/x?z", "/xyz"));
  CHECK_FALSE(covers("/x?z", "/x/z"));
  CHECK_FALSE(covers("/x?", "/x"));
}

TEST_CASE("an at sign means an abstract name, and only that") {
  CHECK(covers("@app*", "\0app.1"sv));
  CHECK_FALSE(covers("@app*", "@app.1"));
  CHECK_FALSE(covers("/app", "\0/app"sv));
  CHECK_FALSE(covers("**", "\0app"sv));
  CHECK(covers("@**", "\0a/b"sv));
}

// ---- rules ------------------------------------------------------------------------------

Verdict decide(const Rules& rules, const Attempt& a) {
  uint32_t rule;
  return rules.table->decide(a, rule);
}

TEST_CASE("the first rule that fits decides, and without one everything is allowed") {
  Rules rules;
  rules.rule({Verdict::kAllow, kConnecting, {{kAlice, kAlice}}, {{80, 89}}})
      .rule({Verdict::kKernel, kConnecting, {}, {{80, 80}}})
      .rule({Verdict::kDeny, kConnecting, {{kBob, kBob}}});
  CHECK(decide(rules, {kConnecting, kAlice, "", 80, ""}) == Verdict::kAllow);
  CHECK(decide(rules, {kConnecting, kBob, "", 80, ""}) == Verdict::kKernel);
  CHECK(decide(rules, {kConnecting, kBob, "", 81, ""}) == Verdict::kDeny);
  CHECK(decide(rules, {kConnecting, 0, "", 81, ""}) == Verdict::kAllow);
  CHECK(decide(rules, {kListening, kBob, "", 81, ""}) == Verdict::kAllow);
  uint32_t rule;
  (void)rules.table->decide({kConnecting, kBob, "", 81, ""}, rule);
  CHECK(rule == 2);
  (void)rules.table->decide({kListening, kBob, "", 81, ""}, rule);
  CHECK(rule == kNoRule);
}

TEST_CASE("a rule with a port is not about names, one with a path not about ports, one with both about either") {
  Rules port, path, both, neither;
  port.rule({.ports = {{80, 80}}});
  path.rule({.paths = {"/run/a"}});
  both.rule({.ports = {{80, 80}}, .paths = {"/run/a"}});
  neither.rule({});
  const Attempt at_port{kConnecting, 0, "", 80, ""}, at_path{kConnecting, 0, "", 0, "/run/a"};
  CHECK(decide(port, at_port) == Verdict::kDeny);
  CHECK(decide(port, at_path) == Verdict::kAllow);
  CHECK(decide(path, at_port) == Verdict::kAllow);
  CHECK(decide(path, at_path) == Verdict::kDeny);
  for (const Attempt& a : {at_port, at_path}) {
    CHECK(decide(both, a) == Verdict::kDeny);
    CHECK(decide(neither, a) == Verdict::kDeny);
  }
}

TEST_CASE("a program that is not known fits no rule that names one") {
  Rules rules;
  rules.rule({.programs = {"/usr/bin/*", "**"}});
  CHECK(decide(rules, {kConnecting, 0, "/usr/bin/a", 80, ""}) == Verdict::kDeny);
  CHECK(decide(rules, {kConnecting, 0, "", 80, ""}) == Verdict::kAllow);
}

// ---- the core ---------------------------------------------------------------------------

struct Governed : World {
  Rules rules;
  DomainId server = process(kAlice), bob = process(kBob);
  ListenerId web = serve(server, kV4Any, 80);
  void govern() { core->set_policy(rules); }
  int status(DomainId from, uint16_t port = 80) { return connect(from, kV4Loopback, port).status; }
};

TEST_CASE_METHOD(Governed, "a connect is refused with EPERM by deny, with EACCES by kernel, and each is counted") {
  serve(server, kV4Any, 81);
  rules.rule({.uids = {{kBob, kBob}}, .ports = {{80, 80}}}).rule({Verdict::kKernel, kConnecting, {{kBob, kBob}}});
  govern();
  CHECK(status(bob) == EPERM);
  CHECK(status(bob) == EPERM);
  CHECK(status(bob, 81) == EACCES);
  CHECK(status(process(kAlice)) == 0);
  CHECK(core->refusals().by_rule[0] == 2);
  CHECK(core->refusals().by_rule[1] == 1);
}

TEST_CASE_METHOD(Governed, "a listener is refused by the rules for listening") {
  rules.rule({.operations = kListening, .uids = {{kBob, kBob}}, .ports = {{8080, 8089}}})
      .rule({Verdict::kKernel, kListening, {}, {{9000, 9000}}});
  govern();
  CHECK(listen_status(bob, kV4Any, 8085) == EPERM);
  CHECK(listen_status(bob, kV4Any, 9000) == EACCES);
  CHECK(listen_status(bob, kV4Any, 8090) == 0);
  CHECK(ports.count(8085) == 0);
  CHECK(status(bob) == 0);
}

TEST_CASE_METHOD(Governed, "rules look at the program that was there at registration") {
  programs[bob] = "/opt/tool";
  rules.rule({.programs = {"/opt/*"}});
  govern();
  CHECK(status(bob) == EPERM);
  CHECK(status(process(kBob)) == 0);
}

TEST_CASE_METHOD(Governed, "names of AF_UNIX are refused when asked for and when connected to") {
  const shm::UnixKey key{1, 42};
  ListenerId name = serve_name(server, key);
  bound_names[name] = "/run/app/a.sock";
  CHECK(core->may_connect_to(bob, name) == 0);
  REQUIRE(core->admit_to(bob, name, kBob, kBob) != 0);
  rules.rule({.operations = kConnecting, .uids = {{kBob, kBob}}, .paths = {"/run/app/*"}})
      .rule({.operations = kListening, .paths = {"/run/no/*"}});
  govern();
  CHECK(core->may_connect_to(bob, name) == EPERM);
  CHECK(connect_name(bob, key).status == EACCES);  // what it was told before is over: it has to ask again
  CHECK(core->may_listen_at(bob, "/run/no/x") == EPERM);
  CHECK(core->may_listen_at(bob, "/run/app/x") == 0);
}

TEST_CASE_METHOD(Governed, "a new policy ends grants, and rights and listeners that it does not allow") {
  DomainId other = process(kBob);
  ListenerId theirs = serve(other, kV4Any, 81);
  REQUIRE(connect(bob, kV4Loopback, 80, {.grant = true}).choices == 1);
  rules.rule({.operations = kListening, .uids = {{kBob, kBob}}, .ports = {{81, 81}}});
  govern();
  CHECK(revoked == std::vector<std::pair<DomainId, ListenerId>>{{bob, web}});
  CHECK(ports == std::set<uint16_t>{80});
  CHECK(status(server, 81) == ENOENT);
  CHECK(unlisten(other, theirs));  // it need not know
  core->set_policy(nullptr);
  CHECK(listen_status(other, kV4Any, 81) == 0);
}

TEST_CASE_METHOD(Governed, "who accepts is told of nobody that was not told to connect") {
  CHECK(may(server, bob, web).status == 0);  // no policy: nobody need ask
  rules.rule({.uids = {{kBob, kBob}}, .ports = {{443, 443}}});
  govern();
  CHECK(may(server, bob, web).status == EACCES);
  REQUIRE(status(bob) == 0);
  CHECK(may(server, bob, web).status == 0);
  CHECK(may(bob, bob, web).status == ENOENT);  // only who holds the listener may know
  core->remove(bob);
  CHECK(may(server, bob, web).status == 0);  // its last words count
}

TEST_CASE_METHOD(Governed, "a right to connect that a later policy denies is over at the acceptor too") {
  rules.rule({.uids = {{kBob, kBob}}, .ports = {{443, 443}}});
  govern();
  REQUIRE(status(bob) == 0);
  Rules stricter;
  stricter.rule({.uids = {{kBob, kBob}}});
  core->set_policy(stricter);
  CHECK(may(server, bob, web).status == EACCES);
}

TEST_CASE_METHOD(Governed, "a move needs the right to connect there") {
  DomainId sibling = core->reserve(server);
  REQUIRE(core->enter(sibling, {kAlice, 1, 77}));
  accepts(sibling, web);
  waiting = {sibling};
  rules.rule({.ports = {{443, 443}}});
  govern();
  CHECK(move(bob, web, server, 80).status == EACCES);
  REQUIRE(status(bob) == 0);
  CHECK(move(bob, web, server, 80).status == 0);
}

// ---- limits -----------------------------------------------------------------------------

TEST_CASE_METHOD(Governed, "no more processes of a user register than its limit says") {
  rules.limit({.uids = {{kBob, kBob}}, .clients = 2});
  govern();
  CHECK(core->may_register(kBob) == 0);  // bob was there before, and counts
  DomainId second = process(kBob);
  CHECK(core->may_register(kBob) == EDQUOT);
  CHECK(core->may_register(kAlice) == 0);
  core->remove(second);
  CHECK(core->may_register(kBob) == 0);
  CHECK(core->refusals().by_limit[0].clients == 1);
}

TEST_CASE_METHOD(Governed, "forked children count, and are let in up to twice the limit") {
  rules.limit({.uids = {{kBob, kBob}}, .clients = 2});
  govern();
  for (int i = 0; i < 3; ++i) CHECK(core->reserve(bob) != shm::kNobody);
  CHECK(core->reserve(bob) == shm::kNobody);
  CHECK(core->may_register(kBob) == EDQUOT);
}

TEST_CASE_METHOD(Governed, "over a limit of connections or bytes the kernel has to do it, and no grant is given below") {
  rules.limit({.uids = {{kBob, kBob}}, .connections = 10, .bytes = 4096});
  govern();
  CHECK(connect(bob, kV4Loopback, 80, {.grant = true}).choices == 0);
  CHECK(connect(process(kAlice), kV4Loopback, 80, {.grant = true}).choices == 1);
  CHECK(may(server, bob, web).words[0] == 10);
  usage[kBob] = {9, 4095};
  CHECK(status(bob) == 0);
  usage[kBob] = {10, 0};
  CHECK(status(bob) == EDQUOT);
  usage[kBob] = {0, 4096};
  CHECK(status(bob) == EDQUOT);
  CHECK(core->refusals().by_limit[0].connections == 1);
  CHECK(core->refusals().by_limit[0].bytes == 1);
}

TEST_CASE_METHOD(Governed, "a connection takes memory of whoever accepts, but is none of its own") {
  rules.limit({.uids = {{kAlice, kAlice}}, .connections = 1, .bytes = 4096});
  govern();
  usage[kAlice] = {5, 0};
  CHECK(status(bob) == 0);
  usage[kAlice] = {0, 5000};
  CHECK(status(bob) == EDQUOT);
}

TEST_CASE_METHOD(Governed, "requests beyond the burst go to the kernel, and come back with time") {
  rules.limit({.uids = {{kBob, kBob}}, .requests = 100, .burst = 10});
  govern();
  uint64_t now = 1'000'000'000'000;
  core->tell_time(now);
  REQUIRE(core->needs_time());
  for (int i = 0; i < 10; ++i) CHECK(status(bob) == 0);
  CHECK(status(bob) == EDQUOT);
  CHECK(status(process(kAlice)) == 0);
  CHECK(core->refusals().by_limit[0].requests == 1);
  core->tell_time(now += 20'000'000);  // two requests' time, less the refusal's eighth
  CHECK(status(bob) == 0);
  CHECK(status(bob) == EDQUOT);
  core->tell_time(now + 1'000'000'000);
  for (int i = 0; i < 10; ++i) CHECK(status(bob) == 0);  // no more than the burst, however long it was silent
  CHECK(status(bob) == EDQUOT);
}

TEST_CASE_METHOD(Governed, "what ends something is served beyond the limit, and a flood is not taken any more") {
  ListenerId own = serve(bob, kV4Any, 8080);
  rules.limit({.uids = {{kBob, kBob}}, .requests = 100, .burst = 10});
  govern();
  core->tell_time(1'000'000'000'000);
  for (int i = 0; i < 12; ++i) (void)status(bob);
  CHECK(unlisten(bob, own));
  CHECK(ports.count(8080) == 0);
  CHECK_FALSE(core->is_delayed(kBob));
  int refused = 0;
  while (!core->is_delayed(kBob) && refused < 1000) refused += status(bob) == EDQUOT;
  CHECK(refused > 50);
  CHECK(refused < 100);  // eight for each of the burst
  CHECK_FALSE(core->is_delayed(kAlice));
  core->tell_time(1'000'100'000'000);
  CHECK_FALSE(core->is_delayed(kBob));
  for (int i = 0; i < 100; ++i) core->charge(kBob);  // packets count as well
  CHECK(core->is_delayed(kBob));
}

TEST_CASE_METHOD(World, "more users than there are accounts are refused, not forgotten") {
  Rules rules;
  rules.limit({.clients = 1});
  core->set_policy(rules);
  uint32_t uid = 1, known = 0;
  while (core->may_register(uid) == 0 && uid < 100000) {
    process(uid++);
    ++known;
  }
  CHECK(known > Accounts::kCapacity / 8);
  CHECK(known < 100000);
  CHECK(core->may_register(1) == EDQUOT);
}

}  // namespace
}  // namespace sluice::monitor::core
