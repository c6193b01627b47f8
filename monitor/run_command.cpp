#include "monitor/run_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "monitor/coordinator_link.h"
#include "monitor/installation.h"
#include "monitor/run_directory.h"

namespace sluice::monitor {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{5};

// As sh(1) and env(1) have them; 125 as nice(1), timeout(1): failed before the command ran.
constexpr int kNotFound = 127, kNotExecutable = 126, kFailedBefore = 125;

// ---- the coordinator ----------------------------------------------------------------------

std::vector<std::string> daemon_arguments(const std::string& daemon, const RunOptions& o) {
  std::vector<std::string> arguments = {daemon, "--dir=" + o.directory, "--linger"};
  if (!o.queues.empty()) arguments.push_back("--queues=" + o.queues);
  if (!o.poll.empty()) arguments.push_back("--poll=" + o.poll);
  if (!o.protect.empty()) arguments.push_back("--protect=" + o.protect);
  return arguments;
}

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void become_daemon(const std::vector<std::string>& arguments, int complaints) {
  // It is no client of itself, and must not hold what the caller has open.
  unsetenv("LD_PRELOAD");
  setenv("SLUICE_DIR", "", 1);  // also where we run preloaded ourselves, which would give both back
  int null = open("/dev/null", O_RDWR);
  dup2(null, 0);
  dup2(null, 1);
  dup2(complaints, 2);
  close_range(3, ~0u, 0);
  execv(arguments[0].c_str(), pointers_to(arguments).data());
  _exit(kNotFound);
}

// What comes until the other end is closed everywhere, or patience ends.
std::string read_complaints(int fd) {
  std::string text;
  char buffer[512];
  auto deadline = Clock::now() + kPatience;
  for (;;) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd p{fd, POLLIN, 0};
    if (left <= 0 || poll(&p, 1, int(left)) <= 0) break;
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, std::size_t(n));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::string prefix = "sluiced: ";
  return text.rfind(prefix, 0) == 0 ? text.substr(prefix.size()) : text;
}

// Returns when the daemon listens or has failed, with what it said about that.
std::string start_daemon(const RunOptions& o) {
  std::string daemon = find_daemon();
  if (daemon.empty()) return "sluiced is not beside sluice";
  std::vector<std::string> arguments = daemon_arguments(daemon, o);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return strerror(errno);
  Descriptor in(ends[0]), out(ends[1]);
  pid_t child = fork();
  if (child < 0) return strerror(errno);
  if (child == 0) become_daemon(arguments, out.get());
  out.close();
  std::string complaints = read_complaints(in.get());
  waitpid(child, nullptr, 0);
  return complaints;
}

// Makes sure that a coordinator answers. Returns what is wrong, or empty.
std::string ensure_coordinator(const RunOptions& o, std::string& status) {
  std::string complaint;
  // Another `sluice run` may be starting one too, and the one found may just be leaving.
  for (auto deadline = Clock::now() + kPatience; Clock::now() < deadline;) {
    Answer answer = ask(o.directory, shm::kStatus, 1);
    if (answer.outcome == Outcome::kAnswered) {
      status = answer.text;
      return {};
    }
    if (answer.outcome != Outcome::kAbsent) return explain(answer.outcome, o.directory);
    std::string said = start_daemon(o);
    bool other_is_starting = said.find("another coordinator") != std::string::npos;
    if (!said.empty() && !other_is_starting) return said;
    complaint = said;
    if (other_is_starting) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return complaint.empty() ? explain(Outcome::kSilent, o.directory) : complaint;
}

void note_differences(const RunOptions& o, const std::string& status) {
  auto j = nlohmann::json::parse(status, nullptr, false);
  if (!j.is_object()) return;
  auto note = [&](const char* name, const std::string& wanted) {
    std::string actual = j.value(name, wanted);
    if (!wanted.empty() && actual != wanted)
      fprintf(stderr, "sluice: note: the coordinator that runs in %s has --%s=%s\n",
              o.directory.c_str(), name, actual.c_str());
  };
  note("queues", o.queues);
  note("poll", o.poll);
  note("protect", o.protect);
}

// ---- the command --------------------------------------------------------------------------

std::string prepend(const std::string& library, const char* existing) {
  if (existing == nullptr || *existing == 0) return library;
  std::string all = existing;
  return all.rfind(library, 0) == 0 ? all : library + ":" + all;
}

// Returns what keeps the command from being accelerated, or empty.
std::string prepare(const RunOptions& o) {
  std::string library = find_library();
  if (library.empty()) return "libsluice.so is neither built nor installed";
  // ld.so(8) takes both as separators, and has no way to quote them.
  if (library.find_first_of(" :") != std::string::npos)
    return library + ": LD_PRELOAD cannot name a path with a space or a colon";
  struct stat st;
  if (lstat(o.directory.c_str(), &st) == 0) {
    std::string problem = problem_with_directory(o.directory, true);
    if (!problem.empty()) return problem;
  }
  std::string status;
  std::string problem = ensure_coordinator(o, status);
  if (!problem.empty()) return problem;
  note_differences(o, status);
  setenv("LD_PRELOAD", prepend(library, getenv("LD_PRELOAD")).c_str(), 1);
  setenv("SLUICE_DIR", o.directory.c_str(), 1);
  return {};
}

}  // namespace

int run_command(const RunOptions& o) {
  std::string problem = prepare(o);
  if (!problem.empty()) {
    fprintf(stderr, "sluice: %s%s\n", problem.c_str(), o.require ? "" : "; running on the kernel");
    if (o.require) return kFailedBefore;
  }
  execvp(o.command[0].c_str(), pointers_to(o.command).data());
  int error = errno;
  fprintf(stderr, "sluice: %s: %s\n", o.command[0].c_str(), strerror(error));
  return error == ENOENT ? kNotFound : kNotExecutable;
}

}  // namespace sluice::monitor
