// A sweep in one picture: latency and accepted throughput over the rate, and the load of each link
// at the highest rate that is not saturated.
#pragma once

#include <string>
#include <vector>

#include "nocsim/picture/chart.h"
#include "nocsim/sweep.h"

namespace nocsim::picture {

// What others have published, to be drawn over it: latencies, and a throughput at saturation.
struct Published {
  std::vector<Dot> latencies;
  double accepted = 0;
};

std::string sweep_picture(const SweepPlan& plan, const std::vector<SweepRow>& rows, bool as_page,
                          const Published& published = {});

}  // namespace nocsim::picture
