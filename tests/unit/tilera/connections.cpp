// Bytes between tiles: set up by the coordinator, carried by memory, announced by doorbells.
#include <cstring>

#include "tests/unit/tilera/chips.h"
#include "tilera/connection.h"

using namespace sluice;
using namespace sluice::tilera;
using core::kV4Loopback;
using nocsim::Outcome;
using test::Choice;
using test::TestChip;

namespace {

constexpr uint16_t kPort = 8080;
constexpr DomainId kServer = 2;

using Wire = Connection<SimNoc>;

std::vector<std::byte> bytes_of(TileId t, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = std::byte((i * 7 + t * 13 + i / 251) & 0xff);
  return bytes;
}

// Listens, and sends back what comes until each of so many clients has finished.
void serve(TestChip& chip, Chip::Client& c, uint32_t clients) {
  const core::AddressWords a = core::words_of(kV4Loopback);
  CHECK(c.join(1) == kServer);
  const auto listener = uint32_t(c.call({shm::kListen, 0, 0, {a.first, a.second, kPort, 128}}).words[0]);
  (void)c.call({shm::kAcceptor, 0, 0, {listener, uint64_t(shm::AcceptorRole::kAccepts)}});
  struct Served {
    std::unique_ptr<Wire> wire;
    std::vector<std::byte> back;  // has not been sent
    bool over = false;
  };
  std::map<TileId, Served> served;
  const TileId me = c.noc().here();
  for (uint32_t finished = 0; finished < clients;) {
    const TileId who = c.await_ring_at(listener);
    Served& s = served[who];
    if (who == chip.plan().root || s.over) continue;
    if (!s.wire) {
      s.wire = std::make_unique<Wire>(c.noc(), c.bells(), chip.region(me, who), chip.region(who, me), who, 0);
      CHECK(s.wire->begun() == listener);
    }
    std::byte buffer[3000];
    for (;;) {
      const int64_t n = s.back.empty() ? s.wire->try_receive(buffer, sizeof buffer) : 0;
      REQUIRE(n >= 0);
      s.back.insert(s.back.end(), buffer, buffer + n);
      if (s.back.empty()) break;
      const std::size_t sent = s.wire->try_send(s.back.data(), s.back.size());
      s.back.erase(s.back.begin(), s.back.begin() + std::ptrdiff_t(sent));
      if (sent == 0) break;
    }
    if (s.back.empty() && s.wire->is_at_end()) {
      s.wire->finish();
      s.over = true;
      ++finished;
    }
  }
}

// Connects, sends so many bytes, and returns what came back.
std::vector<std::byte> ask(TestChip& chip, Chip::Client& c, std::size_t bytes) {
  const core::AddressWords a = core::words_of(kV4Loopback);
  const TileId me = c.noc().here();
  (void)c.join(int32_t(me) + 100);
  Message reply;
  do reply = c.call({shm::kConnect, 0, 0, {a.first, a.second, kPort, 1}});
  while (reply.status == ENOENT || reply.status == EAGAIN);
  CHECK(reply.status == 0);
  const int met = c.meet(DomainId(reply.words[0] & 0xffffffff));
  REQUIRE(met >= 0);
  const auto server = TileId(met);
  Wire wire(c.noc(), c.bells(), chip.region(me, server), chip.region(server, me), server, 0);
  wire.begin(uint32_t(reply.words[0] >> 32));
  const auto all = bytes_of(me, bytes);
  std::vector<std::byte> back;
  std::size_t sent = 0;
  for (;;) {
    if (sent < bytes) {
      sent += wire.try_send(all.data() + sent, bytes - sent);
      if (sent == bytes) wire.finish();
    }
    std::byte buffer[2000];
    const int64_t n = wire.try_receive(buffer, sizeof buffer);
    REQUIRE(n >= 0);
    back.insert(back.end(), buffer, buffer + n);
    if (n > 0) continue;
    if (wire.is_at_end()) return back;
    (void)c.bells().await_ring();
  }
}

}  // namespace

TEST_CASE("tiles connect through the coordinator and get back what they send, more than a ring holds") {
  for (const Choice& choice : {Choice{"tilegx36", 2}, Choice{"tilegx36", 35}, Choice{"tilegx72", 69}}) {
    INFO(choice.profile << ", " << choice.clients << " clients");
    TestChip chip(choice);
    chip.mesh().set_watchdog(0);  // packets wait while a slow reader copies, which is no fault
    const TileId server = chip.clients()[0];
    uint32_t right = 0, joined = 0;
    chip.start(server, [&](Chip::Client& c) { serve(chip, c, chip.plan().clients - 1); });
    for (TileId t : chip.clients())
      if (t != server)
        chip.start(t, [&, t](Chip::Client& c) {
          c.noc().spend(3000 + ++joined * 50);  // the server is the first to join
          const std::size_t bytes = 1000 + t * 1003;  // up to four rings
          right += ask(chip, c, bytes) == bytes_of(t, bytes);
        });
    const Outcome outcome = chip.run();
    INFO(outcome.describe());
    CHECK(outcome.kind == Outcome::Kind::kFinished);
    CHECK(right == chip.plan().clients - 1);
    chip.check_bounds();
  }
}

TEST_CASE("a peer that lies about its position gets an error, not our memory") {
  TestChip chip({"tilegx36", 2});
  const TileId a = chip.clients()[0], b = chip.clients()[1];
  int64_t result = 0;
  chip.start(a, [&](Chip::Client& c) {
    chip.region(b, a).slot(0).tail.store(kRingBytes + 1);
    chip.region(b, a).slot(0).switches.store(1);
    chip.region(b, a).slot(0).rings[1] = {0, ring_page(0), kRingLog2};
    Wire wire(c.noc(), c.bells(), chip.region(a, b), chip.region(b, a), b, 0);
    std::byte buffer[100];
    result = wire.try_receive(buffer, sizeof buffer);
  });
  CHECK(chip.run().kind == Outcome::Kind::kFinished);
  CHECK(result == -EPROTO);
}
