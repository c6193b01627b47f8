#include "monitor/bench/bench_dlibos.h"

#include <stdio.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "monitor/bench/rows.h"
#include "tilera/dlibos/picture.h"
#include "tilera/dlibos/plan.h"
#include "tilera/dlibos/round_trip.h"
#include "tilera/dlibos/search.h"
#include "tilera/dlibos/workloads.h"

namespace sluice::monitor::bench {
namespace {

namespace dlibos = tilera::dlibos;

constexpr uint32_t kMostTiles = 1024;
constexpr double kGigabit = 1e9;

// The whole numbers in a text, which has nothing else but the separator; empty if it is otherwise.
std::vector<uint32_t> numbers(const std::string& text, char separator) {
  std::vector<uint32_t> found(1, 0);
  std::size_t digits = 0;
  for (char c : text) {
    if (c == separator && digits != 0) {
      found.push_back(0);
      digits = 0;
    } else if (c >= '0' && c <= '9' && digits < 9) {
      found.back() = found.back() * 10 + uint32_t(c - '0');
      ++digits;
    } else {
      return {};
    }
  }
  return digits != 0 ? found : std::vector<uint32_t>();
}

std::optional<nocsim::Config> mesh_of(const std::string& size) {
  const std::vector<uint32_t> sides = numbers(size, 'x');
  if (sides.size() != 2 || sides[0] == 0 || sides[1] == 0 || sides[0] > kMostTiles || sides[1] > kMostTiles) return {};
  if (sides[0] * sides[1] < dlibos::kRoles || sides[0] * sides[1] > kMostTiles) return {};
  nocsim::Config mesh = nocsim::find_profile("udn")->config;
  mesh.width = int(sides[0]);
  mesh.height = int(sides[1]);
  return nocsim::complaint_about(mesh).empty() ? std::optional(mesh) : std::nullopt;
}

std::optional<dlibos::Split> split_of(const std::string& text) {
  const std::vector<uint32_t> tiles = numbers(text, ',');
  if (tiles.size() != dlibos::kRoles) return {};
  for (uint32_t n : tiles)
    if (n == 0 || n > kMostTiles) return {};
  return dlibos::Split{{tiles[0], tiles[1], tiles[2]}};
}

// NAME=CYCLES into costs.
bool put(const std::string& text, dlibos::Costs& costs) {
  const std::size_t sign = text.find('=');
  if (sign == std::string::npos) return false;
  const std::vector<uint32_t> value = numbers(text.substr(sign + 1), ',');
  if (value.size() != 1 || value[0] > 1'000'000) return false;
  for (const dlibos::Input& input : dlibos::all_inputs()) {
    if (input.name != text.substr(0, sign)) continue;
    costs.*input.figure = value[0];
    return costs.request_bytes != 0 && costs.reply_bytes != 0;
  }
  return false;
}

struct Case {
  std::string workload, mesh, queues, protection;
  double rate = 0;
  dlibos::Setting setting;
  uint32_t tiles() const { return uint32_t(setting.mesh.nodes()); }
};

dlibos::Costs costs_of(const DlibosOptions& o, const std::string& workload) {
  dlibos::Costs costs = dlibos::find_workload(workload)->costs;
  for (const std::string& cost : o.costs) put(cost, costs);
  using dlibos::Costs;
  for (auto stage : {&Costs::driver_rx, &Costs::driver_tx, &Costs::stack_rx, &Costs::stack_tx, &Costs::application})
    costs.*stage = uint32_t(costs.*stage * o.scale + 0.5);
  return costs;
}

dlibos::Setting setting_of(const DlibosOptions& o, const Case& c) {
  dlibos::Setting s;
  s.mesh = *mesh_of(c.mesh);
  s.costs = costs_of(o, c.workload);
  s.queues = c.queues == "noc" ? dlibos::Queues::kNoc : c.queues == "divided" ? dlibos::Queues::kDivided : dlibos::Queues::kShared;
  s.is_protected = c.protection == "on";
  s.hand_back = o.hand_back == "messages" ? dlibos::HandBack::kMessages : dlibos::HandBack::kPiggyback;
  s.spread = o.spread == "random" ? dlibos::Spread::kRandom : dlibos::Spread::kTurns;
  s.requests_per_connection = o.requests_per_connection;
  s.rate = c.rate / tilera::kClockHz;
  s.cycles = o.cycles;
  s.warm_up = o.warm_up;
  s.seed = o.seed;
  return s;
}

std::vector<Case> cases_of(const DlibosOptions& o) {
  std::vector<Case> cases;
  const std::vector<double> rates = o.rates.empty() ? std::vector{0.0} : o.rates;
  for (const auto& workload : o.workloads)
    for (const auto& mesh : o.meshes)
      for (const auto& queues : o.queues)
        for (const auto& protection : o.protection)
          for (double rate : rates) {
            cases.push_back({workload, mesh, queues, protection, rate, {}});
            cases.back().setting = setting_of(o, cases.back());
          }
  return cases;
}

// ---- telling ------------------------------------------------------------------------------

struct Told {
  const DlibosOptions& options;
  nlohmann::json rows = nlohmann::json::array();
  bool quiet() const { return options.json == "-"; }
};

double microseconds(uint32_t cycles) { return cycles / tilera::kClockHz * 1e6; }

nlohmann::json json_of(const DlibosOptions& o, const Case& c, const dlibos::Result& r) {
  nlohmann::json costs;
  for (const dlibos::Input& input : dlibos::all_inputs()) costs[std::string(input.name)] = c.setting.costs.*input.figure;
  nlohmann::json busy;
  for (uint32_t role = 0; role < dlibos::kRoles; ++role) busy[dlibos::kRoleNames[role]] = r.busy[role];
  const double bytes = c.setting.costs.request_bytes + c.setting.costs.reply_bytes;
  return {{"simulated", true},
          {"workload", c.workload},
          {"mesh", c.mesh},
          {"tiles", c.tiles()},
          {"clock_ghz", tilera::kClockHz / 1e9},
          {"queues", c.queues},
          {"protection", c.protection},
          {"hand_back", o.hand_back},
          {"spread", o.spread},
          {"rate", c.rate > 0 ? nlohmann::json(c.rate) : nlohmann::json()},
          {"driver", r.split[dlibos::kDriver]},
          {"stack", r.split[dlibos::kStack]},
          {"application", r.split[dlibos::kApplication]},
          {"pipelines", r.pipelines},
          {"cycles", r.cycles},
          {"seed", o.seed},
          {"scale", o.scale},
          {"requests", r.requests},
          {"requests_per_s", r.requests_per_s()},
          {"bound_requests_per_s", dlibos::bound(c.setting, r.split) * tilera::kClockHz},
          {"tile_cycles_per_request", r.requests != 0 ? double(r.cycles) * r.split.sum() / double(r.requests) : 0},
          {"p50_cycles", r.quantile(0.5)},
          {"p99_cycles", r.quantile(0.99)},
          {"p50_us", microseconds(r.quantile(0.5))},
          {"p99_us", microseconds(r.quantile(0.99))},
          {"messages_per_request", r.per_request(r.messages)},
          {"copied_bytes_per_request", r.per_request(r.copied_bytes)},
          {"busy", busy},
          {"requests_per_connection", o.requests_per_connection},
          {"coordinator_busy", c.setting.has_coordinator() ? nlohmann::json(r.coordinator_busy) : nlohmann::json()},
          {"busiest_link", r.busiest_link},
          {"mean_link", r.mean_link},
          {"wire_gbit_per_s", bytes * 8 * r.requests_per_s() / kGigabit},
          {"refused", r.refused},
          {"lost", r.lost},
          {"costs", costs}};
}

void print_heading() {
  printf("%-10s %6s %-8s %-4s %-7s %12s %6s %12s %12s %8s %8s %7s %5s %17s %7s %7s\n", "workload", "mesh", "queues", "prot", "kind", "split",
         "pipes", "requests/s", "bound", "p50 us", "p99 us", "msgs", "copy", "busy d/s/a", "link", "Gbit/s");
}

void tell(Told& told, const Case& c, const dlibos::Result& r, const char* kind, const nlohmann::json& more = nlohmann::json::object()) {
  nlohmann::json row = json_of(told.options, c, r);
  row["kind"] = kind;
  row.update(more);
  if (!told.quiet()) {
    char split[48], busy[48];
    snprintf(split, sizeof split, "%u+%u+%u", r.split[dlibos::kDriver], r.split[dlibos::kStack], r.split[dlibos::kApplication]);
    snprintf(busy, sizeof busy, "%.0f%% %.0f%% %.0f%%", r.busy[0] * 100, r.busy[1] * 100, r.busy[2] * 100);
    printf("%-10s %6s %-8s %-4s %-7s %12s %6u %12.0f %12.0f %8.2f %8.2f %7.1f %5.0f %17s %7.3f %7.1f\n", c.workload.c_str(), c.mesh.c_str(),
           c.queues.c_str(), c.protection.c_str(), kind, split, r.pipelines, r.requests_per_s(), row["bound_requests_per_s"].get<double>(),
           microseconds(r.quantile(0.5)), microseconds(r.quantile(0.99)), r.per_request(r.messages), r.per_request(r.copied_bytes), busy,
           r.busiest_link, row["wire_gbit_per_s"].get<double>());
    fflush(stdout);
  }
  told.rows.push_back(std::move(row));
}

// A curve for each workload, kind of queue and protection; over tiles of the chip, or of the role that the rows are by.
int write_picture(const DlibosOptions& o, const nlohmann::json& rows) {
  std::vector<dlibos::Curve> curves;
  for (const auto& row : rows) {
    const std::string name = row["workload"].get<std::string>() + ", " + row["queues"].get<std::string>() +
                             (row["protection"] == "on" ? ", protected" : ", unprotected");
    if (curves.empty() || curves.back().name != name) {
      const auto found = std::find_if(curves.begin(), curves.end(), [&](const dlibos::Curve& c) { return c.name == name; });
      if (found != curves.end()) std::rotate(found, found + 1, curves.end());
      else curves.push_back({name, {}});
    }
    curves.back().points.emplace_back(row[o.by_role.empty() ? "tiles" : o.by_role].get<double>(), row["requests_per_s"].get<double>());
  }
  std::ofstream file(o.plot);
  file << dlibos::picture_of("Requests/s, simulated", o.by_role.empty() ? "tiles" : o.by_role + " tiles", curves) << std::flush;
  if (file) return 0;
  fprintf(stderr, "sluice: %s: cannot be written\n", o.plot.c_str());
  return 1;
}

// ---- running ------------------------------------------------------------------------------

std::optional<dlibos::Role> role_of(const std::string& name) {
  for (uint32_t role = 0; role < dlibos::kRoles; ++role)
    if (name == dlibos::kRoleNames[role]) return dlibos::Role(role);
  return {};
}

void run_case(Told& told, const Case& c) {
  const DlibosOptions& o = told.options;
  if (!o.split.empty()) return tell(told, c, dlibos::run(c.setting, *split_of(o.split)), "given");
  if (!o.by_role.empty()) {
    for (const dlibos::Split& split : dlibos::splits_by_role(c.setting, c.setting.tiles(), *role_of(o.by_role)))
      tell(told, c, dlibos::run(c.setting, split), "role", {{"by_role", o.by_role}});
    return;
  }
  const dlibos::Search search = dlibos::find_best(c.setting, c.setting.tiles(), o.most);
  tell(told, c, search.best, "best", {{"splits", search.splits}, {"simulated_splits", search.simulated}, {"exact", search.is_exact}});
}

// Between neighbours and across the mesh, of one sender and of as many as there are other tiles.
void run_round_trips(Told& told) {
  const DlibosOptions& o = told.options;
  if (!told.quiet()) printf("%6s %-8s %5s %8s %22s\n", "mesh", "queues", "hops", "senders", "half round trip, cycles");
  for (const auto& mesh : o.meshes)
    for (const auto& queues : o.queues) {
      const dlibos::Setting setting = setting_of(o, {o.workloads.front(), mesh, queues, "off", 0, {}});
      const auto across = uint32_t(setting.mesh.width) - 1, others = uint32_t(setting.mesh.nodes()) - 1;
      for (uint32_t senders : {1u, others})
        for (uint32_t hops : {1u, across}) {
          const double cycles = dlibos::half_round_trip(setting, hops, senders);
          if (!told.quiet()) printf("%6s %-8s %5u %8u %22.1f\n", mesh.c_str(), queues.c_str(), hops, senders, cycles);
          told.rows.push_back({{"simulated", true}, {"kind", "round-trip"}, {"mesh", mesh}, {"queues", queues}, {"hops", hops}, {"senders", senders},
                               {"half_round_trip_cycles", cycles}, {"message_cycles", setting.costs.message}});
        }
    }
}

int print_inputs(const DlibosOptions& o) {
  for (const std::string& name : o.workloads) {
    const dlibos::Costs costs = costs_of(o, name);
    printf("%s\n", name.c_str());
    for (const dlibos::Input& input : dlibos::all_inputs())
      printf("  %-14s %6u  %s\n  %-14s         %s\n", std::string(input.name).c_str(), costs.*input.figure, std::string(input.meaning).c_str(), "",
             std::string(input.source).c_str());
  }
  return 0;
}

}  // namespace

std::string complaint_about(const DlibosOptions& o) {
  for (const std::string& mesh : o.meshes)
    if (!mesh_of(mesh)) return "--mesh: " + mesh + " is not WxH with 3 to 1024 tiles";
  const uint32_t coordinators = o.requests_per_connection != 0;
  for (const std::string& mesh : o.meshes)
    if (uint32_t(mesh_of(mesh)->nodes()) < dlibos::kRoles + coordinators)
      return "--requests-per-connection: " + mesh + " has no tile left for the coordinator";
  for (const std::string& name : o.workloads)
    if (dlibos::find_workload(name) == nullptr) return "--workload: there is no " + name;
  dlibos::Costs costs = dlibos::all_workloads().front().costs;
  for (const std::string& cost : o.costs)
    if (!put(cost, costs)) return "--cost: " + cost + " is not NAME=CYCLES (--inputs has the names), up to 1000000";
  for (const std::string& mesh : o.meshes)
    if (o.round_trips && mesh_of(mesh)->width < 2) return "--round-trips: " + mesh + " has no two tiles in a row";
  if (o.round_trips && !o.plot.empty()) return "--round-trips are not drawn";
  if (!o.by_role.empty() && !role_of(o.by_role)) return "--by-role: driver, stack or application, not " + o.by_role;
  if (o.split.empty()) return {};
  if (!o.by_role.empty()) return "--split and --by-role exclude each other";
  const auto split = split_of(o.split);
  if (!split) return "--split: " + o.split + " is not D,S,A, tiles of each role";
  for (const std::string& mesh : o.meshes)
    if (split->sum() + coordinators > uint32_t(mesh_of(mesh)->nodes()))
      return "--split: " + mesh + " has no " + std::to_string(split->sum() + coordinators) + " tiles";
  if (dlibos::divide(*split, uint32_t(nocsim::find_profile("udn")->config.queue_words)).empty())
    return "--split: the queues have no room for credits of " + o.split;
  return {};
}

int bench_dlibos(const DlibosOptions& given) {
  DlibosOptions o = given;
  if (o.workloads.empty())
    for (const dlibos::Workload& w : dlibos::all_workloads()) o.workloads.emplace_back(w.name);
  if (o.inputs) return print_inputs(o);
  Told told{o};
  if (!told.quiet()) {
    printf("SIMULATED: tiles at %.1f GHz; what a request costs is put in (--inputs says what, and from where)\n", tilera::kClockHz / 1e9);
    if (!o.round_trips) print_heading();
  }
  try {
    if (o.round_trips) run_round_trips(told);
    else for (const Case& c : cases_of(o)) run_case(told, c);
  } catch (const std::exception& e) {
    fprintf(stderr, "sluice: bench: the simulated chip: %s\n", e.what());
    return 1;
  }
  if (!o.plot.empty())
    if (int status = write_picture(o, told.rows)) return status;
  return write_rows(o.json, told.rows);
}

}  // namespace sluice::monitor::bench
