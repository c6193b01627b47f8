// sockmap: for as long as its standard input is open, TCP connections over IPv4 loopback between programs in
// a cgroup of its own are redirected from socket to socket by BPF (a sockops and an sk_msg program). It prints the
// cgroup's path. What a user of unmodified programs has today without Sluice: a baseline for `sluice bench`.
//
// Nothing outlives this process, however it ends: the cgroup's attachment is a BPF link, which the kernel
// undoes with the last descriptor of it, and the other goes with the map that it is attached to.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/bench/measured_cgroup.h"
#include "monitor/bench/sockmap_programs.h"
#include "monitor/descriptor.h"

namespace sluice::monitor::bench {
namespace {

constexpr char kLicense[] = "";  // the kernel asks only for functions that it keeps to the GPL; none is used

std::string problem_with(const char* what) {
  if (errno == EPERM || errno == EACCES) return "needs root";
  return std::string(what) + ": " + strerror(errno);
}

Descriptor load(bpf_prog_type type, const char* name, const bpf::Program& program) {
  return Descriptor(bpf_prog_load(type, name, kLicense, program.data(), program.size(), nullptr));
}

class Redirection {
 public:
  // What went wrong, or empty.
  std::string start(int cgroup) {
    map_ = Descriptor(bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "sluice_sockets", sizeof(SocketKey), sizeof(int), kMostSockets, nullptr));
    if (!map_) return problem_with("map of sockets");
    redirect_ = load(BPF_PROG_TYPE_SK_MSG, "sluice_redirect", redirecting_program(map_.get()));
    if (!redirect_) return problem_with("sk_msg program");
    collect_ = load(BPF_PROG_TYPE_SOCK_OPS, "sluice_collect", collecting_program(map_.get()));
    if (!collect_) return problem_with("sockops program");
    if (bpf_prog_attach(redirect_.get(), map_.get(), BPF_SK_MSG_VERDICT, 0) != 0) return problem_with("attaching to the map");
    link_ = Descriptor(bpf_link_create(collect_.get(), cgroup, BPF_CGROUP_SOCK_OPS, nullptr));
    return link_ ? "" : problem_with("attaching to the cgroup");
  }

 private:
  // The link goes first: no socket is collected any more once the map goes.
  Descriptor map_, redirect_, collect_, link_;
};

void wait_for_the_end() {
  struct sigaction a {};
  a.sa_handler = [](int) {};  // without SA_RESTART: ends the read
  for (int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &a, nullptr);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
}

int run() {
  MeasuredCgroup cgroup;
  Redirection redirection;
  std::string problem = geteuid() == 0 ? cgroup.create() : "needs root";
  if (problem.empty()) problem = redirection.start(cgroup.fd());
  if (!problem.empty()) {
    printf("sockmap: %s\n", problem.c_str());
    return 1;
  }
  printf("%s\n", cgroup.path().c_str());
  fflush(stdout);
  wait_for_the_end();
  return 0;
}

}  // namespace
}  // namespace sluice::monitor::bench

int main() { return sluice::monitor::bench::run(); }
