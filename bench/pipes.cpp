// Two processes and two pipes (or, with --socketpair, one AF_UNIX stream socket pair): the parent
// writes messages of --size bytes, the child reads. With --oneway as fast as the pipe takes them, and
// the child says at the end how many bytes came; else each is sent back, once it is there, before the next goes.

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <vector>

#include "options.h"
#include "report.h"
#include "tcp.h"

namespace {

using bench::Options;

constexpr size_t kReadBytes = 64 * 1024;

struct Ends {
  int in, out;
};

// The parent's ends and the child's.
struct Line {
  Ends parent, child;
};

Line make_line(bool socketpair_too) {
  int there[2], back[2];
  if (socketpair_too) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, there) != 0) bench::die("socketpair");
    return {{there[0], there[0]}, {there[1], there[1]}};
  }
  if (pipe(there) != 0 || pipe(back) != 0) bench::die("pipe");
  return {{back[0], there[1]}, {there[0], back[1]}};
}

void close_ends(const Ends& e) {
  close(e.in);
  if (e.out != e.in) close(e.out);
}

void write_all(int fd, const void* bytes, size_t size) {
  for (auto* at = static_cast<const char*>(bytes); size > 0;) {
    const ssize_t n = write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) bench::die("write");
    at += n;
    size -= static_cast<size_t>(n);
  }
}

// 0 at the end.
size_t read_some(int fd, void* bytes, size_t size) {
  ssize_t n;
  do n = read(fd, bytes, size);
  while (n < 0 && errno == EINTR);
  if (n < 0) bench::die("read");
  return static_cast<size_t>(n);
}

// False if the other side ended before.
bool read_message(int fd, void* bytes, size_t size) {
  for (auto* at = static_cast<char*>(bytes); size > 0;) {
    const size_t n = read_some(fd, at, size);
    if (n == 0) return false;
    at += n;
    size -= n;
  }
  return true;
}

void read_all(int fd, void* bytes, size_t size) {
  if (!read_message(fd, bytes, size)) bench::die("the other side ended");
}

// The child. A message whose last byte is kSync asks how many bytes came.
constexpr char kData = 'd';
constexpr char kSync = 's';

void send_back(const Ends& ends, size_t size_bytes) {
  std::vector<char> message(size_bytes);
  while (read_message(ends.in, message.data(), message.size())) write_all(ends.out, message.data(), message.size());
}

void count(const Ends& ends) {
  std::vector<char> buffer(kReadBytes);
  uint64_t bytes = 0;
  while (const size_t n = read_some(ends.in, buffer.data(), buffer.size())) {
    bytes += n;
    if (buffer[n - 1] != kSync) continue;
    write_all(ends.out, &bytes, sizeof bytes);
    bytes = 0;
  }
}

void measure_round_trips(const Options& options, const Ends& ends) {
  std::vector<char> message(options.size_bytes, kData);
  std::vector<uint32_t> samples_ns;
  const auto run = [&](double seconds) {
    samples_ns.clear();
    uint64_t before = bench::now_ns();
    const uint64_t end = before + static_cast<uint64_t>(seconds * 1e9);
    while (before < end) {
      write_all(ends.out, message.data(), message.size());
      read_all(ends.in, message.data(), message.size());
      const uint64_t after = bench::now_ns();
      const uint64_t longest = std::numeric_limits<uint32_t>::max();
      samples_ns.push_back(static_cast<uint32_t>(std::min(after - before, longest)));
      before = after;
    }
  };
  run(options.seconds / 10);
  run(options.seconds);
  bench::print_figures({{"p50_us", bench::quantile(samples_ns, 0.50) / 1e3},
                        {"p99_us", bench::quantile(samples_ns, 0.99) / 1e3}},
                       options.json);
}

void measure_one_way(const Options& options, const Ends& ends) {
  std::vector<char> data(options.size_bytes, kData), sync(options.size_bytes, kData);
  sync.back() = kSync;
  const size_t per_clock_read = std::clamp<size_t>(kReadBytes / options.size_bytes, 1, 1024);
  uint64_t messages = 0, elapsed_ns = 0;
  const auto run = [&](double seconds) {
    const uint64_t start = bench::now_ns();
    const uint64_t end = start + static_cast<uint64_t>(seconds * 1e9);
    messages = 0;
    while (bench::now_ns() < end) {
      for (size_t i = 0; i < per_clock_read; ++i) write_all(ends.out, data.data(), data.size());
      messages += per_clock_read;
    }
    write_all(ends.out, sync.data(), sync.size());
    uint64_t bytes = 0;
    read_all(ends.in, &bytes, sizeof bytes);
    elapsed_ns = bench::now_ns() - start;
    if (bytes == ++messages * data.size()) return;
    errno = EPROTO;
    bench::die("the child got another number of bytes");
  };
  run(options.seconds / 10);
  run(options.seconds);
  const double per_second = static_cast<double>(messages) * 1e9 / static_cast<double>(elapsed_ns);
  bench::print_figures({{"messages_per_s", per_second},
                        {"gb_per_s", per_second * static_cast<double>(options.size_bytes) / 1e9}},
                       options.json);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  const Line line = make_line(options.socketpair);
  const pid_t child = fork();
  if (child < 0) bench::die("fork");
  if (child == 0) {
    close_ends(line.parent);
    bench::pin_to(options.peer_cpu);
    options.oneway ? count(line.child) : send_back(line.child, options.size_bytes);
    _exit(0);
  }
  close_ends(line.child);
  bench::await_start(options);
  options.oneway ? measure_one_way(options, line.parent) : measure_round_trips(options, line.parent);
  close_ends(line.parent);
  waitpid(child, nullptr, 0);
}
