#include "nocsim/picture/sweep_picture.h"

#include <algorithm>

#include "nocsim/picture/heat_map.h"

namespace nocsim::picture {
namespace {

constexpr const char* kBlue = "#2a6fbb";
constexpr const char* kOrange = "#d9822b";
constexpr const char* kGreen = "#3a8f5c";

const SweepRow& row_of_interest(const std::vector<SweepRow>& rows) {
  const SweepRow* best = &rows.front();
  for (const SweepRow& row : rows)
    if (!row.saturated) best = &row;
  return *best;
}

Chart latency_chart(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                    const Published& published) {
  Chart chart;
  chart.title = "Latency";
  chart.x_name = "offered, flits/cycle/node";
  chart.y_name = "cycles";
  Series mean{
      plan.latency_from_injection ? "mean, from injection" : "mean, from creation", kBlue, {}};
  Series slow{"p99", kOrange, {}, true, true};
  chart.y_most = 4 * zero_loads(plan.config, plan.traffic).mean();
  for (const SweepRow& row : rows) {
    mean.dots.push_back({row.rate / 1e6, row.latency_avg});
    slow.dots.push_back({row.rate / 1e6, static_cast<double>(row.latency_p99)});
  }
  chart.x_most = rows.back().rate ? rows.back().rate / 1e6 : 1;
  chart.series = {mean, slow};
  if (!published.latencies.empty())
    chart.series.push_back({"published", kGreen, published.latencies, false});
  for (const Dot& dot : published.latencies) chart.y_most = std::max(chart.y_most, dot.y * 1.15);
  return chart;
}

Chart throughput_chart(const std::vector<SweepRow>& rows, const Published& published) {
  Chart chart;
  chart.title = "Throughput";
  chart.x_name = "offered, flits/cycle/node";
  chart.y_name = "accepted";
  Series accepted{"accepted", kBlue, {}};
  chart.y_most = 0.01;
  for (const SweepRow& row : rows) {
    accepted.dots.push_back({row.rate / 1e6, row.accepted});
    chart.y_most = std::max(chart.y_most, row.accepted * 1.25);
  }
  chart.x_most = rows.back().rate ? rows.back().rate / 1e6 : 1;
  chart.series = {accepted};
  if (published.accepted > 0)
    chart.series.push_back({"published at saturation",
                            kGreen,
                            {{0, published.accepted}, {chart.x_most, published.accepted}},
                            true,
                            true});
  return chart;
}

}  // namespace

std::string sweep_picture(const SweepPlan& plan, const std::vector<SweepRow>& rows, bool as_page,
                          const Published& published) {
  const SweepRow& row = row_of_interest(rows);
  const std::string title =
      std::to_string(plan.config.width) + "x" + std::to_string(plan.config.height) + " mesh, " +
      std::string(name_of(plan.traffic.pattern)) + " traffic, " +
      std::to_string(plan.traffic.packet_flits) + "-flit packets, " +
      std::to_string(plan.config.vcs) + " VC x " + std::to_string(plan.config.depth) + ", " +
      std::to_string(plan.config.router_stages) + "-stage routers";
  Svg svg(960, 690);
  svg.text(24, 28, "title", title);
  svg.begin_group("translate(12 44)");
  draw(svg, latency_chart(plan, rows, published));
  svg.end_group().begin_group("translate(12 366)");
  draw(svg, throughput_chart(rows, published));
  svg.end_group().begin_group("translate(500 96)");
  svg.text(0, -34, "title", "Link load at " + number(row.rate / 1e6) + " flits/cycle/node");
  draw_heat_map(svg, plan.config, row.links, 430);
  svg.end_group();
  return svg.finish(as_page, title);
}

}  // namespace nocsim::picture
