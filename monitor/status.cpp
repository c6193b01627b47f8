#include "monitor/status.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "monitor/process.h"

namespace sluice::monitor {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kQueueNames[] = {"divided", "shared", "auto", "noc"};  // by RequestQueue

uint64_t counter_of(const Client& client, uint32_t counter) {
  // Relaxed: only for display.
  return client.region ? client.region->counters[counter].load(std::memory_order_relaxed) : 0;
}

Json details_of(const Client& client) {
  return {{"domain", client.domain},
          {"pid", client.pid},
          {"uid", client.uid},
          {"command", command_of(client.pid)},
          {"open", client.open_ends(shm::kOpen) + client.open_ends(shm::kOpenAccepted)},
          {"connects", counter_of(client, shm::kConnects)},
          {"accepts", counter_of(client, shm::kAccepts)}};
}

}  // namespace

uint64_t Status::total(uint32_t counter) const {
  uint64_t sum = ledger_[counter];
  clients_.for_each([&](const Client& c) { sum += counter_of(c, counter); });
  return sum;
}

uint64_t Status::open_now(shm::Counter counter) const {
  uint64_t sum = 0;
  clients_.for_each([&](const Client& c) { sum += c.open_ends(counter); });
  return sum;
}

namespace {

constexpr const char* kActions[] = {"allow", "kernel", "deny"};  // by Verdict

Json policy_of(const PolicyFile* file, const core::CoordinatorCore& core, bool all) {
  if (file == nullptr) return nullptr;
  const core::Policy& p = *file->table;
  const auto& refused = core.refusals();
  uint64_t sum = 0;
  Json rules = Json::array(), limits = Json::array();
  for (uint32_t i = 0; i < p.rule_count; ++i) {
    sum += refused.by_rule[i];
    rules.push_back({{"line", p.rules[i].line},
                     {"name", file->names[i]},
                     {"action", kActions[uint32_t(p.rules[i].verdict)]},
                     {"refused", refused.by_rule[i]}});
  }
  for (uint32_t i = 0; i < p.limit_count; ++i) {
    const auto& l = refused.by_limit[i];
    sum += l.clients + l.connections + l.bytes + l.requests;
    limits.push_back({{"line", p.limits[i].line},
                      {"refused", {{"clients", l.clients}, {"connections", l.connections}, {"bytes", l.bytes}, {"requests", l.requests}}}});
  }
  if (!all) return {{"refused_total", sum}};
  return {{"file", file->path}, {"refused_total", sum}, {"rules", rules}, {"limits", limits}};
}

}  // namespace

std::string Status::json(bool all) const {
  using namespace std::chrono;
  Json fallbacks = Json::object();
  for (uint32_t i = 0; i < uint32_t(shm::Fallback::kCount); ++i)
    fallbacks[shm::kFallbackNames[i]] = total(shm::kFallbacks + i);
  Json details = Json::array();
  clients_.for_each([&](const Client& c) {
    if (c.stage == Stage::kWelcomed) details.push_back(details_of(c));
  });
  Transport::Served served = transport_->served();
  Transport::Choice choice = transport_->choice();
  // Each client has a region and a reply region.
  uint64_t own_regions = 2 * details.size();
  uint64_t own_bytes = details.size() * (shm::kClientBytes + shm::kReplyBytes);
  Json j = {
      {"version", SLUICE_VERSION},
      {"protocol", shm::kProtocolVersion},
      {"pid", getpid()},
      {"directory", options_.directory},
      {"queues", kQueueNames[options_.queues]},
      {"queues_now", {{"divided", choice.divided}, {"shared", choice.shared}, {"noc", choice.noc}}},
      {"queues_why", choice.why},
      {"poll", options_.busy_poll ? "busy" : "adaptive"},
      {"protect", options_.protect_name()},
      {"uptime_s", duration_cast<seconds>(steady_clock::now() - start_).count()},
      {"clients", core_.present()},
      {"listeners", core_.listeners()},
      {"connections", std::max(open_now(shm::kOpen), open_now(shm::kOpenAccepted))},
      {"accelerated_total", total(shm::kConnects)},
      {"granted_total", total(shm::kConnectsGranted)},
      {"accepts_total", total(shm::kAccepts)},
      {"kernel_accepts_total", total(shm::kKernelAccepts)},
      {"resets_total", total(shm::kResets)},
      {"pipes_total", total(shm::kPipes)},
      {"socketpairs_total", total(shm::kSocketPairs)},
      {"keyed", open_now(shm::kKeyed)},
      {"key_instructions", open_now(shm::kKeyInstructions)},
      {"fallback_total", fallbacks},
      {"requests_total",
       {{"divided", served.divided}, {"shared", served.shared}, {"noc", served.noc}}},
      {"bells_total", total(shm::kBells) + post_.bells()},
      {"regions", pairs_.count() + tickets_.regions() + own_regions},
      {"region_bytes", pairs_.bytes() + own_bytes},
      {"passed_total", tickets_.claimed()},
      {"in_flight", tickets_.in_flight()},
      {"policy", policy_of(policing_.file(), core_, all)},
      {"clients_detail", details},
  };
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::monitor
