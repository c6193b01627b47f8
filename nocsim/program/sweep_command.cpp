#include <algorithm>
#include <cstdio>

#include "nocsim/picture/sweep_picture.h"
#include "nocsim/program/commands.h"
#include "nocsim/program/json.h"
#include "nocsim/program/options.h"
#include "nocsim/program/output.h"
#include "nocsim/sweep.h"

namespace nocsim::program {
namespace {

constexpr const char* kAbout =
    "nocsim sweep [--OPTION=VALUE...]\n"
    "\n"
    "Injects packets at one rate after another and prints for each: latency in cycles (average, "
    "median,\n"
    "p99) from a packet's creation to its last flit's arrival, flits accepted for each cycle and "
    "node, the\n"
    "busiest link. Time goes in periods of 1000 cycles or 4000 packets, whichever is longer. "
    "Warm-up: until mean\n"
    "latency and throughput stay within 5 % of the period before three times. Window: 10 periods, "
    "and on until\n"
    "its halves agree within 2 %. Then until all its packets have arrived. saturated: less than 95 "
    "% of the\n"
    "offered flits were accepted, or packets did not arrive, or the latency is ten times that at "
    "zero load.\n";

struct Wishes {
  MeshOptions mesh;
  Traffic traffic;
  std::string hotspot;
  std::vector<Rate> rates = rates_from("0.05:0.5:0.05");
  uint64_t seed = 1;
  bool from_injection = false;
  std::string json;
  std::string plot;
  picture::Published published;
};

// RATE:LATENCY,...
std::vector<picture::Dot> points_from(std::string_view text) {
  std::vector<picture::Dot> points;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string_view point = text.substr(at, end - at);
    const size_t colon = point.find(':');
    if (colon == std::string_view::npos)
      throw BadOption("--points has to be RATE:CYCLES,..., not '" + std::string(text) + "'");
    points.push_back({rate_from(point.substr(0, colon)) / 1e6,
                      number_from(point.substr(colon + 1), 0, 1'000'000,
                                  "a point's latency in tenths of a cycle") /
                          10.0});
    at = end + 1;
  }
  return points;
}

void add_options(Options& options, Wishes& w) {
  w.mesh.add_to(options);
  options.section("Traffic");
  options.add("traffic", "PATTERN",
              "uniform, transpose, bitcomp, bitrev, shuffle, tornado, neighbor, hotspot",
              [&](auto text) {
                if (!find_pattern(text, w.traffic.pattern))
                  throw BadOption("there is no traffic '" + std::string(text) + "'");
              });
  options.add("hotspot", "NODE", "a number or X,Y; default: in the middle",
              [&](auto text) { w.hotspot = text; });
  options.number("hotspot-percent", "the hotspot's share of what others send (10)",
                 w.traffic.hotspot_percent, 0, 100);
  options.add("rates", "LO:HI:STEP", "flits for each cycle and node (0.05:0.5:0.05); or R,R,...",
              [&](auto text) { w.rates = rates_from(text); });
  options.add("seed", "N", "the same seed gives the same results, on any machine (1)",
              [&](auto text) {
                w.seed = static_cast<uint64_t>(number_from(text, 0, 2147483647, "--seed"));
              });
  options.add(
      "latency", "WHICH", "packet: from creation (default); network: from injection",
      [&](auto text) {
        if (text != "packet" && text != "network")
          throw BadOption("--latency has to be packet or network, not '" + std::string(text) + "'");
        w.from_injection = text == "network";
      });
  options.section("Results");
  options.path("json", "an array of rows: rate, latency_avg, latency_p99, accepted, links, ...",
               w.json);
  options.path("plot", "a picture, .svg or .html: the curve, and link load as a heat map", w.plot);
  options.add("points", "R:L,...", "draws these as well: rates, and latencies in tenths of a cycle",
              [&](auto text) { w.published.latencies = points_from(text); });
  options.add("accepted", "R", "draws this throughput as well",
              [&](auto text) { w.published.accepted = rate_from(text) / 1e6; });
}

std::string json_of(const SweepPlan& plan, const std::vector<SweepRow>& rows) {
  Json json;
  json.begin_array();
  for (const SweepRow& row : rows) {
    json.line().begin_object();
    json.key("rate").number(row.rate / 1e6, 6);
    json.key("latency_avg").number(row.latency_avg, 3);
    json.key("latency_p50").integer(static_cast<int64_t>(row.latency_p50));
    json.key("latency_p99").integer(static_cast<int64_t>(row.latency_p99));
    json.key("latency_max").integer(static_cast<int64_t>(row.latency_max));
    json.key("offered").number(row.offered, 6);
    json.key("accepted").number(row.accepted, 6);
    json.key("saturated").boolean(row.saturated);
    json.key("converged").boolean(row.converged);
    json.key("packets").integer(static_cast<int64_t>(row.packets));
    json.key("warmup_cycles").integer(static_cast<int64_t>(row.warmup_cycles));
    json.key("window_cycles").integer(static_cast<int64_t>(row.window_cycles));
    json.key("cycles").integer(static_cast<int64_t>(row.cycles));
    json.key("links").begin_array();
    for (const LinkUse& link : row.links) {
      json.begin_object().key("from").integer(link.from);
      const Node to =
          is_link(link.port)
              ? plan.config.node_at(step_from(plan.config.place_of(link.from), link.port))
              : link.from;
      json.key("to").integer(to).key("port").string(std::string(1, name_of(link.port)));
      json.key("use").number(link.flits_per_cycle, 4).end_object();
    }
    json.end_array().end_object();
  }
  json.end_array();
  return json.text() + "\n";
}

void print(const SweepRow& row) {
  double busiest = 0;
  for (const LinkUse& link : row.links)
    if (is_link(link.port)) busiest = std::max(busiest, link.flits_per_cycle);
  std::printf("%8.4f %10.2f %8llu %8llu %10.4f %8.3f%s\n", row.rate / 1e6, row.latency_avg,
              static_cast<unsigned long long>(row.latency_p50),
              static_cast<unsigned long long>(row.latency_p99), row.accepted, busiest,
              row.saturated   ? "  saturated"
              : row.converged ? ""
                              : "  not converged");
  std::fflush(stdout);
}

}  // namespace

int sweep_command(const Arguments& arguments) {
  Wishes w;
  Options options;
  add_options(options, w);
  if (!options.parse(arguments)) {
    std::printf("%s%s", kAbout, options.help().c_str());
    return 0;
  }
  w.mesh.check();
  const Config& config = w.mesh.config;
  w.traffic.packet_flits = w.mesh.packet_flits;
  w.traffic.hotspot = w.hotspot.empty() ? config.node_at({config.width / 2, config.height / 2})
                                        : node_from(w.hotspot, config);
  if (const std::string complaint = complaint_about(w.traffic, config); !complaint.empty())
    throw BadOption(complaint);

  Output json(w.json), plot(w.plot);
  SweepPlan plan;
  plan.config = config;
  plan.traffic = w.traffic;
  plan.rates = w.rates;
  plan.seed = w.seed;
  plan.latency_from_injection = w.from_injection;
  std::printf(
      "# %dx%d, %s, %d-flit packets, %d VC x %d, %d stages, link %d; zero load %.2f cycles\n",
      config.width, config.height, std::string(name_of(w.traffic.pattern)).c_str(),
      w.traffic.packet_flits, config.vcs, config.depth, config.router_stages, config.link_delay,
      zero_loads(config, w.traffic).mean());
  std::printf("#   rate    latency      p50      p99   accepted  busiest\n");
  const std::vector<SweepRow> rows = sweep(plan, print);
  if (json.wanted()) json.write(json_of(plan, rows));
  if (plot.wanted()) plot.write(picture::sweep_picture(plan, rows, plot.is_page(), w.published));
  return 0;
}

}  // namespace nocsim::program
