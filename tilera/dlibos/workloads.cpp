#include "tilera/dlibos/workloads.h"

#include <array>

#include "tilera/code_costs.h"

namespace sluice::tilera::dlibos {
namespace {

constexpr Costs kAssumed = {
    .driver_rx = 150,
    .driver_tx = 150,
    .stack_rx = 800,
    .stack_tx = 700,
    .coordinator = cycles_to_answer(shm::kConnect),
    .message = 20,
    .hand_back = 20,
    .atomic = 10,
    .scan = 3,
};

constexpr Costs with(uint32_t application, uint32_t request_bytes, uint32_t reply_bytes) {
  Costs c = kAssumed;
  c.application = application;
  c.request_bytes = request_bytes;
  c.reply_bytes = reply_bytes;
  return c;
}

constexpr std::array kWorkloads = {
    Workload{"web", with(2750, 128, 256)},
    Workload{"memcached", with(3900, 128, 192)},
};

constexpr const char* kMeasured =
    "measured: user time of nginx or memcached under Sluice, in ticks of an x86-64's time stamp counter, taken as as many cycles "
    "(docs/results/dlibos-costs.json, medians, rounded)";
constexpr const char* kAssumedStage = "assumed: no user-level TCP stack of this tree has been measured";
constexpr const char* kCounted = "counted: the load generator's and the server's own bytes, and 54 of Ethernet, IP and TCP, in whole lines";

constexpr Input kInputs[] = {
    {"driver-rx", &Costs::driver_rx, "cycles of a driver tile to take a packet from the network engine", kAssumedStage},
    {"driver-tx", &Costs::driver_tx, "cycles of a driver tile to give a packet to the engine, and to learn that it is sent", kAssumedStage},
    {"stack-rx", &Costs::stack_rx, "cycles of a stack tile to take a segment with a request", kAssumedStage},
    {"stack-tx", &Costs::stack_tx, "cycles of a stack tile to make a segment of a reply, without copying", kAssumedStage},
    {"application", &Costs::application, "cycles of an application tile", kMeasured},
    {"coordinator", &Costs::coordinator, "cycles of the coordinator's tile for a connection (--requests-per-connection)",
     "assumed: instructions of its core for a connect, counted on x86-64 (tilera/code_costs.h)"},
    {"message", &Costs::message, "cycles to make a message, and as many to take it apart", "assumed: a branch on its type and a look into a table"},
    {"hand-back", &Costs::hand_back, "cycles to put a buffer that came back on its owner's list", "assumed: a list in memory of one tile"},
    {"atomic", &Costs::atomic, "cycles for which an atomic addition keeps its line's home", "assumed"},
    {"scan", &Costs::scan, "cycles to look at the next sender's ring, besides the load", "assumed: an addition, a comparison, a branch"},
    {"request-bytes", &Costs::request_bytes, "of a request's packet", kCounted},
    {"reply-bytes", &Costs::reply_bytes, "of a reply's packet", kCounted},
};

}  // namespace

const Workload* find_workload(std::string_view name) {
  for (const Workload& w : kWorkloads)
    if (w.name == name) return &w;
  return nullptr;
}

std::span<const Workload> all_workloads() { return kWorkloads; }
std::span<const Input> all_inputs() { return kInputs; }

}  // namespace sluice::tilera::dlibos
