// Listeners of AF_UNIX and who may connect to them.
#include <errno.h>

#include <catch2/catch.hpp>

#include "world.h"

using namespace sluice::monitor::core;
using namespace sluice::monitor::core::test;
using sluice::shm::UnixKey;

namespace {

constexpr UnixKey kFile{0xfe00, 4711};
constexpr UnixKey kAbstract{sluice::shm::kAbstractDevice, 5ull << 32 | 77};

}  // namespace

TEST_CASE("a name is shown while somebody listens under it", "[names]") {
  World w;
  DomainId server = w.process();
  ListenerId id = w.serve_name(server, kFile);
  REQUIRE(id != 0);
  CHECK(w.names.count(sluice::shm::name_bit(kFile)) == 1);
  CHECK(w.ports.empty());
  w.unlisten(server, id);
  CHECK(w.names.empty());
  CHECK(w.forgotten == std::vector<ListenerId>{id});
}

TEST_CASE("two names with one bit keep it until both are gone", "[names]") {
  World w;
  DomainId server = w.process();
  UnixKey other = kAbstract;
  other.inode += uint64_t{1} << 40;
  REQUIRE(sluice::shm::name_bit(other) == sluice::shm::name_bit(kAbstract));
  ListenerId a = w.serve_name(server, kAbstract), b = w.serve_name(server, other);
  CHECK(a != b);
  w.unlisten(server, a);
  CHECK(w.names.size() == 1);
  w.unlisten(server, b);
  CHECK(w.names.empty());
}

TEST_CASE("only the admitted connect to a name", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process(), stranger = w.process();
  ListenerId id = w.serve_name(server, kFile);
  CHECK(w.connect_name(client, kFile).status == EACCES);
  REQUIRE(w.core->admit_to(client, id, 1000, 100) != 0);
  Connected c = w.connect_name(client, kFile, true);
  CHECK(c.status == 0);
  CHECK(c.domain == server);
  CHECK(c.listener == id);
  CHECK(c.choices == 1);
  CHECK(w.connect_name(stranger, kFile).status == EACCES);
  CHECK(w.connect_name(client, kAbstract).status == ENOENT);
  CHECK(w.move(stranger, id, server, 0, address_of(kFile)).status == EACCES);
}

TEST_CASE("a listener learns from a ticket who connects, and nobody else does", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process(), stranger = w.process();
  ListenerId id = w.serve_name(server, kFile);
  uint64_t ticket = w.core->admit_to(client, id, 1000, 100);
  Message m = w.who(server, client, ticket);
  CHECK(m.status == 0);
  CHECK(m.words[0] == id);
  CHECK(uint32_t(m.words[1]) == uint32_t(w.core->domain(client).identity.pid));
  CHECK(m.words[1] >> 32 == 1000);
  CHECK(m.words[2] == 100);
  CHECK(w.who(stranger, client, ticket).status == ENOENT);
  CHECK(w.who(server, stranger, ticket).status == ENOENT);
  CHECK(w.who(server, client, ticket + 1).status == ENOENT);
  CHECK(w.who(server, ~0u, ticket).status == ENOENT);
}

TEST_CASE("a ticket stays as long as its holder is the same user", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process();
  ListenerId id = w.serve_name(server, kFile);
  uint64_t first = w.core->admit_to(client, id, 0, 0);
  CHECK(w.core->admit_to(client, id, 0, 0) == first);
  uint64_t second = w.core->admit_to(client, id, 1000, 100);
  CHECK(second != first);
  CHECK(w.who(server, client, first).status == ENOENT);
  CHECK(w.who(server, client, second).words[1] >> 32 == 1000);
}

TEST_CASE("the ticket of a dead process is good until its id is another's", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process();
  ListenerId id = w.serve_name(server, kFile);
  uint64_t ticket = w.core->admit_to(client, id, 1000, 100);
  w.core->remove(client);
  CHECK(w.who(server, client, ticket).status == 0);
  DomainId other = sluice::shm::kNobody;  // ids come again when all others have been
  for (uint32_t n = 0; n < sluice::shm::kMaxDomains && other != client; ++n) {
    w.core->remove(other);
    other = w.core->admit({1000, 1, 9999}, sluice::shm::kNobody);
  }
  REQUIRE(other == client);
  CHECK(w.who(server, client, ticket).status == ENOENT);
  CHECK(w.connect_name(client, kFile).status == EACCES);
}

TEST_CASE("admissions end with the listener", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process();
  ListenerId id = w.serve_name(server, kFile);
  uint64_t ticket = w.core->admit_to(client, id, 1000, 100);
  w.unlisten(server, id);
  CHECK(w.who(server, client, ticket).status == ENOENT);
  CHECK(w.core->admit_to(client, id, 1000, 100) == 0);
  w.serve_name(server, kFile);
  CHECK(w.connect_name(client, kFile).status == EACCES);
}

TEST_CASE("a name of another network namespace is not there", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process(1000, 2);
  ListenerId id = w.serve_name(server, kFile);
  CHECK(w.core->admit_to(client, id, 1000, 100) == 0);
  CHECK(w.connect_name(client, kFile).status == ENOENT);
}

TEST_CASE("processes that listen on one socket of AF_UNIX share its listener", "[names]") {
  World w;
  DomainId server = w.process(), client = w.process();
  ListenerId id = w.serve_name(server, kFile);
  DomainId child = w.core->reserve(server);
  w.core->enter(child, {1000, 1, 7000});
  CHECK(w.core->listen_name(child, kFile, 5, AcceptorRole::kHolder) == id);
  w.core->remove(server);
  w.accepts(child, id);
  w.core->admit_to(client, id, 1000, 100);
  CHECK(w.connect_name(client, kFile).domain == child);
}

TEST_CASE("nobody takes more admissions than its share, and the dead make room", "[names]") {
  World w;
  DomainId client = w.process();
  uint32_t admitted = 0;
  for (uint32_t n = 0; n <= kAdmissionsPerDomain; ++n) {
    DomainId server = w.process();
    ListenerId id = w.serve_name(server, {1, n + 1});
    if (w.core->admit_to(client, id, 1000, 100) != 0) ++admitted;
  }
  CHECK(admitted == kAdmissionsPerDomain);
  DomainId server = w.process();
  ListenerId id = w.serve_name(server, kFile);
  for (uint32_t n = 0; n < kMaxAdmissions + 100; ++n) {
    DomainId d = w.process();
    REQUIRE(w.core->admit_to(d, id, 1000, 100) != 0);
    w.core->remove(d);
  }
}
