#include "tilera/dlibos/picture.h"

#include <algorithm>

#include "nocsim/picture/chart.h"

namespace sluice::tilera::dlibos {

std::string picture_of(const std::string& title, const std::string& x_name, const std::vector<Curve>& curves) {
  static constexpr const char* kColors[] = {"#2a6fbb", "#d9822b", "#3a8f5c", "#b03a5b", "#7a5bb5", "#5f6b76"};
  nocsim::picture::Chart chart;
  chart.width = 640;
  chart.height = 400;
  chart.title = title;
  chart.x_name = x_name;
  chart.y_name = "million requests/s";
  chart.x_most = chart.y_most = 0.1;
  std::size_t color = 0;
  for (const Curve& curve : curves) {
    nocsim::picture::Series series{curve.name, kColors[color++ % std::size(kColors)], {}, true, color > std::size(kColors)};
    for (const auto& [x, y] : curve.points) {
      series.dots.push_back({x, y / 1e6});
      chart.x_most = std::max(chart.x_most, x * 1.05);
      chart.y_most = std::max(chart.y_most, y / 1e6 * 1.4);  // room for the names
    }
    std::sort(series.dots.begin(), series.dots.end(), [](const auto& a, const auto& b) { return a.x < b.x; });
    chart.series.push_back(std::move(series));
  }
  nocsim::picture::Svg svg(chart.width, chart.height);
  draw(svg, chart);
  return svg.finish(false, title);
}

}  // namespace sluice::tilera::dlibos
