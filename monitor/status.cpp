#include "monitor/status.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "monitor/process.h"

namespace sluice::monitor {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kQueueNames[] = {"divided", "shared", "auto"};  // by RequestQueue

uint64_t counter_of(const Client& client, uint32_t counter) {
  // Relaxed: only for display.
  return client.region ? client.region->counters[counter].load(std::memory_order_relaxed) : 0;
}

// A number of open ends as a client tells it: it may lie, or be between two steps.
uint64_t open_ends(const Client& client, shm::Counter counter) {
  int64_t n = int64_t(counter_of(client, counter));
  return uint64_t(std::clamp<int64_t>(n, 0, int64_t{1} << 32));
}

Json details_of(const Client& client) {
  return {{"domain", client.domain},
          {"pid", client.pid},
          {"uid", client.uid},
          {"command", command_of(client.pid)},
          {"open", open_ends(client, shm::kOpen) + open_ends(client, shm::kOpenAccepted)},
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
  clients_.for_each([&](const Client& c) { sum += open_ends(c, counter); });
  return sum;
}

std::string Status::json() const {
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
      {"queues_now", {{"divided", choice.divided}, {"shared", choice.shared}}},
      {"queues_why", choice.why},
      {"poll", options_.busy_poll ? "busy" : "adaptive"},
      {"protect", options_.protect == shm::Protect::kNone ? "none" : "regions"},
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
      {"fallback_total", fallbacks},
      {"requests_total",
       {{"divided", served.divided}, {"shared", served.shared}}},
      {"bells_total", total(shm::kBells) + post_.bells()},
      {"regions", pairs_.count() + tickets_.regions() + own_regions},
      {"region_bytes", pairs_.bytes() + own_bytes},
      {"passed_total", tickets_.claimed()},
      {"in_flight", tickets_.in_flight()},
      {"clients_detail", details},
  };
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::monitor
