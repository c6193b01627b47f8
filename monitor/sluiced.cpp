// sluiced: the coordinator daemon.
#include <fcntl.h>
#include <signal.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <CLI/CLI.hpp>

#include "monitor/coordinator.h"
#include "monitor/policy_file.h"
#include "monitor/run_directory.h"

namespace sluice::monitor {
namespace {

constexpr int kBadUsage = 2;

int check_policy(const std::string& path) {
  PolicyFile file;
  if (std::string problem = read_policy(path, file); !problem.empty()) return fprintf(stderr, "%s\n", problem.c_str()), 1;
  printf("%s: %u rules, %u limits\n", path.c_str(), file.table->rule_count, file.table->limit_count);
  return 0;
}

shm::RequestQueue queue_named(const std::string& name) {
  if (name == "shared") return shm::kSharedQueue;
  if (name == "auto") return shm::kEitherQueue;
  return name == "noc" ? shm::kNocQueue : shm::kDividedQueue;
}

// Returns the exit status, or -1 to go on.
int parse(int argc, char** argv, Options& o) {
  CLI::App app{
      "The Sluice coordinator: moves TCP connections between programs of this host that "
      "run under `sluice run` into shared memory."};
  std::string queues = "divided", poll = "adaptive", protect = "regions", grants = "yes";
  app.add_option("--dir", o.directory, "run directory")->default_str(standard_directory());
  app.add_option("--queues", queues, "request queues: one per client, one per user, each client's as it pays, or the packets of a network-on-chip")
      ->check(CLI::IsMember({"divided", "shared", "auto", "noc"}))
      ->capture_default_str();
  app.add_option("--poll", poll, "sleep when idle, or poll without end on a core of its own")
      ->check(CLI::IsMember({"adaptive", "busy"}))
      ->capture_default_str();
  app.add_option("--cpu", o.cpu, "CPU to stay on")->check(CLI::Range(0, CPU_SETSIZE - 1));
  app.add_option("--protect", protect,
                 "regions: nobody can write what another wrote; keys: nor can a program, by mistake, what the library "
                 "wrote for it; keys-strict: and no code in it can undo that; none: only to measure what protection costs")
      ->check(CLI::IsMember({"none", "regions", shm::kKeys, shm::kKeysStrict}))
      ->capture_default_str();
  app.add_option("--grants", grants,
                 "yes: who connects again to a listener need not ask again; no: only to measure what that saves")
      ->check(CLI::IsMember({"yes", "no"}))
      ->capture_default_str();
  std::string checked;
  app.add_option("--policy", o.policy, "a file that says who may connect where, and how much of it, or none; read again at SIGHUP")->default_str(o.policy);
  app.add_option("--check-policy", checked, "only say whether a policy file is right");
  app.add_flag("--foreground", o.foreground, "stay in the foreground, log to stderr");
  app.add_flag("--linger", o.linger, "leave one second after the last client");
  app.set_version_flag("--version", "sluiced " SLUICE_VERSION " (protocol " +
                                        std::to_string(shm::kProtocolVersion) + ")");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    fprintf(stderr, "sluiced: %s\n", e.what());
    return kBadUsage;
  }
  if (!checked.empty()) return check_policy(checked);
  o.policy_named = app.count("--policy") != 0;
  o.policy = o.policy == "none" ? "" : absolute_directory(o.policy);
  o.directory = absolute_directory(o.directory.empty() ? standard_directory() : o.directory);
  o.queues = queue_named(queues);
  o.busy_poll = poll == "busy";
  o.grants = grants == "yes";
  o.protect = protect == "none" ? shm::Protect::kNone : shm::Protect::kRegions;
  o.keys = protect == shm::kKeysStrict ? shm::Keys::kStrict : protect == shm::kKeys ? shm::Keys::kKeys : shm::Keys::kNone;
  return -1;
}

// Goes into the background. The parent stays until the child has said that it is ready, and
// ends with the child's fate as its status. Returns the pipe to say it on.
Descriptor daemonise() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) exit(1);
  Descriptor ready_in(ends[0]), ready_out(ends[1]);
  pid_t child = fork();
  if (child < 0) exit(1);
  if (child > 0) {
    ready_out.close();
    char byte;
    bool is_ready = read(ready_in.get(), &byte, 1) == 1;
    _exit(is_ready ? 0 : 1);
  }
  setsid();
  return ready_out;
}

void leave_terminal(Descriptor ready) {
  if (chdir("/") != 0) return;
  Descriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd : {0, 1, 2}) dup2(null.get(), fd);
  if (write(ready.get(), "r", 1) != 1) return;
}

void log_to(const Options& o) {
  std::shared_ptr<spdlog::logger> logger;
  if (o.foreground)
    logger = spdlog::stderr_color_st("sluiced");
  else
    logger = spdlog::basic_logger_st("sluiced", o.directory + "/log", true);
  logger->set_pattern("%Y-%m-%d %H:%M:%S %n %l: %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

int complain(const std::string& what) {
  fprintf(stderr, "sluiced: %s\n", what.c_str());
  return 1;
}

// Those of the processor's that the kernel gives out.
bool has_keys() {
  int key = pkey_alloc(0, 0);
  return key >= 0 && pkey_free(key) == 0;
}

int run(Options o) {
  if (std::string problem = create_directory(o.directory); !problem.empty())
    return complain(problem);
  Descriptor lock = lock_directory(o.directory);
  if (!lock) return complain(o.directory + ": another coordinator runs here");
  Descriptor ready;
  if (!o.foreground) ready = daemonise();
  umask(077);  // what others are to reach is opened to them by name
  log_to(o);
  if (o.keys != shm::Keys::kNone && !has_keys()) {
    spdlog::warn("--protect={}: this machine has no protection keys ({}); going on with --protect=regions", o.protect_name(), strerror(errno));
    o.keys = shm::Keys::kNone;
  }
  if (std::string problem = mark_keys(o.directory, o.keys != shm::Keys::kNone ? o.protect_name() : ""); !problem.empty()) return complain(problem);
  Coordinator coordinator(o);
  if (std::string problem = coordinator.start(); !problem.empty()) return complain(problem);
  if (!o.foreground) leave_terminal(std::move(ready));
  spdlog::info("{} in {}", SLUICE_VERSION, o.directory);
  coordinator.run();
  (void)mark_keys(o.directory, "");
  spdlog::info("stopped");
  return 0;
}

}  // namespace
}  // namespace sluice::monitor

int main(int argc, char** argv) {
  using namespace sluice::monitor;
  Options options;
  int status = parse(argc, argv, options);
  if (status >= 0) return status;
  try {
    return run(options);
  } catch (const std::exception& e) {
    return complain(e.what());
  }
}
