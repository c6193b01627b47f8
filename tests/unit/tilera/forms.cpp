// Which form of a request costs what: docs/tilera.md chooses by these.
#include <catch2/catch.hpp>

#include "tilera/sim/request_load.h"

using namespace sluice::tilera;

namespace {

struct Figures {
  double each;         // the coordinator's cycles for a request
  uint32_t alone;      // the round trip of one client that is alone, cycles
};

Figures measure(uint32_t words, uint32_t packet_words, uint32_t clients = 14, uint32_t relays = 0) {
  SimulatedLoad load{.clients = clients, .active = clients, .words = words, .packet_words = packet_words, .relays = relays};
  const SimulatedResult all = run_load(load);
  load.active = 1;
  const SimulatedResult one = run_load(load);
  REQUIRE(all.requests > 100);
  return {double(all.coordinator_cycles) / double(all.requests), one.quantile(0.5)};
}

bool near(double a, double b) { return a > b - 1.5 && a < b + 1.5; }  // a request more or less at the ends

}  // namespace

TEST_CASE("each word of a packet costs the coordinator a cycle there and one back") {
  const Figures one = measure(1, 8);
  for (uint32_t words : {2u, 4u, 7u}) {
    const Figures f = measure(words, 8);
    INFO(words << " words: " << f.each << " cycles, alone " << f.alone);
    CHECK(near(f.each, one.each + 2 * (words - 1)));
    CHECK(f.alone == one.alone + 2 * (words - 1));
  }
}

TEST_CASE("a request that goes through memory costs the coordinator a line, and who waits for it a fence besides") {
  for (uint32_t words : {2u, 4u}) {
    const Figures packet = measure(words, 8), line = measure(words, 1);
    INFO(words << " words: " << packet.each << " and " << line.each << " cycles, alone " << packet.alone << " and " << line.alone);
    CHECK(near(line.each, packet.each + 50 - words));
    CHECK(line.alone > packet.alone + 90);
    CHECK(line.alone < packet.alone + 110);
  }
}

TEST_CASE("a relay is cheaper for the coordinator than memory, and slower for one who is alone") {
  const Figures tree = measure(2, 3, 69, 2), memory = measure(2, 1, 69, 0);
  INFO(tree.each << " and " << memory.each << " cycles, alone " << tree.alone << " and " << memory.alone);
  CHECK(tree.each < memory.each - 40);
  CHECK(tree.alone > memory.alone);
}

TEST_CASE("the same load has the same figures each time") {
  const SimulatedLoad load{.clients = 35, .active = 35, .flooders = 3, .rate = 0.002};
  const SimulatedResult a = run_load(load), b = run_load(load);
  CHECK(a.requests == b.requests);
  CHECK(a.coordinator_cycles == b.coordinator_cycles);
  CHECK(a.round_trips == b.round_trips);
}
