#include "report.h"

#include <time.h>

#include <algorithm>
#include <cstdio>

namespace bench {

uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

double quantile(std::vector<uint32_t>& samples, double fraction) {
  if (samples.empty()) return 0;
  const size_t rank = static_cast<size_t>(fraction * static_cast<double>(samples.size() - 1));
  const auto nth = samples.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(samples.begin(), nth, samples.end());
  return *nth;
}

void print_figures(const std::vector<Figure>& figures, bool json) {
  const char* separator = json ? "{" : "";
  for (const Figure& figure : figures) {
    std::printf(json ? "%s\"%s\": %.9g" : "%s%s %.3f", separator, figure.name.c_str(),
                figure.value);
    separator = json ? ", " : "  ";
  }
  std::puts(json ? "}" : "");
}

}  // namespace bench
