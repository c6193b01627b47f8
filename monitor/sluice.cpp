// sluice: runs programs under the shim, shows what the coordinator knows, and measures it.
#include <stdio.h>
#include <string.h>

#include <CLI/CLI.hpp>

#include "monitor/audit.h"
#include "monitor/bench/bench_command.h"
#include "monitor/run_command.h"
#include "monitor/run_directory.h"
#include "monitor/show_command.h"
#include "shm/protocol.h"

namespace sluice::monitor {
namespace {

constexpr int kBadUsage = 2;

class RunFormatter : public CLI::Formatter {
  std::string make_usage(const CLI::App*, std::string) const override {
    return "Usage: sluice run [OPTIONS] [--] COMMAND [ARGS...]\n\n"
           "Starts a coordinator if none runs; it leaves after its last client. The exit status\n"
           "is COMMAND's; 127 if it is not found, 126 if it cannot be executed.\n";
  }
};

// CLI11 would take options of the command for its own: the command is split off before.
// Returns how many of the arguments are ours.
int own_arguments(int argc, char** argv, std::vector<std::string>& command) {
  if (argc < 2 || strcmp(argv[1], "run") != 0) return argc;
  int i = 2;
  for (; i < argc && argv[i][0] == '-'; ++i) {
    if (strcmp(argv[i], "--") == 0) break;
    for (const char* with_value : {"--dir", "--queues", "--poll", "--protect"})
      if (strcmp(argv[i], with_value) == 0 && i + 1 < argc) ++i;
  }
  i = std::min(i, argc);
  bool has_dashes = i < argc && strcmp(argv[i], "--") == 0;
  command.assign(argv + i + has_dashes, argv + argc);
  return i;
}

CLI::App* add_run(CLI::App& app, RunOptions& o) {
  CLI::App* run = app.add_subcommand("run",
                                     "run COMMAND with its TCP connections to other such "
                                     "commands on this host in shared memory");
  run->formatter(std::make_shared<RunFormatter>());
  run->add_option("--queues", o.queues, "for a new coordinator: divided or shared request queues, auto, or noc")
      ->check(CLI::IsMember({"divided", "shared", "auto", "noc"}));
  run->add_option("--poll", o.poll, "for a new coordinator: adaptive or busy polling")
      ->check(CLI::IsMember({"adaptive", "busy"}));
  run->add_option("--protect", o.protect, "for a new coordinator: none, regions, keys or keys-strict")
      ->check(CLI::IsMember({"none", "regions", shm::kKeys, shm::kKeysStrict}));
  run->add_flag("--require", o.require,
                "fail with status 125 instead of running COMMAND on the kernel");
  return run;
}

CLI::App* add_status(CLI::App& app, ShowOptions& o) {
  CLI::App* status = app.add_subcommand("status", "clients, connections, requests, memory");
  status->add_flag("--json", o.json, "machine-readable");
  return status;
}

CLI::App* add_ss(CLI::App& app, ShowOptions& o) {
  CLI::App* ss = app.add_subcommand("ss", "one line per accelerated socket, like ss(8)");
  ss->add_flag("--json", o.json, "machine-readable");
  ss->add_flag("-l,--listening", o.listening, "listeners instead of connections");
  ss->add_flag("-a,--all", o.all, "connections and listeners");
  return ss;
}

// Inside `sluice run`: the coordinator of the surrounding one.
std::string inherited_directory() {
  const char* directory = getenv("SLUICE_DIR");
  return directory != nullptr && *directory != 0 ? directory : standard_directory();
}

int complain(const std::string& what) {
  fprintf(stderr, "sluice: %s\n", what.c_str());
  return kBadUsage;
}

int main_of_sluice(int argc, char** argv) {
  CLI::App app{"Moves TCP connections between programs of this host into shared memory."};
  std::string directory;
  RunOptions run_options;
  ShowOptions show;
  AuditOptions audit_options;
  CLI::App* run = add_run(app, run_options);
  CLI::App* status = add_status(app, show);
  CLI::App* ss = add_ss(app, show);
  CLI::App* audit_command = app.add_subcommand("audit", "whether any process can write what is another's, seen in /proc");
  audit_command->add_flag("--json", audit_options.json, "machine-readable");
  CLI::App* stop = app.add_subcommand("stop", "stop the coordinator; connections go on");
  for (CLI::App* command : {run, status, ss, audit_command, stop})
    command->add_option("--dir", directory, "run directory of the coordinator")
        ->default_str("$SLUICE_DIR, else " + standard_directory());
  bench::BenchCommand bench(app);
  app.set_version_flag("--version", "sluice " SLUICE_VERSION " (protocol " +
                                        std::to_string(shm::kProtocolVersion) + ")");
  try {
    app.parse(own_arguments(argc, argv, run_options.command), argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return complain(e.what());
  }
  if (directory.empty()) directory = inherited_directory();
  directory = absolute_directory(directory);
  run_options.directory = show.directory = audit_options.directory = directory;
  if (*status) return show_status(show);
  if (*ss) return show_sockets(show);
  if (*audit_command) return audit(audit_options);
  if (*stop) return stop_coordinator(show);
  if (bench.is_wanted()) return bench.run();
  if (!*run) return complain("no command; see sluice --help");
  if (run_options.command.empty()) return complain("run: no COMMAND; see sluice run --help");
  return run_command(run_options);
}

}  // namespace
}  // namespace sluice::monitor

int main(int argc, char** argv) { return sluice::monitor::main_of_sluice(argc, argv); }
