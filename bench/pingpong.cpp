// Round trips of --size bytes over one connection: the client sends a message, the server sends it
// back once it has all of it (so that neither waits for the other to read, however long it is).
// With --epoll both sides wait in epoll_wait() with non-blocking sockets, as nginx and redis
// do; otherwise they block in recv(). A round trip includes one read of the clock.

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <vector>

#include "options.h"
#include "report.h"
#include "tcp.h"

namespace {

using bench::Options;
using bench::Socket;

// A level-triggered epoll set of sockets that wait for input.
class EpollSet {
 public:
  EpollSet() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_.fd() < 0) bench::die("epoll_create1");
  }

  void add(const Socket& socket) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = socket.fd();
    if (epoll_ctl(epoll_.fd(), EPOLL_CTL_ADD, socket.fd(), &event) != 0) bench::die("epoll_ctl");
  }

  template <typename Ready>
  void wait(Ready ready) const {
    epoll_event events[64];
    const int count = epoll_wait(epoll_.fd(), events, 64, -1);
    if (count < 0 && errno != EINTR) bench::die("epoll_wait");
    for (int i = 0; i < count; ++i) ready(events[i].data.fd);
  }

 private:
  Socket epoll_;
};

void serve_blocking(const Socket& listener, size_t size_bytes) {
  std::vector<char> message(size_bytes);
  for (;;) {
    const Socket peer = bench::accept_from(listener);
    while (peer.receive_message(message.data(), message.size())) peer.send_all(message.data(), message.size());
  }
}

// A client of the server that waits with epoll, and what has come of its message.
struct Peer {
  Socket socket;
  std::vector<char> message;
  size_t received = 0;
};

// False once the peer has closed.
bool echo_ready_bytes(Peer& peer) {
  size_t received = 0;
  char* next = peer.message.data() + peer.received;
  if (!peer.socket.try_receive_some(next, peer.message.size() - peer.received, &received)) return true;
  if (received == 0) return false;
  peer.received += received;
  if (peer.received < peer.message.size()) return true;
  peer.socket.send_all(peer.message.data(), peer.message.size());
  peer.received = 0;
  return true;
}

void serve_with_epoll(const Socket& listener, size_t size_bytes) {
  std::map<int, Peer> peers;
  EpollSet set;
  set.add(listener);
  for (;;) {
    set.wait([&](int fd) {
      if (fd == listener.fd()) {
        Socket peer = bench::accept_from(listener);
        peer.set_non_blocking();
        set.add(peer);
        const int peer_fd = peer.fd();
        peers.emplace(peer_fd, Peer{std::move(peer), std::vector<char>(size_bytes)});
      } else if (!echo_ready_bytes(peers.at(fd))) {
        peers.erase(fd);
      }
    });
  }
}

void receive_with_epoll(const EpollSet& set, const Socket& server, char* bytes, size_t size) {
  while (size > 0) {
    set.wait([](int) {});
    size_t received = 0;
    if (!server.try_receive_some(bytes, size, &received)) continue;
    if (received == 0) bench::die("the server closed");
    bytes += received;
    size -= received;
  }
}

// Calls `round_trip` for `seconds` and returns what each took.
template <typename RoundTrip>
std::vector<uint32_t> time_round_trips(double seconds, RoundTrip round_trip) {
  std::vector<uint32_t> samples_ns;
  samples_ns.reserve(static_cast<size_t>(seconds * 5e6) + 1);
  uint64_t before = bench::now_ns();
  const uint64_t end = before + static_cast<uint64_t>(seconds * 1e9);
  while (before < end) {
    round_trip();
    const uint64_t after = bench::now_ns();
    const uint64_t longest = std::numeric_limits<uint32_t>::max();
    samples_ns.push_back(static_cast<uint32_t>(std::min(after - before, longest)));
    before = after;
  }
  return samples_ns;
}

void run_client(const Options& options) {
  const Socket server = bench::connect_to(options);
  std::vector<char> message(options.size_bytes, 'm');
  EpollSet set;
  if (options.epoll) {
    server.set_non_blocking();
    set.add(server);
  }
  const auto round_trip = [&] {
    server.send_all(message.data(), message.size());
    if (options.epoll) {
      receive_with_epoll(set, server, message.data(), message.size());
    } else {
      server.receive_all(message.data(), message.size());
    }
  };

  bench::await_start(options);
  time_round_trips(options.seconds / 10, round_trip);
  std::vector<uint32_t> samples_ns = time_round_trips(options.seconds, round_trip);
  double total_ns = 0;
  for (const uint32_t sample : samples_ns) total_ns += sample;
  const double count = static_cast<double>(samples_ns.size());
  bench::print_figures({{"p50_us", bench::quantile(samples_ns, 0.50) / 1e3},
                        {"p99_us", bench::quantile(samples_ns, 0.99) / 1e3},
                        {"avg_us", total_ns / count / 1e3},
                        {"round_trips", count}},
                       options.json);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (!options.server) {
    run_client(options);
    return 0;
  }
  const Socket listener = bench::listen_on(options);
  options.epoll ? serve_with_epoll(listener, options.size_bytes) : serve_blocking(listener, options.size_bytes);
}
