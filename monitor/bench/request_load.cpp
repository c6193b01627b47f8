#include "monitor/bench/request_load.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>

#include "monitor/bench/request_client.h"
#include "shm/futex.h"
#include "shm/protocol.h"
#include "shm/wake.h"

namespace sluice::monitor::bench {
namespace {

enum Phase : uint32_t { kRegister, kWarmUp, kMeasure, kOver };

// Looks at the clock cost as much as a request: one in so many is timed when several are under way.
constexpr uint32_t kSample = 32;
// Looks for a reply before others on this CPU have their turn.
constexpr uint32_t kLooks = 2000, kLooksInCompany = 50;
constexpr double kPatienceSeconds = 30;

uint64_t clock_ns(clockid_t which) {
  timespec t;
  clock_gettime(which, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}
uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

void sleep_seconds(double seconds) {
  timespec t{time_t(seconds), long((seconds - double(time_t(seconds))) * 1e9)};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

bool stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return cpu < 0 || sched_setaffinity(0, sizeof set, &set) == 0;
}

}  // namespace

// What each process tells.
struct alignas(64) RequestLoad::Cell {
  std::atomic<uint64_t> requests;
  uint64_t cpu_ns;
  Latencies latencies;
  char problem[128];
};

struct RequestLoad::Board {
  std::atomic<uint32_t> phase;
  std::atomic<uint32_t> registered, failed, done;
  static std::size_t bytes(uint32_t clients) { return sizeof(Board) + 64 + clients * sizeof(Cell); }
  Cell& cell(uint32_t i) {
    auto base = (reinterpret_cast<uintptr_t>(this + 1) + 63) & ~uintptr_t{63};
    return reinterpret_cast<Cell*>(base)[i];
  }
};

std::string RequestLoad::start() {
  void* p = mmap(nullptr, Board::bytes(shape_.clients), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return strerror(errno);
  board_ = static_cast<Board*>(p);
  for (uint32_t i = 0; i < (shape_.by_turns ? 1 : shape_.clients); ++i) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) return std::string("fork: ") + strerror(errno);
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() == parent) shape_.by_turns ? run_all() : run_client(i);
      _exit(0);
    }
    processes_.push_back(pid);
  }
  for (uint64_t begin = now_ns(); board_->registered.load() + board_->failed.load() < shape_.clients;) {
    if (double(now_ns() - begin) > kPatienceSeconds * 1e9) return "not all clients register";
    sleep_seconds(0.001);
  }
  for (uint32_t i = 0; i < shape_.clients; ++i)
    if (board_->cell(i).problem[0] != 0) return board_->cell(i).problem;
  return {};
}

RequestLoad::~RequestLoad() {
  for (pid_t pid : processes_) kill(pid, SIGKILL);
  for (pid_t pid : processes_)
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  if (board_ != nullptr) munmap(board_, Board::bytes(shape_.clients));
}

void RequestLoad::warm_up(double seconds) {
  board_->phase.store(kWarmUp);
  shm::futex_wake(board_->phase);
  sleep_seconds(seconds);
}

void RequestLoad::begin() {
  begin_ns_ = now_ns();
  board_->phase.store(kMeasure);
}

void RequestLoad::end() {
  end_ns_ = now_ns();
  board_->phase.store(kOver);
  for (uint64_t begin = now_ns(); board_->done.load() < shape_.active && double(now_ns() - begin) < kPatienceSeconds * 1e9;)
    sleep_seconds(0.001);
}

LoadResult RequestLoad::result() const {
  LoadResult r;
  r.seconds = double(end_ns_ - begin_ns_) / 1e9;
  for (uint32_t i = 0; i < shape_.active; ++i) {
    const Cell& c = board_->cell(i);
    r.requests += c.requests.load();
    r.client_ns += c.cpu_ns;
    if (i >= shape_.flooders) r.latencies.merge(c.latencies);
  }
  return r;
}

// ---- in a client --------------------------------------------------------------------------

void RequestLoad::run_client(uint32_t index) {
  RequestClient client;
  std::string problem = stay_on(shape_.cpu) ? client.connect(directory_) : "no such CPU";
  strncpy(board_->cell(index).problem, problem.c_str(), sizeof Cell::problem - 1);
  if (!problem.empty()) {
    board_->failed.fetch_add(1);
    return;
  }
  board_->registered.fetch_add(1);
  await_start();
  if (index < shape_.active) {
    work(index, client);
    board_->done.fetch_add(1);
  }
  for (;;) pause();  // stays registered
}

void RequestLoad::await_start() {
  while (board_->phase.load() == kRegister) (void)shm::futex_wait(board_->phase, kRegister, nullptr);
}

void RequestLoad::run_all() {
  constexpr rlim_t kDescriptorsEach = 4;
  rlimit limit{kDescriptorsEach * shape_.clients + 64, kDescriptorsEach * shape_.clients + 64};
  (void)setrlimit(RLIMIT_NOFILE, &limit);  // if there are too few, connect() says so
  auto clients = std::make_unique<RequestClient[]>(shape_.clients);
  std::string problem = stay_on(shape_.cpu) ? std::string() : "no such CPU";
  for (uint32_t i = 0; i < shape_.clients && problem.empty(); ++i) problem = clients[i].connect(directory_);
  strncpy(board_->cell(0).problem, problem.c_str(), sizeof Cell::problem - 1);
  (problem.empty() ? board_->registered : board_->failed).fetch_add(shape_.clients);
  if (!problem.empty()) return;
  await_start();
  take_turns(clients.get());
  board_->done.fetch_add(shape_.active);
  for (;;) pause();
}

void RequestLoad::take_turns(RequestClient* clients) {
  Cell& cell = board_->cell(shape_.flooders);  // of the first one that does not flood
  uint64_t answered = 0, cpu_at_begin = 0;
  bool measuring = false;
  shm::Message m{}, reply;
  m.type = shm::kPing;
  std::vector<uint32_t> under_way(shape_.flooders);
  auto flood = [&] {
    for (uint32_t i = 0; i < shape_.flooders; ++i) {
      for (; clients[i].try_receive(reply); ++answered) --under_way[i];
      uint32_t before = under_way[i];
      while (under_way[i] < shm::kMessages && clients[i].try_send(m)) ++under_way[i];
      if (under_way[i] != before) clients[i].flush();
    }
  };
  for (uint32_t turn = shape_.flooders;; turn = turn + 1 < shape_.active ? turn + 1 : shape_.flooders) {
    uint32_t phase = board_->phase.load(std::memory_order_relaxed);  // a hint of when
    if (phase == kOver) break;
    if (phase == kMeasure && !measuring) {
      measuring = true;
      answered = 0;
      cpu_at_begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
      cell.latencies.clear();
    }
    flood();
    uint64_t begin = now_ns();
    auto goes_on = [&] { return board_->phase.load(std::memory_order_relaxed) != kOver; };  // a hint of when
    auto meanwhile = [&] { shape_.flooders > 0 ? flood() : shm::cpu_relax(); };
    while (!clients[turn].try_send(m) && goes_on()) meanwhile();  // a shared queue may be full
    clients[turn].flush();
    while (!clients[turn].try_receive(reply) && goes_on()) meanwhile();
    cell.latencies.add(now_ns() - begin);
    ++answered;
  }
  if (!measuring) return cell.latencies.clear();
  cell.requests.store(answered);
  cell.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_at_begin;
}

void RequestLoad::work(uint32_t index, RequestClient& client) {
  Cell& cell = board_->cell(index);
  bool floods = index < shape_.flooders, open = shape_.rate > 0 && !floods;
  uint32_t depth = floods || open ? shm::kMessages : shape_.depth;
  uint32_t sample = open || depth == 1 ? 1 : kSample;
  uint32_t looks_before_yield = shape_.active > 1 ? kLooksInCompany : kLooks;
  double interval_ns = open ? 1e9 * double(shape_.active - shape_.flooders) / shape_.rate : 0;
  double next_ns = double(now_ns()) + interval_ns * index / shape_.active;
  uint64_t answered = 0, at_begin = 0, cpu_at_begin = 0, sent = 0, looks = 0;
  uint32_t under_way = 0;
  bool measuring = false;
  shm::Message m{};
  m.type = shm::kPing;
  for (;;) {
    uint32_t phase = board_->phase.load(std::memory_order_relaxed);  // a hint of when
    if (phase == kOver) break;
    if (phase == kMeasure && !measuring) {
      measuring = true;
      at_begin = answered;
      cpu_at_begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
      cell.latencies.clear();
    }
    bool some = false;
    while (under_way < depth) {
      bool timed = sent % sample == 0;
      m.words[1] = 0;
      if (open) {
        if (double(now_ns()) < next_ns) break;
        m.words[1] = uint64_t(next_ns);  // when it should have been sent: waiting for its turn counts
      } else if (timed) {
        m.words[1] = now_ns();
      }
      if (!client.try_send(m)) break;
      some = true;
      ++sent;
      ++under_way;
      next_ns += interval_ns;
    }
    if (some) client.flush();
    bool any = false;
    shm::Message reply;
    while (client.try_receive(reply)) {
      any = true;
      --under_way;
      ++answered;
      if (reply.words[1] != 0) cell.latencies.add(now_ns() - reply.words[1]);
    }
    if (any || (open && under_way == 0)) {
      looks = 0;
    } else if (++looks % looks_before_yield == 0) {
      sched_yield();
    } else {
      shm::cpu_relax();
    }
  }
  if (!measuring) return cell.latencies.clear();  // it had no turn in all that time
  cell.requests.store(answered - at_begin);
  cell.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_at_begin;
}

}  // namespace sluice::monitor::bench
