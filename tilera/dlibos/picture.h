// Throughput, drawn.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sluice::tilera::dlibos {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // tiles, requests/s
};

// SVG.
std::string picture_of(const std::string& title, const std::string& x_name, const std::vector<Curve>& curves);

}  // namespace sluice::tilera::dlibos
