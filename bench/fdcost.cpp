// What a call costs on a descriptor that is not a TCP socket: ns per call. It first makes a TCP connection to
// itself and keeps it.

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vector>

#include "calls.h"
#include "options.h"
#include "report.h"

namespace {

using bench::Options;

class Descriptors {
 public:
  Descriptors()
      : null_(open("/dev/null", O_RDWR | O_CLOEXEC)),
        event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (pipe2(pipe_, O_CLOEXEC) != 0) bench::die("pipe2");
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event) != 0) bench::die("epoll_ctl");
  }

  // One figure per kind of call, each measured for `seconds`.
  std::vector<bench::Figure> measure(double seconds) {
    const auto best = [&](auto call) { return bench::best_ns_per_call(seconds, call); };
    epoll_event event;
    uint64_t count = 1;  // what is written is read back
    char byte = 0;
    return {
        {"read_null_ns", best([&] { check(read(null_, &byte, 1) == 0); })},
        {"write_null_ns", best([&] { check(write(null_, &byte, 1) == 1); })},
        {"eventfd_ns", best([&] {
                         check(write(event_, &count, sizeof count) == sizeof count);
                         check(read(event_, &count, sizeof count) == sizeof count);
                       }) / 2},
        {"pipe_ns", best([&] {
                      check(write(pipe_[1], &byte, 1) == 1);
                      check(read(pipe_[0], &byte, 1) == 1);
                    }) / 2},
        {"epoll_wait_ns", best([&] { check(epoll_wait(epoll_, &event, 1, 0) == 0); })},
        {"fcntl_ns", best([&] { check(fcntl(null_, F_GETFD) == FD_CLOEXEC); })},
        {"read_bad_fd_ns", best([&] { check(read(-1, &byte, 1) == -1); })},
        {"close_bad_fd_ns", best([&] { check(close(-1) == -1); })},
    };
  }

 private:
  static void check(bool as_expected) {
    if (!as_expected) bench::die("a call on a plain descriptor");
  }

  int null_;
  int event_;
  int epoll_;
  int pipe_[2];
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  const bench::Connection kept_open = bench::connect_to_self();
  Descriptors descriptors;
  bench::await_start(options);
  descriptors.measure(options.seconds / 80);
  bench::print_figures(descriptors.measure(options.seconds / 8), options.json);
}
