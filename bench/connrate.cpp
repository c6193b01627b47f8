// Connections per second, one after the other: connect, send one byte, get it back, close. With --steps
// the server answers when it accepted and when it had the byte, so that the client can tell the steps apart.
// A closed connection's port rests in TIME_WAIT. So that the ports last at any rate, the server
// listens on every address and the client goes on to the next of 127.0.0.0/8 now and then.

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <vector>

#include "options.h"
#include "report.h"
#include "tcp.h"

namespace {

using bench::Options;
using bench::Socket;

// By the server's clock, which is the client's.
struct Times {
  uint64_t accepted_ns, received_ns;
};

void serve(const Socket& listener) {
  for (;;) {
    const Socket peer = bench::accept_from(listener);
    char byte = 0;
    if (peer.receive_some(&byte, 1) == 1) peer.send_all(&byte, 1);
  }
}

void serve_with_times(const Socket& listener) {
  for (;;) {
    const Socket peer = bench::accept_from(listener);
    Times times{bench::now_ns(), 0};
    char byte = 0;
    if (peer.receive_some(&byte, 1) != 1) continue;
    times.received_ns = bench::now_ns();
    peer.send_all(&times, sizeof times);
  }
}

// So many processes accept, of which this is one. The others end with it.
void fork_acceptors(unsigned acceptors) {
  const pid_t parent = getpid();
  for (unsigned i = 1; i < acceptors; ++i) {
    const pid_t child = fork();
    if (child < 0) bench::die("fork");
    if (child > 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    return;
  }
}

constexpr uint64_t kConnectionsPerAddress = 10'000;
constexpr uint32_t kAddresses = 64;

// The address of the server to use for the n-th connection.
uint32_t nth_address(uint64_t n) {
  return bench::kLoopback + static_cast<uint32_t>(n / kConnectionsPerAddress) % kAddresses;
}

void echo_close(const Socket& server) {
  char byte = 'c';
  server.send_all(&byte, 1);
  server.receive_all(&byte, 1);
}

class Client {
 public:
  explicit Client(const Options& options) : options_(options) {}

  double connections_per_second(double seconds) {
    const uint64_t first = connections_;
    const uint64_t start = bench::now_ns();
    const uint64_t end = start + static_cast<uint64_t>(seconds * 1e9);
    uint64_t now = start;
    for (; now < end; now = bench::now_ns()) echo_close(connect());
    return static_cast<double>(connections_ - first) * 1e9 / static_cast<double>(now - start);
  }

  // Each step begins where the one before ended: connect() called, connect() returned, accept() returned if
  // that was later, the server had the byte, the client had the answer.
  struct Steps {
    std::vector<uint32_t> connect, accept, first_byte, reply, total;
  };

  Steps time_steps(double seconds) {
    Steps steps;
    const uint64_t end = bench::now_ns() + static_cast<uint64_t>(seconds * 1e9);
    for (uint64_t begin; (begin = bench::now_ns()) < end;) {
      const Socket server = connect();
      const uint64_t connected = bench::now_ns();
      const char byte = 'c';
      Times times;
      server.send_all(&byte, 1);
      server.receive_all(&times, sizeof times);
      const uint64_t answered = bench::now_ns();
      const uint64_t accepted = std::max(connected, times.accepted_ns);
      add(steps.connect, begin, connected);
      add(steps.accept, connected, accepted);
      add(steps.first_byte, accepted, times.received_ns);
      add(steps.reply, times.received_ns, answered);
      add(steps.total, begin, answered);
    }
    return steps;
  }

 private:
  Socket connect() {
    const uint64_t n = connections_++;
    return options_.path.empty() ? bench::connect_to(options_.port, nth_address(n)) : bench::connect_to(options_);
  }

  static void add(std::vector<uint32_t>& samples_ns, uint64_t from, uint64_t to) {
    const uint64_t longest = std::numeric_limits<uint32_t>::max();
    samples_ns.push_back(static_cast<uint32_t>(to > from ? std::min(to - from, longest) : 0));
  }

  const Options& options_;
  uint64_t connections_ = 0;
};

void report_steps(Client::Steps steps, bool json) {
  bench::print_figures({{"set_up_us", bench::quantile(steps.total, 0.50) / 1e3},
                        {"set_up_p99_us", bench::quantile(steps.total, 0.99) / 1e3},
                        {"connect_us", bench::quantile(steps.connect, 0.50) / 1e3},
                        {"accept_us", bench::quantile(steps.accept, 0.50) / 1e3},
                        {"first_byte_us", bench::quantile(steps.first_byte, 0.50) / 1e3},
                        {"reply_us", bench::quantile(steps.reply, 0.50) / 1e3}},
                       json);
}

void run_client(const Options& options) {
  Client client(options);
  bench::await_start(options);
  if (options.steps) {
    client.time_steps(options.seconds / 10);
    report_steps(client.time_steps(options.seconds), options.json);
    return;
  }
  client.connections_per_second(options.seconds / 10);
  const double rate = client.connections_per_second(options.seconds);
  bench::print_figures({{"connections_per_s", rate}}, options.json);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (!options.server) {
    run_client(options);
    return 0;
  }
  const Socket listener = bench::listen_on(options, bench::kAnyAddress);
  fork_acceptors(options.acceptors);
  options.steps ? serve_with_times(listener) : serve(listener);
}
