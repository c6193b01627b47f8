#include <cstdio>

#include "nocsim/program/commands.h"
#include "nocsim/program/json.h"
#include "nocsim/program/options.h"
#include "nocsim/program/output.h"
#include "nocsim/zero_load.h"

namespace nocsim::program {

int zeroload_command(const Arguments& arguments) {
  MeshOptions mesh;
  Options options;
  std::string only_from, json_path;
  mesh.add_to(options);
  options.section("Results");
  options.add("from", "NODE", "pairs from this one only", [&](auto text) { only_from = text; });
  options.path("json", "an array of rows: from, to, routers, latency", json_path);
  if (!options.parse(arguments)) {
    std::printf(
        "nocsim zeroload [--OPTION=VALUE...]\n\n"
        "Sends a packet through the empty mesh for each pair of nodes, and prints the cycles from "
        "its\n"
        "creation to its last flit's arrival.\n%s",
        options.help().c_str());
    return 0;
  }
  mesh.check();
  const Config& config = mesh.config;
  const auto nodes = static_cast<Node>(config.nodes());
  if (only_from.empty() && nodes > 1024)
    throw BadOption("more than 1024 nodes: choose one with --from");
  const Node first = only_from.empty() ? 0 : node_from(only_from, config);
  const Node last = only_from.empty() ? nodes - 1 : first;

  Output output(json_path);
  Json json;
  ZeroLoad zero_load(config);
  uint64_t sum = 0, pairs = 0;
  std::printf("# H routers, each %d + %d on the link, %d for a turn, L = %d flits\n",
              config.router_stages, config.link_delay, config.turn_delay, mesh.packet_flits);
  std::printf("# from     to routers latency\n");
  json.begin_array();
  for (Node from = first; from <= last; ++from)
    for (Node to = 0; to < nodes; ++to) {
      const Cycle latency = zero_load.measure(from, to, mesh.packet_flits);
      const int routers = routers_between(config, from, to);
      std::printf("%6u %6u %7d %7llu\n", from, to, routers,
                  static_cast<unsigned long long>(latency));
      json.line().begin_object().key("from").integer(from).key("to").integer(to);
      json.key("routers")
          .integer(routers)
          .key("latency")
          .integer(static_cast<int64_t>(latency))
          .end_object();
      if (from != to) sum += latency, ++pairs;
    }
  if (pairs)
    std::printf("# mean of different nodes: %.2f\n",
                static_cast<double>(sum) / static_cast<double>(pairs));
  json.end_array();
  output.write(json.text() + "\n");
  return 0;
}

}  // namespace nocsim::program
