// One-way messages: the client writes messages of --size bytes as fast as a blocking socket
// takes them, the server reads with a buffer of 64 KiB. The last byte of a message is kSync
// if the client waits for the server to say how many bytes came since the previous one: so
// the clock runs until the last byte has been read, and nothing may get lost.

#include <algorithm>
#include <cerrno>
#include <vector>

#include "options.h"
#include "report.h"
#include "tcp.h"

namespace {

using bench::Options;
using bench::Socket;

constexpr size_t kReceiveBytes = 64 * 1024;
constexpr char kData = 'd';
constexpr char kSync = 's';

void serve(const Socket& listener) {
  std::vector<char> buffer(kReceiveBytes);
  for (;;) {
    const Socket peer = bench::accept_from(listener);
    uint64_t bytes = 0;
    while (const size_t received = peer.receive_some(buffer.data(), buffer.size())) {
      bytes += received;
      if (buffer[received - 1] != kSync) continue;
      peer.send_all(&bytes, sizeof bytes);
      bytes = 0;
    }
  }
}

class Sender {
 public:
  Sender(const Options& options, size_t size_bytes)
      : server_(bench::connect_to(options)),
        data_(size_bytes, kData),
        sync_(size_bytes, kData),
        per_clock_read_(std::clamp<size_t>(kReceiveBytes / size_bytes, 1, 1024)) {
    sync_.back() = kSync;
  }

  // Sends for `seconds`; returns how many messages the server got, and in what time.
  uint64_t send_for(double seconds, uint64_t* elapsed_ns) {
    const uint64_t start = bench::now_ns();
    const uint64_t end = start + static_cast<uint64_t>(seconds * 1e9);
    uint64_t messages = 0;
    while (bench::now_ns() < end) {
      // Reading the clock takes as long as a message: not for each.
      for (size_t i = 0; i < per_clock_read_; ++i) server_.send_all(data_.data(), data_.size());
      messages += per_clock_read_;
    }
    synchronise(++messages);
    *elapsed_ns = bench::now_ns() - start;
    return messages;
  }

 private:
  void synchronise(uint64_t messages) {
    uint64_t bytes = 0;
    server_.send_all(sync_.data(), sync_.size());
    server_.receive_all(&bytes, sizeof bytes);
    if (bytes == messages * data_.size()) return;
    errno = EPROTO;
    bench::die("the server got another number of bytes");
  }

  Socket server_;
  std::vector<char> data_;
  std::vector<char> sync_;
  size_t per_clock_read_;
};

void run_client(const Options& options) {
  Sender sender(options, options.size_bytes);
  uint64_t elapsed_ns = 0;
  bench::await_start(options);
  sender.send_for(options.seconds / 10, &elapsed_ns);
  const uint64_t messages = sender.send_for(options.seconds, &elapsed_ns);
  const double per_second = static_cast<double>(messages) * 1e9 / static_cast<double>(elapsed_ns);
  bench::print_figures({{"messages_per_s", per_second},
                        {"gb_per_s", per_second * static_cast<double>(options.size_bytes) / 1e9}},
                       options.json);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (options.server) {
    serve(bench::listen_on(options));
  } else {
    run_client(options);
  }
}
