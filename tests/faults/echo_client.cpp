// Keeps connections to an echo server busy and checks every byte that comes back.
//
//   echo_client PORT|PATH [--connections=N] [--messages=M] [--peer-may-die] [--pause-us=U]
//
// One thread per connection; every other one keeps up to 200 KB under way. After M messages or so
// a connection is half-closed, read to its end and replaced. A line of input is answered with
// figures; at the end of input all connections end in order, and the figures are the last words.
//
// With --peer-may-die a connection may end with what Linux shows the survivor: end of file,
// ECONNRESET or EPIPE; and ECONNREFUSED until there is a server again. Nothing else may happen.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "meeting_place.h"

namespace {

MeetingPlace place;
int messages_per_connection = 0;
int pause_us = 0;
bool peer_may_die = false;
std::atomic<bool> stopping{false};
std::atomic<long> messages{0}, bytes{0}, connections{0}, deaths{0}, refused{0};

int64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

// What the byte at this position of this connection's stream is.
char pattern(uint64_t seed, uint64_t position) {
  uint64_t x = (seed + position / 8) * 0x9e3779b97f4a7c15;
  x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
  return char(x >> (position % 8 * 8));
}

[[noreturn]] void fail(const char* what, int error, uint64_t sent, uint64_t received) {
  char line[300];
  int n = snprintf(line, sizeof line, "FAILED: %s: %s (sent %llu, received %llu)\n", what,
                   error ? strerror(error) : "-", (unsigned long long)sent,
                   (unsigned long long)received);
  (void)!write(1, line, size_t(n));
  _exit(1);
}

class Connection {
 public:
  Connection(uint64_t number, bool streams)
      : random_(number), window_(streams ? 200'000 : 1), number_(number) {}

  std::atomic<int64_t> progress_ms{now_ms()};
  std::atomic<const char*> doing{"-"};

  void run() {
    while (!stopping) {
      if (!open()) continue;
      if (!talk()) {
        ++deaths;
        if (!peer_may_die) fail("the connection died", error_, sent_, received_);
      }
      close(fd_);
    }
  }

 private:
  void step(const char* what) {
    progress_ms = now_ms();
    doing = what;
  }

  bool open() {
    step("connect");
    fd_ = place.make_socket();
    if (fd_ < 0) fail("socket", errno, 0, 0);
    if (place.connect(fd_) != 0) {
      int error = errno;
      close(fd_);
      // A path is gone for a moment while its server comes back.
      bool absent = error == ECONNREFUSED || error == ECONNRESET || error == ENOENT;
      if (!peer_may_die || !absent) fail("connect", error, 0, 0);
      ++refused;
      usleep(2000);
      return false;
    }
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    ++connections;
    seed_ = random_();
    sent_ = received_ = asked_ = 0;
    return true;
  }

  // False when the peer has died.
  bool talk() {
    int left = messages_per_connection ? 1 + int(random_() % uint64_t(2 * messages_per_connection)) : -1;
    while (!stopping && left != 0) {
      for (; asked_ - received_ < window_ && left != 0; left -= left > 0) {
        asked_ += 1 + random_() % (window_ > 1 ? 30'000 : 2'000);
        ++messages;
      }
      if (!move("poll")) return false;
      if (pause_us) usleep(useconds_t(pause_us));
    }
    while (received_ < asked_)
      if (!move("poll for the rest")) return false;
    if (shutdown(fd_, SHUT_WR) != 0) return died("shutdown", errno);
    return read_end();
  }

  // Sends and receives what it can, waiting if it can neither.
  bool move(const char* what) {
    pollfd p{fd_, short(POLLIN | (sent_ < asked_ ? POLLOUT : 0)), 0};
    doing = what;
    if (poll(&p, 1, -1) < 0 && errno != EINTR) fail("poll", errno, sent_, received_);
    if ((p.revents & POLLOUT) && !send_some()) return false;
    if ((p.revents & (POLLIN | POLLHUP | POLLERR)) && !receive_some()) return false;
    return true;
  }

  bool send_some() {
    size_t n = std::min<uint64_t>(asked_ - sent_, sizeof buffer_);
    for (size_t i = 0; i < n; ++i) buffer_[i] = pattern(seed_, sent_ + i);
    ssize_t m = send(fd_, buffer_, n, MSG_NOSIGNAL);
    if (m < 0) return errno == EAGAIN || died("send", errno);
    sent_ += uint64_t(m);
    step("send");
    return true;
  }

  bool receive_some() {
    ssize_t n = recv(fd_, buffer_, sizeof buffer_, 0);
    if (n < 0) return errno == EAGAIN || died("recv", errno);
    if (n == 0) return died("end of file", 0);
    if (received_ + uint64_t(n) > sent_) fail("more bytes than were sent", 0, sent_, received_);
    for (ssize_t i = 0; i < n; ++i)
      if (buffer_[i] != pattern(seed_, received_ + uint64_t(i)))
        fail("a wrong byte", 0, sent_, received_ + uint64_t(i));
    received_ += uint64_t(n);
    bytes += n;
    step("recv");
    return true;
  }

  bool read_end() {
    for (;;) {
      pollfd p{fd_, POLLIN, 0};
      step("poll for the end");
      poll(&p, 1, -1);
      ssize_t n = recv(fd_, buffer_, sizeof buffer_, 0);
      if (n > 0) fail("more bytes than were sent", 0, sent_, received_);
      if (n == 0) return true;
      if (errno != EAGAIN && errno != EINTR) return died("recv", errno);
    }
  }

  bool died(const char* what, int error) {
    error_ = error;
    bool as_on_linux = error == 0 || error == ECONNRESET || error == EPIPE ||
                       (error == ENOTCONN && strcmp(what, "shutdown") == 0);
    if (!as_on_linux) fail(what, error, sent_, received_);
    return false;
  }

  std::mt19937_64 random_;
  uint64_t window_, number_;
  int fd_ = -1, error_ = 0;
  uint64_t seed_ = 0, asked_ = 0, sent_ = 0, received_ = 0;
  char buffer_[16384];
};

void tell(const std::vector<std::unique_ptr<Connection>>& all) {
  int64_t oldest = now_ms();
  const char* doing = "";
  for (auto& c : all)
    if (c->progress_ms < oldest) {
      oldest = c->progress_ms;
      doing = c->doing;
    }
  printf("{\"messages\": %ld, \"bytes\": %ld, \"connections\": %ld, \"deaths\": %ld, "
         "\"refused\": %ld, \"stalled_ms\": %ld, \"stalled_in\": \"%s\"}\n",
         messages.load(), bytes.load(), connections.load(), deaths.load(), refused.load(),
         long(now_ms() - oldest), doing);
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int wanted = 4;
  if (argc > 1) place = MeetingPlace(argv[1]);
  for (int i = 2; i < argc; ++i) {
    std::string option = argv[i];
    int value = atoi(option.substr(option.find('=') + 1).c_str());
    if (option.starts_with("--connections=")) wanted = value;
    if (option.starts_with("--messages=")) messages_per_connection = value;
    if (option.starts_with("--pause-us=")) pause_us = value;
    if (option == "--peer-may-die") peer_may_die = true;
  }
  std::vector<std::unique_ptr<Connection>> all;
  std::vector<std::thread> threads;
  for (int i = 0; i < wanted; ++i)
    all.push_back(std::make_unique<Connection>(uint64_t(getpid()) * 1000 + uint64_t(i), i % 2 == 1));
  for (auto& c : all) threads.emplace_back(&Connection::run, c.get());
  char line[64];
  while (fgets(line, sizeof line, stdin)) tell(all);
  stopping = true;
  for (auto& t : threads) t.join();
  tell(all);
}
