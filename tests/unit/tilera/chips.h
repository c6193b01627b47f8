// Chips with as many clients as a test wants, and what has to hold of each after a run.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>

#include "tilera/sim/chip.h"

namespace sluice::tilera::test {

struct Choice {
  const char* profile = "tilegx36";
  uint32_t clients = 35;
  uint32_t packet_words = Wish::kChosen;
  uint32_t relays = Wish::kChosen;
  uint32_t depth = Wish::kChosen;
};

inline nocsim::Config mesh_of(const Choice& c) { return nocsim::find_profile(c.profile)->config; }

inline Plan plan_of(const Choice& c) {
  const nocsim::Config mesh = mesh_of(c);
  Wish wish{.width = uint32_t(mesh.width), .height = uint32_t(mesh.height), .clients = c.clients};
  wish.packet_words = c.packet_words;
  wish.relays = c.relays;
  wish.depth = c.depth;
  Plan plan;
  const char* complaint = make_plan(wish, plan);
  INFO((complaint != nullptr ? complaint : ""));
  REQUIRE(complaint == nullptr);
  return plan;
}

struct TestChip : Chip {
  explicit TestChip(const Choice& c) : Chip(mesh_of(c), plan_of(c)) { mesh().set_watchdog(5000); }

  // No queue ever held more than its credits say, and no packet went before what had been stored was in memory.
  void check_bounds() {
    for (TileId t = 0; t < plan().tiles; ++t) {
      const Demand d = demand_on(plan(), t);
      std::size_t most = 0;
      for (uint32_t w : d.words) most += w;
      INFO("tile " << t);
      CHECK(mesh().endpoint(t).most_words() <= most);
      CHECK(mesh().tile(t).counts().sends_with_open_stores == 0);
    }
    CHECK(mesh().network().audit() == "");
  }
};

inline const Choice kChoices[] = {
    {"tilegx36", 1},           {"tilegx36", 2, 3}, {"tilegx36", 14},      {"tilegx36", 35},       {"tilegx36", 35, 1},
    {"tilegx36", 29, 3, 2, 1}, {"tilegx72", 69},   {"tilegx72", 66, 3, 5}, {"tilegx72", 71},
};

}  // namespace sluice::tilera::test
