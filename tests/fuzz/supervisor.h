// What the targets that are whole processes need around them.
#pragma once

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/fuzz/counterpart.h"

namespace sluice::fuzz {

inline std::string beside(const char* path) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / path).lexically_normal();
}

template <class... Words>
pid_t start(const std::string& program, Words... words) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  execl(program.c_str(), program.c_str(), words..., nullptr);
  _exit(127);
}

inline int make_stage() {
  int fd = memfd_create("stage", 0);
  FUZZ_CHECK(fd >= 0 && ftruncate(fd, sizeof(Stage)) == 0);
  return fd;
}

// Of the target, which are this process's now: their peers and their program are gone. Whether all have ended by themselves.
inline bool carriers_end() {
  auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (std::chrono::steady_clock::now() < end) {
    pid_t pid = waitpid(-1, nullptr, WNOHANG);
    if (pid < 0) return true;
    if (pid == 0) usleep(1000);
  }
  std::string path = "/proc/self/task/" + std::to_string(getpid()) + "/children";
  FILE* children = fopen(path.c_str(), "r");
  for (int pid; children != nullptr && fscanf(children, "%d", &pid) == 1;) kill(pid, SIGKILL);
  if (children != nullptr) fclose(children);
  return false;
}

// Runs this program again, with a coordinator and two counterparts, and ends as it does. `first`, `second`: what they are
// called; `with_shim`: whether the second has it, as the first does. The descriptors of their stages are in SLUICE_FUZZ_STAGES.
struct Cast {
  const char* first;
  const char* second;
  bool with_shim;
  const char* protect;
};

inline bool get_stages(int& first, int& second) {
  const char* stages = getenv("SLUICE_FUZZ_STAGES");
  return stages != nullptr && sscanf(stages, "%d,%d", &first, &second) == 2;
}

[[noreturn]] inline void supervise(char** argv, const Cast& cast) {
  std::string directory = std::filesystem::temp_directory_path() / "sluice-fuzz.XXXXXX";
  FUZZ_CHECK(mkdtemp(directory.data()) != nullptr);
  std::string option = "--dir=" + directory, protect = std::string("--protect=") + cast.protect;
  setenv("SLUICE_DIR", directory.c_str(), 1);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::vector<pid_t> started{start(beside("../../monitor/sluiced"), "--foreground", option.c_str(), protect.c_str(), "--policy=none")};
  for (int i = 0; i < int(kPatienceMs) && access((directory + "/coordinator.sock").c_str(), F_OK) != 0; ++i) usleep(1000);
  std::string stages, library = beside("../../preload/libsluice.so");
  for (const char* name : {cast.first, cast.second}) {
    bool shim = name == cast.first || cast.with_shim;
    std::string memory = std::to_string(make_stage());
    started.push_back(start(beside("shim_peer"), memory.c_str(), name, shim ? library.c_str() : ""));
    stages += (stages.empty() ? "" : ",") + memory;
  }
  setenv("SLUICE_FUZZ_STAGES", stages.c_str(), 1);
  pid_t target = fork();
  if (target == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv("/proc/self/exe", argv);
    _exit(127);
  }
  int status = 0;
  while (waitpid(-1, &status, 0) != target) {}  // also carriers, which are this process's when their program has ended
  for (pid_t pid : started) kill(pid, SIGKILL);
  bool over = carriers_end();
  if (!over) fprintf(stderr, "what the shim has forked to carry connections on does not end\n");
  std::filesystem::remove_all(directory);
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  _exit(code == 0 && !over ? 1 : code);
}

}  // namespace sluice::fuzz
