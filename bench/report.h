// Time, quantiles and the one line that a client prints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

uint64_t now_ns();

struct Figure {
  std::string name;  // with its unit
  double value;
};

// The value below which `fraction` of the samples lie. Reorders the samples.
double quantile(std::vector<uint32_t>& samples, double fraction);

void print_figures(const std::vector<Figure>& figures, bool json);

}  // namespace bench
