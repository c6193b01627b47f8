#include "monitor/bench/measured_daemon.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "monitor/coordinator_link.h"
#include "monitor/installation.h"

namespace sluice::monitor::bench {

std::string MeasuredDaemon::start(const std::string& queues, const std::string& poll, int cpu) {
  std::string daemon = find_daemon();
  if (daemon.empty()) return "sluiced is not beside sluice";
  const char* temporary = getenv("TMPDIR");
  std::string path = std::string(temporary != nullptr ? temporary : "/tmp") + "/sluice-bench.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return path + ": " + strerror(errno);
  directory_ = path;
  std::string words[] = {daemon, "--foreground", "--dir=" + path, "--queues=" + queues, "--poll=" + poll,
                         cpu >= 0 ? "--cpu=" + std::to_string(cpu) : ""};
  pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return strerror(errno);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    unsetenv("LD_PRELOAD");
    setenv("SLUICE_DIR", "", 1);
    freopen("/dev/null", "w", stderr);
    char* argv[7] = {};
    for (std::size_t i = 0; i < 6; ++i)
      if (!words[i].empty()) argv[i] = words[i].data();
    execv(argv[0], argv);
    _exit(127);
  }
  for (int tries = 0; tries < 500; ++tries) {
    if (ask(path, shm::kStatus).outcome == Outcome::kAnswered) return {};
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return "sluiced does not start";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return "sluiced does not answer";
}

MeasuredDaemon::~MeasuredDaemon() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

void MeasuredDaemon::open(Counter& c, pid_t pid, uint64_t what) {
  perf_event_attr a{};
  a.type = PERF_TYPE_HARDWARE;
  a.size = sizeof a;
  a.config = what;
  a.disabled = 1;
  c.fd = Descriptor(int(syscall(SYS_perf_event_open, &a, pid, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (c.fd) ioctl(c.fd.get(), PERF_EVENT_IOC_ENABLE, 0);
}

void MeasuredDaemon::read(Counter& c) {
  uint64_t value;
  c.value.reset();
  if (c.fd && ::read(c.fd.get(), &value, sizeof value) == sizeof value && value != 0) c.value = value;
  c.fd.close();
}

namespace {

uint64_t time_stamp() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return 0;
#endif
}

uint64_t ns_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

uint64_t cpu_ns_of(pid_t pid) {
  clockid_t clock;
  return clock_getcpuclockid(pid, &clock) == 0 ? ns_of(clock) : 0;
}

}  // namespace

void MeasuredDaemon::begin_counting() {
  ticks_at_begin_ = time_stamp();
  ns_at_begin_ = ns_of(CLOCK_MONOTONIC);
  cpu_ns_at_begin_ = cpu_ns_of(pid_);
  open(cycles_, pid_, PERF_COUNT_HW_CPU_CYCLES);
  open(misses_, pid_, PERF_COUNT_HW_CACHE_MISSES);
}

void MeasuredDaemon::end_counting() {
  uint64_t ticks = time_stamp() - ticks_at_begin_, ns = ns_of(CLOCK_MONOTONIC) - ns_at_begin_;
  uint64_t cpu_ns = cpu_ns_of(pid_) - cpu_ns_at_begin_;
  ticks_.reset();
  if (ticks != 0 && ns != 0) ticks_ = uint64_t(double(cpu_ns) * double(ticks) / double(ns));
  read(cycles_);
  read(misses_);
}

}  // namespace sluice::monitor::bench
