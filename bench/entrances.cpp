// How often a second one thread can call what answers for a connection of its own, with a short answer, and beside it how
// often it can make a short system call. Under a preloaded library the first is an entrance into it and back.
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"
#include "options.h"
#include "report.h"

int main(int argc, char** argv) {
  const bench::Options options = bench::parse_options(argc, argv);
  const bench::Connection connection = bench::connect_to_self();
  bench::await_start(options);
  const auto rate = [&](auto call) { return 1e9 / bench::best_ns_per_call(options.seconds / 2, call); };
  const double entrances = rate([&] {
    int unread = -1;
    if (ioctl(connection.client.fd(), FIONREAD, &unread) != 0 || unread != 0) bench::die("FIONREAD");
  });
  const double system_calls = rate([] {
    if (getppid() < 0) bench::die("getppid");
  });
  bench::print_figures({{"entrances_per_s", entrances}, {"system_calls_per_s", system_calls}}, options.json);
}
