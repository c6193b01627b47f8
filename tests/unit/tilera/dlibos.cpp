// Driver, stack and application tiles: nothing is lost, and throughput follows from what is put in.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tilera/dlibos/plan.h"
#include "tilera/dlibos/round_trip.h"
#include "tilera/dlibos/search.h"
#include "tilera/dlibos/tiles.h"
#include "tilera/dlibos/workloads.h"

using namespace sluice::tilera::dlibos;
using sluice::tilera::TileId;

namespace {

Setting setting(int width, int height) {
  Setting s;
  s.mesh = nocsim::find_profile("udn")->config;
  s.mesh.width = width;
  s.mesh.height = height;
  s.costs = find_workload("web")->costs;
  s.cycles = 60'000;
  s.warm_up = 20'000;
  return s;
}

constexpr Queues kAllQueues[] = {Queues::kNoc, Queues::kDivided, Queues::kShared};
constexpr Split kSplits[] = {{{1, 1, 1}}, {{1, 3, 5}}, {{3, 1, 5}}, {{4, 4, 8}}};

}  // namespace

TEST_CASE("every request that is begun gets its reply, and every message is taken") {
  for (Queues queues : kAllQueues)
    for (bool is_protected : {true, false})
      for (HandBack hand_back : {HandBack::kMessages, HandBack::kPiggyback})
        for (double rate : {0.0, 0.002})
          for (const Split& split : kSplits) {
            Setting s = setting(4, 4);
            s.queues = queues;
            s.is_protected = is_protected;
            s.hand_back = hand_back;
            s.rate = rate;
            const Result r = run(s, split);
            INFO("queues " << int(queues) << " protected " << is_protected << " rate " << rate << " stacks " << split[kStack]);
            CHECK(r.lost == 0);
            CHECK(r.requests > 0);
            CHECK(r.latencies.size() == r.requests);
          }
}

TEST_CASE("a request is four messages, four more where buffers are handed back, and a copy where memory is protected") {
  for (Queues queues : kAllQueues) {
    Setting s = setting(4, 4);
    s.queues = queues;
    const Split split{{2, 5, 9}};
    const Result messages = run(s, split);
    s.hand_back = HandBack::kPiggyback;
    const Result piggyback = run(s, split);
    s.is_protected = false;
    const Result open = run(s, split);
    CHECK(messages.per_request(messages.messages) == Approx(8).epsilon(0.05));
    CHECK(piggyback.per_request(piggyback.messages) == Approx(4).epsilon(0.05));
    CHECK(open.per_request(open.messages) == Approx(4).epsilon(0.05));
    CHECK(messages.per_request(messages.copied_bytes) == Approx(s.costs.reply_bytes).epsilon(0.05));
    CHECK(open.copied_bytes == 0);
    // Here the stack is the slowest, and it is the stack that copies.
    CHECK(open.requests > piggyback.requests);
    CHECK(piggyback.requests > messages.requests);
  }
}

TEST_CASE("where the application is the slowest, more of its tiles serve more, up to what the others can do") {
  Setting s = setting(6, 6);
  s.spread = Spread::kTurns;
  s.costs.application = 20'000;
  s.warm_up = 200'000;
  s.cycles = 400'000;
  uint64_t last = 0;
  for (uint32_t applications : {1, 2, 4, 8, 16}) {
    const Result r = run(s, {{2, 6, applications}});
    CHECK(r.requests >= last * 1.8);
    CHECK(r.busy[kApplication] > 0.9);
    last = r.requests;
  }
}

TEST_CASE("no run exceeds its bound, and the slowest role is busy") {
  for (Queues queues : kAllQueues)
    for (bool is_protected : {true, false})
      for (const Split& split : kSplits) {
        Setting s = setting(4, 4);
        s.queues = queues;
        s.is_protected = is_protected;
        s.spread = Spread::kTurns;
        const Result r = run(s, split);
        // Those that were begun before the time that counts.
        const double under_way = 2 * split[kDriver] * split[kStack] * kMostUnderWay;
        CHECK(double(r.requests) <= bound(s, split) * double(s.cycles) + under_way);
        CHECK(*std::max_element(r.busy.begin(), r.busy.end()) > 0.8);
      }
}

TEST_CASE("a tile's queue never holds more than the plan says, whatever the split") {
  for (uint32_t room : {12u, 60u, 118u})
    for (uint32_t drivers = 1; drivers < 40; drivers += 3)
      for (uint32_t stacks = 1; stacks < 40; stacks += 3)
        for (uint32_t applications = 1; applications < 60; applications += 7) {
          Split sum;
          for (const Split& part : divide({{drivers, stacks, applications}}, room)) {
            const Pipeline p = with_credits(part, room);
            REQUIRE(p.packets >= 1);
            REQUIRE(p.calls >= 1);
            for (Role role : {kDriver, kStack, kApplication}) {
              REQUIRE(words_at(role, part, p.packets, p.calls) <= room);
              sum.tiles[role] += part[role];
            }
          }
          const bool fits = sum == Split{{drivers, stacks, applications}};
          REQUIRE((fits || sum == Split{}));
        }
  CHECK(divide({{1, 40, 1}}, 118).empty());  // a driver with one word for each stack tile
}

TEST_CASE("mesh queues hold what the plan allows while every tile floods the next, and no packet goes before its data") {
  Setting s = setting(6, 6);
  const auto pipelines = make_pipelines(s.mesh, {{4, 12, 20}});
  Mail mail(s, pipelines);
  nocsim::Mesh mesh(s.mesh);
  Run shared{s, mesh};
  std::vector<std::unique_ptr<TileProgram>> programs;
  const Pipeline& p = pipelines.front();
  for (TileId t : p.tiles[kDriver]) programs.push_back(std::make_unique<DriverProgram>(shared, t, p, 4));
  for (TileId t : p.tiles[kStack]) programs.push_back(std::make_unique<StackProgram>(shared, t, p));
  for (TileId t : p.tiles[kApplication]) programs.push_back(std::make_unique<ApplicationProgram>(shared, t));
  for (auto& program : programs) mesh.start(program->here(), [&](nocsim::Tile& tile) { program->be(tile, mail); });
  mesh.set_watchdog(5000);
  REQUIRE(mesh.run(200'000).kind == nocsim::Outcome::Kind::kLimit);
  for (auto& program : programs) {
    CHECK(mesh.endpoint(program->here()).most_words() <= words_at(program->role(), p.split(), p.packets, p.calls));
    CHECK(mesh.tile(program->here()).counts().sends_with_open_stores == 0);
  }
  CHECK(mesh.network().audit() == "");
  for (auto& program : programs) mesh.stop(program->here());
}

TEST_CASE("the same seed gives the same run, another one another") {
  Setting s = setting(4, 4);
  const Split split{{1, 5, 10}};
  const Result first = run(s, split), again = run(s, split);
  CHECK(first.requests == again.requests);
  CHECK(first.latencies == again.latencies);
  s.seed = 2;
  CHECK(run(s, split).latencies != first.latencies);
}

TEST_CASE("a search finds what trying all splits finds") {
  Setting s = setting(3, 3);
  s.cycles = 200'000;  // few requests are no measure
  const Search search = find_best(s, 9, 1000);
  REQUIRE(search.is_exact);
  CHECK(search.splits == 28);
  CHECK(search.simulated < search.splits);
  uint64_t best = 0;
  for (uint32_t drivers = 1; drivers <= 7; ++drivers)
    for (uint32_t stacks = 1; drivers + stacks <= 8; ++stacks) best = std::max(best, run(s, {{drivers, stacks, 9 - drivers - stacks}}).requests);
  CHECK(search.best.requests == best);
  CHECK_FALSE(find_best(setting(6, 6), 36, 1).is_exact);
}

// Mariti 2013, a TILEPro64: half round trips of a word and its acknowledgement over the network 42.1, of shared memory 111, with a receiver
// that looks at some 60 senders 231. Between neighbours: the model of memory knows no distance.
TEST_CASE("what a message costs between neighbours is near what was measured on a TILEPro64") {
  Setting s = setting(8, 8);
  CHECK(half_round_trip(s, 1, 1) == Approx(42.1).epsilon(0.15));
  CHECK(half_round_trip(s, 7, 63) == half_round_trip(s, 1, 1) + 6);
  s.queues = Queues::kDivided;
  CHECK(half_round_trip(s, 1, 1) == Approx(111).epsilon(0.15));
  CHECK(half_round_trip(s, 1, 63) == Approx(231).epsilon(0.15));
  CHECK_THROWS_AS(half_round_trip(s, 8, 1), std::invalid_argument);
}

TEST_CASE("a connection is asked about once, and one coordinator bounds all that are short") {
  for (Queues queues : kAllQueues) {
    Setting s = setting(6, 6);
    s.queues = queues;
    s.requests_per_connection = 1;
    const Result each = run(s, {{4, 12, 19}});
    CHECK(each.lost == 0);
    CHECK(each.per_request(each.messages) == Approx(10).epsilon(0.05));
    CHECK(each.coordinator_busy > 0.9);
    CHECK(each.requests <= s.cycles / s.costs.coordinator + 1);
    s.requests_per_connection = 100;
    const Result lasting = run(s, {{4, 12, 19}});
    CHECK(lasting.lost == 0);
    CHECK(lasting.coordinator_busy < 0.2);
    CHECK(lasting.requests > 2 * each.requests);
    CHECK_THROWS_AS(run(s, {{4, 12, 20}}), std::invalid_argument);
  }
}

TEST_CASE("more arrive than can be served, and the network engine refuses the rest") {
  Setting s = setting(4, 4);
  s.cycles = 400'000;
  s.rate = 0.02;
  const Result r = run(s, {{1, 5, 10}});
  CHECK(r.refused > 0);
  CHECK(r.lost == 0);
}

TEST_CASE("a line that a device has written is a remote access for who had it") {
  alignas(64) static uint64_t line[8];
  nocsim::MemoryModel memory(2, {});
  const nocsim::MemoryCosts costs;
  memory.load(0, line, 8);
  CHECK(memory.load(0, line, 8) == nocsim::Cycle(costs.l1));
  memory.written_by_device(line, sizeof line);
  CHECK(memory.load(0, line, 8) == nocsim::Cycle(costs.remote));
  CHECK(memory.load(0, line, 8) == nocsim::Cycle(costs.l1));
}
