#include "harness.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <utility>

namespace conformance {
namespace {

int watchdog_seconds = 20;

struct Case {
  std::string name;  // with the place, if the test runs in several
  std::string base;
  std::function<void()> body;
};

// Shared with the children of a test: the first failure wins.
struct Verdict {
  std::atomic<bool> failed;
  char reason[1000];
};

struct Tally {
  int passed = 0;
  int failed = 0;
  int expected = 0;
};

Verdict* verdict;  // null in exec'ed programs, which complain on stderr

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

std::map<std::string, Program::Main>& programs() {
  static std::map<std::string, Program::Main> all;
  return all;
}

const char* place_name(Where where) {
  switch (where) {
    case Where::kSameProcess:
      return "same process";
    case Where::kPeerConnects:
      return "peer connects";
    case Where::kPeerAccepts:
      return "peer accepts";
  }
  return "";
}

std::string trimmed(std::string_view text) {
  auto first = text.find_first_not_of(" \t");
  if (first == text.npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

// The rows of docs/divergences.md that begin with | `test: AREA/NAME` |, for this area. A
// test whose row says "sometimes" depends on timing: it may pass too.
struct Expected {
  std::set<std::string> always, sometimes;
  static bool has(const std::set<std::string>& names, const Case& test) {
    return names.contains(test.name) || names.contains(test.base);
  }
};

Expected expected_failures() {
  Expected names;
  const char* path = getenv("SLUICE_TEST_EXPECTED_FAILURES");
  if (!path) return names;
  std::string prefix = std::string("`test: ") + program_invocation_short_name + "/";
  std::ifstream page(path);
  for (std::string line; std::getline(page, line);) {
    if (line.empty() || line[0] != '|') continue;
    std::string cell = trimmed(std::string_view(line).substr(1, line.find('|', 1) - 1));
    if (cell.starts_with(prefix) && cell.ends_with('`'))
      (line.find("sometimes") != line.npos ? names.sometimes : names.always).insert(cell.substr(prefix.size(), cell.size() - prefix.size() - 1));
  }
  return names;
}

[[noreturn]] void run_child(const Case& test, const sigset_t& signals) {
  setpgid(0, 0);
  sigprocmask(SIG_SETMASK, &signals, nullptr);
  test.body();
  _exit(0);
}

// False if the watchdog had to kill it.
bool await_child(pid_t pid, int* status) {
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += watchdog_seconds;
  while (waitpid(pid, status, WNOHANG) == 0) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec >= deadline.tv_sec) {
      kill(-pid, SIGKILL);
      waitpid(pid, status, 0);
      return false;
    }
    timespec patience{1, 0};
    sigtimedwait(&child_signal, nullptr, &patience);
  }
  return true;
}

// Empty when it passed.
std::string run_case(const Case& test) {
  verdict->failed = false;
  verdict->reason[0] = 0;
  fflush(stdout);
  sigset_t child_signal, before;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signal, &before);
  pid_t pid = fork();
  if (pid == 0) run_child(test, before);
  setpgid(pid, pid);
  int status = 0;
  bool in_time = await_child(pid, &status);
  kill(-pid, SIGKILL);  // whatever it left behind
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (verdict->failed) return verdict->reason;
  if (!in_time) return "hang";
  if (WIFSIGNALED(status)) return std::string("killed by SIG") + sigabbrev_np(WTERMSIG(status));
  if (WEXITSTATUS(status)) return "exit status " + std::to_string(WEXITSTATUS(status));
  return "";
}

void report(const Case& test, const Expected& expected, const std::string& reason, Tally& tally) {
  bool may_pass = !Expected::has(expected.always, test);
  bool may_fail = !may_pass || Expected::has(expected.sometimes, test);
  if (reason.empty() && may_pass) {
    tally.passed++;
    printf("ok %s\n", test.name.c_str());
  } else if (reason.empty()) {
    tally.failed++;
    printf("FAIL %s: unexpectedly passes\n", test.name.c_str());
  } else if (may_fail) {
    tally.expected++;
    printf("xfail %s: %s\n", test.name.c_str(), reason.c_str());
  } else {
    tally.failed++;
    printf("FAIL %s: %s\n", test.name.c_str(), reason.c_str());
  }
}

// A hang that is expected is not waited for as long as one that is not.
void run_and_report(const Case& test, const Expected& expected, Tally& tally) {
  int patience = watchdog_seconds;
  bool may_hang = Expected::has(expected.always, test) || Expected::has(expected.sometimes, test);
  if (may_hang && watchdog_seconds > 4) watchdog_seconds = 4;
  report(test, expected, run_case(test), tally);
  watchdog_seconds = patience;
}

}  // namespace

Test::Test(const char* name, void (*body)()) { cases().push_back({name, name, body}); }

Test::Test(const char* name, void (*body)(Where), bool in_same_process) {
  for (Where where : {Where::kSameProcess, Where::kPeerConnects, Where::kPeerAccepts}) {
    if (where == Where::kSameProcess && !in_same_process) continue;
    cases().push_back(
        {std::string(name) + " [" + place_name(where) + "]", name, [body, where] { body(where); }});
  }
}

Program::Program(const char* name, Main main) { programs()[name] = main; }

std::string errno_name(int error) {
  const char* name = strerrorname_np(error);
  return name ? name : "errno " + std::to_string(error);
}

void fail(const char* file, int line, const std::string& what) {
  const char* slash = strrchr(file, '/');
  std::string reason =
      std::string(slash ? slash + 1 : file) + ":" + std::to_string(line) + ": " + what;
  if (!verdict)
    fprintf(stderr, "%s\n", reason.c_str());
  else if (!verdict->failed.exchange(true))
    snprintf(verdict->reason, sizeof verdict->reason, "%s", reason.c_str());
  _exit(1);
}

pid_t spawn_program(const char* name, const std::vector<std::string>& args,
                    const std::vector<int>& kept) {
  std::vector<std::string> words{program_invocation_name, std::string("--program=") + name};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = CHECK_OK(fork());
  if (pid) return pid;
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  for (int fd : kept) fcntl(fd, F_SETFD, 0);
  execv("/proc/self/exe", argv.data());
  _exit(127);
}

pid_t in_child(const std::function<void()>& body) {
  pid_t pid = CHECK_OK(fork());
  if (pid) return pid;
  body();
  _exit(0);
}

int wait_exit(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int run_tests(int argc, char** argv) {
  std::string only;
  bool list = false;
  for (int i = 1; i < argc; i++) {
    std::string_view arg = argv[i];
    if (arg == "--list") {
      list = true;
    } else if (arg.starts_with("--only=")) {
      only = arg.substr(7);
    } else if (arg.starts_with("--watchdog=")) {
      watchdog_seconds = atoi(argv[i] + 11);
    } else if (arg.starts_with("--program=")) {
      auto program = programs().find(std::string(arg.substr(10)));
      if (program == programs().end()) return 127;
      return program->second({argv + i + 1, argv + argc});
    } else {
      fprintf(stderr, "usage: %s [--list] [--only=SUBSTRING] [--watchdog=SECONDS]\n", argv[0]);
      return 2;
    }
  }
  verdict = static_cast<Verdict*>(
      mmap(nullptr, sizeof(Verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Expected expected = expected_failures();
  Tally tally;
  for (const Case& test : cases()) {
    if (test.name.find(only) == test.name.npos) continue;
    if (list)
      printf("%s\n", test.name.c_str());
    else
      run_and_report(test, expected, tally);
  }
  if (list) return 0;
  if (tally.expected) printf("%d failed as expected\n", tally.expected);
  printf("%d passed, %d failed\n", tally.passed, tally.failed);
  return tally.failed ? 1 : 0;
}

}  // namespace conformance

int main(int argc, char** argv) { return conformance::run_tests(argc, argv); }
