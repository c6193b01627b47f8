#include "options.h"

#include <getopt.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "tcp.h"

namespace bench {
namespace {

constexpr char kUsage[] =
    "usage: %s --server [--port=N] [--port-file=F] [--path=F] [--cpu=N] [--epoll]\n"
    "       %s --client --port=N|--path=F [--cpu=N] [--seconds=S] [--size=BYTES] [--epoll] [--wait] [--json]\n"
    "       connrate: also --steps on both sides, and --acceptors=N\n"
    "       pipes [--cpu=N] [--peer-cpu=N] [--seconds=S] [--size=BYTES] [--oneway] [--socketpair] [--wait] [--json]\n";

constexpr option kOptions[] = {
    {"server", no_argument, nullptr, 's'},
    {"client", no_argument, nullptr, 'c'},
    {"epoll", no_argument, nullptr, 'e'},
    {"json", no_argument, nullptr, 'j'},
    {"port", required_argument, nullptr, 'p'},
    {"port-file", required_argument, nullptr, 'f'},
    {"path", required_argument, nullptr, 'x'},
    {"cpu", required_argument, nullptr, 'u'},
    {"seconds", required_argument, nullptr, 't'},
    {"size", required_argument, nullptr, 'n'},
    {"oneway", no_argument, nullptr, 'o'},
    {"socketpair", no_argument, nullptr, 'y'},
    {"wait", no_argument, nullptr, 'w'},
    {"steps", no_argument, nullptr, 'z'},
    {"acceptors", required_argument, nullptr, 'a'},
    {"peer-cpu", required_argument, nullptr, 'v'},
    {"help", no_argument, nullptr, 'h'},
    {nullptr, 0, nullptr, 0},
};

[[noreturn]] void exit_with_usage(const char* program, FILE* to, int status) {
  std::fprintf(to, kUsage, program, program);
  std::exit(status);
}

double number(const char* text, const char* program) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != '\0' || value < 0) exit_with_usage(program, stderr, 2);
  return value;
}

}  // namespace

void pin_to(int cpu) {
  if (cpu < 0) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) die("sched_setaffinity");
}

void await_start(const Options& options) {
  if (!options.wait) return;
  std::puts("ready");
  std::fflush(stdout);
  char byte;
  ssize_t got;
  do got = read(STDIN_FILENO, &byte, 1);
  while (got > 0 || (got < 0 && errno == EINTR));
  if (got < 0) die("standard input");
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int key; (key = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (key) {
      case 's':
        options.server = true;
        break;
      case 'c':
        options.server = false;
        break;
      case 'e':
        options.epoll = true;
        break;
      case 'j':
        options.json = true;
        break;
      case 'p':
        options.port = static_cast<uint16_t>(number(optarg, argv[0]));
        break;
      case 'f':
        options.port_file = optarg;
        break;
      case 'x':
        options.path = optarg;
        break;
      case 'u':
        options.cpu = static_cast<int>(number(optarg, argv[0]));
        break;
      case 't':
        options.seconds = number(optarg, argv[0]);
        break;
      case 'n':
        options.size_bytes = static_cast<size_t>(number(optarg, argv[0]));
        break;
      case 'o':
        options.oneway = true;
        break;
      case 'y':
        options.socketpair = true;
        break;
      case 'w':
        options.wait = true;
        break;
      case 'z':
        options.steps = true;
        break;
      case 'a':
        options.acceptors = static_cast<unsigned>(number(optarg, argv[0]));
        break;
      case 'v':
        options.peer_cpu = static_cast<int>(number(optarg, argv[0]));
        break;
      case 'h':
        exit_with_usage(argv[0], stdout, 0);
      default:
        exit_with_usage(argv[0], stderr, 2);
    }
  }
  if (optind != argc || options.size_bytes == 0 || options.acceptors == 0) exit_with_usage(argv[0], stderr, 2);
  pin_to(options.cpu);
  return options;
}

}  // namespace bench
