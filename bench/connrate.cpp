// Connections per second, one after the other: connect, send one byte, get it back, close.
// A closed connection's port rests in TIME_WAIT. So that the ports last at any rate, the server
// listens on every address and the client goes on to the next of 127.0.0.0/8 now and then.

#include "options.h"
#include "report.h"
#include "tcp.h"

namespace {

using bench::Options;
using bench::Socket;

void serve(const Socket& listener) {
  for (;;) {
    const Socket peer = bench::accept_from(listener);
    char byte = 0;
    if (peer.receive_some(&byte, 1) == 1) peer.send_all(&byte, 1);
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
    for (; now < end; now = bench::now_ns()) {
      const uint64_t n = connections_++;
      echo_close(options_.path.empty() ? bench::connect_to(options_.port, nth_address(n)) : bench::connect_to(options_));
    }
    return static_cast<double>(connections_ - first) * 1e9 / static_cast<double>(now - start);
  }

 private:
  const Options& options_;
  uint64_t connections_ = 0;
};

void run_client(const Options& options) {
  Client client(options);
  bench::await_start(options);
  client.connections_per_second(options.seconds / 10);
  const double rate = client.connections_per_second(options.seconds);
  bench::print_figures({{"connections_per_s", rate}}, options.json);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (options.server) {
    serve(bench::listen_on(options, bench::kAnyAddress));
  } else {
    run_client(options);
  }
}
