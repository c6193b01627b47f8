#include "tilera/sim/request_load.h"

#include <algorithm>
#include <stdexcept>

#include "tilera/sim/chip.h"

namespace sluice::tilera {
namespace {

constexpr const char* kChips[] = {"tilegx36", "tilegx72"};
constexpr nocsim::Cycle kWarmUp = 100'000;  // all have joined long before
constexpr nocsim::Cycle kWatchdog = 50'000;

uint32_t clients_of(const char* chip) { return uint32_t(nocsim::find_profile(chip)->config.nodes()) - 1; }

// All of the active clients, and what they have seen.
class Run {
 public:
  Run(const SimulatedLoad& load, Chip& chip) : load_(load), chip_(chip) {
    const uint32_t others = load.active - load.flooders;
    interval_ = load.rate > 0 ? double(others) / load.rate : 0;
    for (uint32_t i = 0; i < load.clients; ++i) chip.start(chip.clients()[i], [this, i](Chip::Client& c) { be_client(i, c); });
  }
  void measure(SimulatedResult& result) {
    advance(kWarmUp);
    measuring_ = true;
    nocsim::Tile& coordinator = chip_.mesh().tile(chip_.plan().root);
    const nocsim::Cycle waited = coordinator.counts().waiting_to_receive;
    advance(load_.cycles);
    const nocsim::Cycle waits = coordinator.counts().waiting_to_receive - waited;
    result.requests = requests_;
    result.coordinator_cycles = load_.cycles - std::min<nocsim::Cycle>(waits, load_.cycles);
    result.round_trips = std::move(round_trips_);
    std::sort(result.round_trips.begin(), result.round_trips.end());
  }

 private:
  void advance(nocsim::Cycle cycles) {
    const nocsim::Outcome outcome = chip_.run(cycles);
    const bool is_over = load_.active == 0 && outcome.kind == nocsim::Outcome::Kind::kFinished;
    if (outcome.kind != nocsim::Outcome::Kind::kLimit && !is_over) throw std::runtime_error(outcome.describe());
  }
  // Word 0 is when it was, or should have been, sent.
  Message ping(uint64_t at) const {
    Message m{shm::kPing, 0, 0, {at}};
    for (uint32_t i = 1; i < load_.words; ++i) m.words[i] = i;
    return m;
  }
  uint64_t now() { return chip_.mesh().cycle(); }  // costs nothing

  void be_client(uint32_t index, Chip::Client& c) {
    if (c.join(int32_t(index) + 1) == shm::kNobody) throw std::runtime_error("a tile cannot join");
    if (index >= load_.active) return;
    const bool floods = index < load_.flooders;
    if (floods || load_.rate == 0) return be_closed(c, floods ? kMostDepth : load_.depth, !floods);
    be_open(c, double(now()) + interval_ * index / load_.active);
  }
  void be_closed(Chip::Client& c, uint32_t depth, bool counts) {
    for (uint32_t under_way = 0;;) {
      while (under_way < depth && c.try_send(ping(now()))) ++under_way;
      take(c, counts);
      --under_way;
    }
  }
  void be_open(Chip::Client& c, double next) {
    for (;;) {
      if (double(now()) >= next && c.try_send(ping(uint64_t(next)))) next += interval_;
      const bool waits = c.credits() < chip_.plan().depth;
      if (waits && c.has_reply()) take(c, true);
      if (!waits && next > double(now())) c.noc().spend(uint32_t(next - double(now())) + 1);
    }
  }
  void take(Chip::Client& c, bool counts) {
    const Message reply = c.receive();
    if (!measuring_) return;
    ++requests_;
    if (counts) round_trips_.push_back(uint32_t(now() - reply.words[0]));
  }

  const SimulatedLoad load_;
  Chip& chip_;
  double interval_ = 0;
  bool measuring_ = false;
  uint64_t requests_ = 0;
  std::vector<uint32_t> round_trips_;
};

}  // namespace

uint32_t most_simulated_clients() { return clients_of(kChips[1]); }

SimulatedResult run_load(const SimulatedLoad& load) {
  const bool small = load.clients <= clients_of(kChips[0]);
  SimulatedResult result;
  result.mesh = small ? kChips[0] : kChips[1];
  const nocsim::Config config = nocsim::find_profile(result.mesh)->config;
  Wish wish{.width = uint32_t(config.width), .height = uint32_t(config.height), .clients = load.clients};
  wish.room = {uint32_t(config.queue_words), config.queues_share};
  wish.packet_words = load.packet_words;
  wish.relays = load.relays;
  if (const char* complaint = make_plan(wish, result.plan)) throw std::invalid_argument(complaint);
  Chip chip(config, result.plan);
  chip.mesh().set_watchdog(kWatchdog);
  Run run(load, chip);
  run.measure(result);
  return result;
}

}  // namespace sluice::tilera
