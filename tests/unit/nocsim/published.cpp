// The published readings of BookSim (Jiang et al., ISPASS'13), within 5 %. The windows are fixed
// and the seeds too, so the results are the same in every run.
#include <catch2/catch.hpp>

#include "nocsim/sweep.h"

using namespace nocsim;

namespace {

SweepPlan plan_of(int side, int vcs, int stages, int flits) {
  SweepPlan plan;
  plan.config.width = plan.config.height = side;
  plan.config.vcs = vcs;
  plan.config.router_stages = stages;
  plan.traffic.packet_flits = flits;
  return plan;
}

// What is accepted when more is offered than the mesh can take.
double accepted_at_saturation(SweepPlan plan) {
  plan.most_warmup_periods = 8;
  plan.least_periods = plan.most_periods = 16;
  plan.most_drain_periods = 0;
  return measure(plan, 600'000).accepted;
}

bool within_5_percent(double measured, double published) {
  return measured >= published * 0.95 && measured <= published * 1.05;
}

}  // namespace

TEST_CASE("the latency curve of a 3x3 mesh with 1 VC is the published one within 5 %") {
  SweepPlan plan = plan_of(3, 1, 2, 4);
  plan.latency_from_injection = true;
  plan.period = 10'000;
  const std::pair<Rate, double> published[] = {
      {200'000, 13.5}, {400'000, 17.5}, {520'000, 26}, {560'000, 33}, {600'000, 45}};
  for (auto [rate, latency] : published) {
    const SweepRow row = measure(plan, rate);
    CAPTURE(rate, row.latency_avg, latency);
    CHECK(within_5_percent(row.latency_avg, latency));
    CHECK(row.accepted == Approx(rate / 1e6).epsilon(0.02));
  }
}

TEST_CASE("a 3x3 mesh with 1 VC accepts 0.60 flits at saturation, within 5 %") {
  const double accepted = accepted_at_saturation([] {
    SweepPlan plan = plan_of(3, 1, 2, 4);
    plan.period = 4000;
    return plan;
  }());
  CAPTURE(accepted);
  CHECK(within_5_percent(accepted, 0.60));
}

TEST_CASE(
    "an 8x8 mesh with 2 VCs accepts 0.38 to 0.39 flits at saturation with 3 stages, 0.37 to 0.40 "
    "with 2") {
  const double three = accepted_at_saturation(plan_of(8, 2, 3, 4));
  CAPTURE(three);
  CHECK(three >= 0.38 * 0.95);
  CHECK(three <= 0.39 * 1.05);
  const double two = accepted_at_saturation(plan_of(8, 2, 2, 4));
  CAPTURE(two);
  CHECK(two >= 0.37 * 0.95);
  CHECK(two <= 0.40 * 1.05);
}

TEST_CASE(
    "with packets of one flit, 1, 2 and 4 VCs accept 0.19, 0.39 and 0.42 at saturation, within 5 "
    "%") {
  const std::pair<int, double> published[] = {{1, 0.19}, {2, 0.39}, {4, 0.42}};
  for (auto [vcs, expected] : published) {
    const double accepted = accepted_at_saturation(plan_of(8, vcs, 3, 1));
    CAPTURE(vcs, accepted, expected);
    CHECK(within_5_percent(accepted, expected));
  }
}

TEST_CASE("no mesh accepts more uniform traffic than its middle links can carry") {
  for (auto [width, height] : {std::pair{8, 8}, {6, 6}}) {
    SweepPlan plan = plan_of(8, 8, 1, 1);
    plan.config.width = width;
    plan.config.height = height;
    const double accepted = accepted_at_saturation(plan);
    // 4/k, and a little more since nobody sends to itself.
    const double bound = 4.0 / width * (width * height - 1) / (width * height);
    CAPTURE(width, accepted, bound);
    CHECK(accepted <= bound);
    CHECK(accepted >= bound * 0.7);
  }
}
