// nocsim: measures and draws meshes on the command line.
#include <cstdio>
#include <exception>
#include <string>

#include "nocsim/program/commands.h"
#include "nocsim/program/options.h"
#include "nocsim/program/output.h"

namespace nocsim::program {
namespace {

constexpr Command kCommands[] = {
    {"sweep", "latency, throughput and link use over injection rates", sweep_command},
    {"zeroload", "the latency of every pair when nothing is in the way", zeroload_command},
    {"request", "one request from a tile to another and back, word by word", request_command},
    {"bench", "how fast this program simulates", bench_command},
    {"profiles", "the profiles' constants and where they come from", profiles_command},
};

void print_help() {
  std::printf("nocsim simulates a 2-D mesh network-on-chip, cycle by cycle.\n\n");
  for (const Command& command : kCommands)
    std::printf("  nocsim %-10s %s\n", command.name, command.meaning);
  std::printf(
      "\nnocsim COMMAND --help says more. Status: 0; 1 if a file cannot be written or a run fails; "
      "2 for bad options.\n");
}

int run(const std::string& name, const Arguments& arguments) {
  for (const Command& command : kCommands)
    if (name == command.name) return command.run(arguments);
  throw BadOption("there is no command '" + name + "'; nocsim --help lists them");
}

}  // namespace

}  // namespace nocsim::program

int main(int argc, char** argv) {
  using namespace nocsim::program;
  const std::string name = argc > 1 ? argv[1] : "";
  const Arguments arguments(argv + (argc > 2 ? 2 : argc), argv + argc);
  if (name == "--help" || name == "-h") return print_help(), 0;
  const std::string said_by = "nocsim" + (name.empty() || name[0] == '-' ? "" : " " + name);
  try {
    if (name.empty()) throw BadOption("a command is missing; nocsim --help lists them");
    return run(name, arguments);
  } catch (const BadOption& bad) {
    std::fprintf(stderr, "%s: %s\n", said_by.c_str(), bad.what());
    return 2;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s: %s\n", said_by.c_str(), failure.what());
    return 1;
  }
}
