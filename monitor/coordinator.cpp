#include "monitor/coordinator.h"

#include <sched.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <fstream>

#include "monitor/auto_queues.h"
#include "monitor/divided.h"
#include "monitor/noc.h"
#include "monitor/process.h"
#include "monitor/run_directory.h"
#include "monitor/shared.h"
#include "shm/wake.h"

namespace sluice::monitor {
namespace {

// Zero-initialised and touched as it is used: see coordinator_core.h.
core::CoordinatorCore brain;

// How many looks at the request queues go before one at the sockets, while there is work.
constexpr uint32_t kLooksPerSockets = 64;
// Nobody rings when a reply ring has room again, nor when a user may go on that asked too much.
constexpr int kLateRepliesMs = 10;

DomainId random_first_domain() {
  uint32_t n = 0;
  if (getrandom(&n, sizeof n, GRND_NONBLOCK) != sizeof n) n = uint32_t(getpid()) * 2654435761u;
  return shm::kCoordinator + 1 + n % (shm::kMaxDomains - 2);
}

int available_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void raise_descriptor_limit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  rlimit wanted{1 << 20, 1 << 20};
  if (wanted.rlim_max <= limit.rlim_max || setrlimit(RLIMIT_NOFILE, &wanted) != 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

Coordinator::Coordinator(const Options& options)
    : options_(options),
      core_(brain),
      poller_(options.busy_poll, available_cpus()),
      lifetime_(options.linger) {
  transport_ = create_transport();
  registrar_.serve(*transport_, tickets_);
  reaper_.serve(*transport_);
  status_.serve(*transport_);
}

std::unique_ptr<Transport> Coordinator::create_transport() {
  switch (options_.queues) {
    case shm::kDividedQueue: return std::make_unique<DividedQueues>(core_, clients_, post_);
    case shm::kSharedQueue: return std::make_unique<SharedQueues>(core_, clients_);
    case shm::kNocQueue: return std::make_unique<NocQueues>(core_, clients_, post_);
    case shm::kEitherQueue: break;
  }
  return std::make_unique<AutoQueues>(core_, clients_, post_);
}

// ---- start --------------------------------------------------------------------------------

std::string Coordinator::start() {
  raise_descriptor_limit();
  if (!stays_on_cpu())
    return "cannot stay on CPU " + std::to_string(options_.cpu) + ": " + strerror(errno);
  core_.init(executor_, random_first_domain());
  if (!options_.grants) core_.give_no_grants();
  if (int e = directory_.create(options_.busy_poll); e < 0)
    return std::string("cannot create shared memory: ") + strerror(-e);
  if (std::string wrong = policing_.start(); !wrong.empty()) return wrong;
  std::string problem = catch_signals();
  if (!problem.empty()) return problem;
  lend_ports();
  if (int e = acceptor_.listen(socket_path(options_.directory)); e < 0)
    return socket_path(options_.directory) + ": " + strerror(-e);
  return {};
}

std::string Coordinator::catch_signals() {
  signal(SIGPIPE, SIG_IGN);
  Patience::catch_signal();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = Descriptor(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  return events_.add(signals_.get(), Source::kSignal, 0) ? "" : strerror(errno);
}

// Ports that the kernel does not give out by itself.
void Coordinator::lend_ports() {
  uint32_t low = 32768, high = 60999;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> low >> high;
  auto add_outside = [&](uint32_t first, uint32_t last) {
    if (first < low) core_.add_port_range(first, std::min(last, low - 1));
    if (last > high) core_.add_port_range(std::max(first, high + 1), last);
  };
  add_outside(61000, 65535);
  add_outside(10000, 32767);
}

bool Coordinator::stays_on_cpu() const {
  if (options_.cpu < 0) return true;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(options_.cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

TextService::Sources Coordinator::texts() {
  return {[this](bool all) { return status_.json(all); }, [this] { return sockets_.json(); }, [this] { return region_list_.json(); },
          [this] { stopping_ = true; }, [this] { lifetime_.expect_client(); }};
}

// ---- the loop -----------------------------------------------------------------------------

void Coordinator::run() {
  while (!stopping_) {
    if (look()) {
      poller_.worked();
    } else if (poller_.keeps_looking()) {
      // Whoever shares this core has its turn first.
      if (options_.busy_poll)
        shm::cpu_relax();
      else
        sched_yield();
    } else if (!stopping_) {  // the look may have found the signal that ends it
      sleep();
    }
    if (lifetime_.is_over()) stopping_ = true;
  }
  serve_sockets(0);  // the answer to kStop may still be on its way
  directory_.disown();
  acceptor_.close();
}

// One turn for everybody. Returns whether there was anything to do.
bool Coordinator::look() {
  tell_time();
  bool any = transport_->poll();
  if (any) post_.deliver_all();
  if (post_.has_late_replies()) post_.deliver_late_replies();
  packets_.resume();
  if (++looks_ % kLooksPerSockets == 0) serve_sockets(0);
  any |= bury();
  lifetime_.note(core_.present());
  return any;
}

bool Coordinator::bury() {
  if (!clients_.has_doomed() && !watcher_.has_ended()) return reaper_.bury();
  patience_.begin();
  bool any = reaper_.bury();
  name_service_.forget_the_dead();
  patience_.end();
  return any;
}

void Coordinator::serve_sockets(int timeout_ms) {
  events_.wait(timeout_ms, [this](Source source, uint32_t id, uint32_t events) {
    if (source == Source::kSocket) patience_.begin();
    on_event(source, id, events);
  });
  patience_.end();
  post_.deliver_all();
}

void Coordinator::on_event(Source source, uint32_t id, uint32_t events) {
  Client* client = clients_.by_serial(id);
  tell_time();
  switch (source) {
    case Source::kListening:
      return acceptor_.accept_some();
    case Source::kSignal:
      return on_signal();
    case Source::kExpected:
      return watcher_.ended(id);
    case Source::kTicket:
      return tickets_.ended(id);
    case Source::kSummons:
      return;  // the next look finds the request
    case Source::kSocket:
      if (client != nullptr) packets_.serve(*client, events);
      return;
    case Source::kProcess:
      if (client != nullptr) clients_.doom(*client);
      return;
  }
}

void Coordinator::sleep() {
  directory_.fall_asleep();
  (void)core_.take_delay();
  tell_time();
  bool missed = transport_->has_requests();
  serve_sockets(missed ? 0 : timeout_ms());
  directory_.wake_up();
  poller_.slept();
}

int Coordinator::timeout_ms() {
  int end = lifetime_.remaining_ms();
  if (!post_.has_late_replies() && !packets_.has_paused() && !core_.take_delay()) return end;
  return end < 0 ? kLateRepliesMs : std::min(end, kLateRepliesMs);
}

void Coordinator::on_signal() {
  signalfd_siginfo s;
  while (read(signals_.get(), &s, sizeof s) == sizeof s)
    if (s.ssi_signo == SIGHUP) policing_.reload();
    else stopping_ = true;
}

// Of use to limits on requests only.
void Coordinator::tell_time() {
  if (!core_.needs_time()) return;
  core_.tell_time(uint64_t(std::chrono::steady_clock::now().time_since_epoch().count()));
}

}  // namespace sluice::monitor
