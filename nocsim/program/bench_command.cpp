// How fast the simulator is. The clock of the process, not of the wall: others may run meanwhile.
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "nocsim/program/commands.h"
#include "nocsim/program/options.h"
#include "nocsim/sweep.h"

namespace nocsim::program {
namespace {

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

int bench_command(const Arguments& arguments) {
  MeshOptions mesh;
  Options options;
  Rate rate = 380'000;
  int rounds = 5, cycles = 50'000;
  mesh.add_to(options);
  options.section("The run");
  options.add("rate", "R", "flits for each cycle and node (0.38, near saturation)",
              [&](auto text) { rate = rate_from(text); });
  options.number("cycles", "cycles of a round (50000)", cycles, 1000, 100'000'000);
  options.number("rounds", "rounds (5); the best and the median count", rounds, 1, 1000);
  if (!options.parse(arguments)) {
    std::printf(
        "nocsim bench [--OPTION=VALUE...]\n\nPrints flit-hops and cycles for each second of CPU "
        "time, under uniform "
        "traffic.\n%s",
        options.help().c_str());
    return 0;
  }
  mesh.check();
  Traffic traffic;
  traffic.packet_flits = mesh.packet_flits;
  if (const std::string complaint = complaint_about(traffic, mesh.config); !complaint.empty())
    throw BadOption(complaint);
  std::vector<double> speeds;
  for (int round = 0; round < rounds; ++round) {
    SweepPlan plan;
    plan.config = mesh.config;
    plan.traffic = traffic;
    // A window of the wished length, whatever the figures do.
    plan.least_periods = plan.most_periods =
        static_cast<uint32_t>(std::max(2, cycles / 1000 / 2 * 2));
    plan.most_warmup_periods = 1;
    plan.most_drain_periods = 0;
    const double begun = cpu_seconds();
    const SweepRow row = measure(plan, rate);
    const double seconds = cpu_seconds() - begun;
    speeds.push_back(static_cast<double>(row.hops) / seconds);
    std::printf("round %d: %.2f million flit-hops/s, %.0f cycles/s, accepted %.4f\n", round + 1,
                speeds.back() / 1e6, static_cast<double>(row.cycles) / seconds, row.accepted);
  }
  std::sort(speeds.begin(), speeds.end());
  std::printf("best %.2f, median %.2f million flit-hops/s\n", speeds.back() / 1e6,
              speeds[speeds.size() / 2] / 1e6);
  return 0;
}

}  // namespace nocsim::program
