#include "monitor/bench/bench_requests.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>

#include "monitor/bench/measured_daemon.h"
#include "monitor/bench/raw_limits.h"
#include "monitor/bench/request_load.h"
#include "monitor/bench/rows.h"
#include "monitor/bench/simulated_noc.h"
#include "monitor/coordinator_link.h"

namespace sluice::monitor::bench {
namespace {

std::atomic<bool> interrupted{false};

struct Case {
  uint32_t clients, active, depth;
  double rate;  // 0: closed loop
};

// The rounds of one case over one kind of queue.
struct Row {
  std::string queues;
  Case of;
  bool counts_cycles = false;  // else its CPU time in ticks
  std::optional<SimulatedRow> simulated;
  std::vector<double> requests_per_s, p50_us, p99_us, p999_us, client_ns, cycles, misses, line_us, p50_per_line, shared_part;
};

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v.size() % 2 != 0 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

// Of the rounds, as a part of the median.
double spread(const std::vector<double>& v) {
  if (v.empty()) return 0;
  auto [low, high] = std::minmax_element(v.begin(), v.end());
  double m = median(v);
  return m != 0 ? (*high - *low) / m : 0;
}

std::vector<Case> cases_of(const RequestsOptions& o) {
  std::vector<Case> cases;
  for (uint32_t clients : o.clients) {
    for (uint32_t wanted : o.active.empty() ? std::vector{clients} : o.active) {
      uint32_t active = std::min(wanted, clients);
      for (uint32_t depth : o.depths) cases.push_back({clients, active, depth, 0});
      for (double rate : o.rates) cases.push_back({clients, active, 1, rate});
    }
  }
  return cases;
}

// Of all requests that the coordinator has served.
double shared_part(const MeasuredDaemon& daemon) {
  auto status = nlohmann::json::parse(ask(daemon.directory(), shm::kStatus).text, nullptr, false);
  if (!status.contains("requests_total")) return 0;
  const auto& total = status["requests_total"];
  double divided = total.value("divided", 0.0), shared = total.value("shared", 0.0);
  return divided + shared > 0 ? shared / (divided + shared) : 0;
}

// One run: another would be the same.
std::string simulate(const RequestsOptions& o, const Case& c, Row& row) {
  if (row.simulated) return {};
  SimulatedRow s;
  std::string problem = bench::simulate({c.clients, c.active, c.depth, std::min(o.flooders, c.active - 1), c.rate}, s);
  if (!problem.empty()) return problem;
  row.requests_per_s = {s.requests_per_s()};
  row.p50_us = {s.quantile_us(0.5)};
  row.p99_us = {s.quantile_us(0.99)};
  row.p999_us = {s.quantile_us(0.999)};
  row.cycles = {s.cycles_per_request()};
  row.simulated = std::move(s);
  return {};
}

std::string measure(const RequestsOptions& o, const Case& c, Row& row) {
  if (row.queues == kSimulatedQueue) return simulate(o, c, row);
  double line_us = line_round_trip_us(o.client_cpu, o.coordinator_cpu);
  MeasuredDaemon daemon;
  std::string problem = daemon.start(row.queues, o.poll, o.coordinator_cpu);
  if (!problem.empty()) return problem;
  uint32_t flooders = std::min(o.flooders, c.active - 1);
  RequestLoad load(daemon.directory(), {c.clients, c.active, c.depth, flooders, o.by_turns, c.rate, o.client_cpu});
  problem = load.start();
  if (!problem.empty()) return problem;
  load.warm_up(std::max(0.05, o.seconds / 10));
  daemon.begin_counting();
  load.begin();
  usleep(useconds_t(o.seconds * 1e6));
  daemon.end_counting();
  load.end();
  LoadResult r = load.result();
  double n = double(r.requests);
  row.requests_per_s.push_back(n / r.seconds);
  if (r.requests == 0) return {};  // on a loaded machine nobody may have had a turn
  row.p50_us.push_back(r.latencies.quantile(0.5) / 1e3);
  row.line_us.push_back(line_us);
  row.p50_per_line.push_back(row.p50_us.back() / line_us);
  row.p99_us.push_back(r.latencies.quantile(0.99) / 1e3);
  row.p999_us.push_back(r.latencies.quantile(0.999) / 1e3);
  row.client_ns.push_back(double(r.client_ns) / n);
  row.counts_cycles = daemon.counts_cycles();
  if (daemon.cycles()) row.cycles.push_back(double(*daemon.cycles()) / n);
  row.shared_part.push_back(shared_part(daemon));
  if (daemon.cache_misses()) row.misses.push_back(double(*daemon.cache_misses()) / n);
  return {};
}

// ---- telling ------------------------------------------------------------------------------

nlohmann::json number_or_null(const std::vector<double>& v) {
  return v.empty() ? nlohmann::json() : nlohmann::json(median(v));
}

nlohmann::json json_of_case(const RequestsOptions& o, const Row& r) {
  return {{"queues", r.queues},
          {"simulated", r.simulated.has_value()},
          {"clients", r.of.clients},
          {"active", r.of.active},
          {"flooders", std::min(o.flooders, r.of.active - 1)},
          {"by_turns", o.by_turns},
          {"depth", r.of.depth},
          {"loop", r.of.rate > 0 ? "open" : "closed"},
          {"rate", r.of.rate > 0 ? nlohmann::json(r.of.rate) : nlohmann::json()},
          {"rounds", r.requests_per_s.size()},
          {"requests_per_s", median(r.requests_per_s)},
          {"requests_per_s_spread", spread(r.requests_per_s)},
          {"p50_us", median(r.p50_us)},
          {"p50_us_spread", spread(r.p50_us)},
          {"p99_us", median(r.p99_us)},
          {"p999_us", median(r.p999_us)},
          {"cycles_per_request", number_or_null(r.cycles)}};
}

nlohmann::json json_of_measured(const RequestsOptions& o, const Row& r) {
  return {{"poll", o.poll},
          {"line_round_trip_us", median(r.line_us)},
          {"p50_per_line_round_trip", median(r.p50_per_line)},
          {"client_ns_per_request", median(r.client_ns)},
          {"shared_part", median(r.shared_part)},
          {"cycles_from", r.counts_cycles ? "perf" : "time"},
          {"cache_misses_per_request", number_or_null(r.misses)}};
}

nlohmann::json json_of_simulated(const SimulatedRow& s) {
  const tilera::Plan& plan = s.of.plan;
  return {{"mesh", s.of.mesh},
          {"clock_ghz", tilera::kClockHz / 1e9},
          {"cycles", s.cycles},
          {"cycles_from", "simulation"},
          {"p50_cycles", s.of.quantile(0.5)},
          {"p99_cycles", s.of.quantile(0.99)},
          {"p999_cycles", s.of.quantile(0.999)},
          {"relays", plan.relays},
          {"credits", plan.depth},
          {"request_words", plan.packet_words}};
}

nlohmann::json json_of(const RequestsOptions& o, const Row& r) {
  nlohmann::json row = json_of_case(o, r);
  row.update(r.simulated ? json_of_simulated(*r.simulated) : json_of_measured(o, r));
  return row;
}

std::string cell(const std::vector<double>& v, const char* format) {
  char text[32];
  snprintf(text, sizeof text, format, median(v));
  return v.empty() ? "-" : text;
}

void print_heading() {
  printf("%-8s %8s %7s %6s %11s %14s %8s %9s %9s %9s %9s %10s %9s %8s\n", "queues", "clients", "active", "depth", "rate/s",
         "requests/s", "spread", "p50 us", "p50/line", "p99 us", "p99.9 us", "cycles", "misses", "client");
}

void print(const Row& r) {
  char rate[32] = "closed";
  if (r.of.rate > 0) snprintf(rate, sizeof rate, "%.0f", r.of.rate);
  const std::string name = r.simulated ? r.queues + "~sim" : r.queues;
  printf("%-8s %8u %7u %6u %11s %14.0f %7.0f%% %9.2f %9s %9.2f %9.2f %10s %9s %8s\n", name.c_str(), r.of.clients, r.of.active,
         r.of.depth, rate, median(r.requests_per_s), spread(r.requests_per_s) * 100, median(r.p50_us),
         cell(r.p50_per_line, "%.1fx").c_str(), median(r.p99_us), median(r.p999_us), cell(r.cycles, "%.0f").c_str(),
         cell(r.misses, "%.2f").c_str(), cell(r.client_ns, "%.0fns").c_str());
  if (r.simulated) {
    const SimulatedRow& s = *r.simulated;
    printf("         SIMULATED: %s at %.1f GHz; round trip %u cycles, p99 %u; credits %u x %u words, relays %u\n", s.of.mesh,
           tilera::kClockHz / 1e9, s.of.quantile(0.5), s.of.quantile(0.99), s.of.plan.depth, s.of.plan.packet_words, s.of.plan.relays);
  }
  fflush(stdout);
}

void warn_of_load() {
  double load[1];
  int cpus = int(sysconf(_SC_NPROCESSORS_ONLN));
  if (getloadavg(load, 1) == 1 && load[0] > 0.5)
    fprintf(stderr, "sluice: the load average is %.1f: other programs disturb what is measured\n", load[0]);
  if (cpus < 2) fprintf(stderr, "sluice: one CPU: coordinator and clients take turns\n");
}

bool has_room(const std::string& queues, const Case& c) {
  if (queues != kSimulatedQueue || c.clients <= tilera::most_simulated_clients()) return true;
  fprintf(stderr, "sluice: bench: no row for %u clients over noc: the simulated chips have tiles for %u\n", c.clients,
          tilera::most_simulated_clients());
  return false;
}

// The last CPU for the coordinator, the first one for the clients.
RequestsOptions with_cpus(RequestsOptions o) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) return o;
  int first = -1, last = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (first < 0) first = cpu;
    last = cpu;
  }
  if (o.coordinator_cpu < 0) o.coordinator_cpu = last;
  if (o.client_cpu < 0) o.client_cpu = first;
  return o;
}

}  // namespace

int bench_requests(const RequestsOptions& given) {
  if (given.by_turns && std::count(given.queues.begin(), given.queues.end(), kSimulatedQueue) != 0) {
    fprintf(stderr, "sluice: bench: --by-turns is not simulated: leave noc out of --queues\n");
    return 2;
  }
  RequestsOptions o = with_cpus(given);
  for (int number : {SIGINT, SIGTERM}) signal(number, [](int) { interrupted = true; });
  bool quiet = o.json == "-";
  if (!quiet) warn_of_load();
  if (!quiet) print_heading();
  nlohmann::json rows = nlohmann::json::array();
  for (const Case& c : cases_of(o)) {
    std::vector<Row> of_case;
    for (const std::string& queues : o.queues) if (has_room(queues, c)) of_case.push_back({queues, c, false, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
    for (uint32_t round = 0; round < o.rounds && !interrupted; ++round) {
      for (std::size_t i = 0; i < of_case.size() && !interrupted; ++i) {
        Row& row = of_case[round % 2 == 0 ? i : of_case.size() - 1 - i];  // in turn
        std::string problem = measure(o, c, row);
        if (problem.empty()) continue;
        fprintf(stderr, "sluice: bench: %s\n", problem.c_str());
        return 1;
      }
    }
    for (const Row& row : of_case) {
      if (row.requests_per_s.empty()) continue;
      if (!quiet) print(row);
      rows.push_back(json_of(o, row));
    }
    if (interrupted) break;  // what was measured so far is told
  }
  int status = write_rows(o.json, rows);
  return interrupted ? 130 : status;
}

}  // namespace sluice::monitor::bench
