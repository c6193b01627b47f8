#include "monitor/bench/script.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/installation.h"

namespace sluice::monitor::bench {
namespace {

int complain(const char* what) {
  fprintf(stderr, "sluice: bench: %s\n", what);
  return 1;
}

}  // namespace

int run_script(const std::string& name, const std::vector<std::string>& words) {
  std::string script = find_bench_script(), programs = find_bench_programs();
  std::string library = find_library(), daemon = find_daemon();
  if (daemon.empty()) return complain("sluiced is not beside sluice");
  if (library.empty()) return complain("libsluice.so is neither built nor installed");
  if (script.empty() || programs.empty()) return complain("the benchmark programs are neither built nor installed");
  std::vector<std::string> all = {"python3", "-B", script, "--library=" + library, "--programs=" + programs,
                                  "--daemon=" + daemon, name};
  all.insert(all.end(), words.begin(), words.end());
  // Also inside of `sluice run`: what is compared with Sluice must not run under it.
  unsetenv("LD_PRELOAD");
  setenv("SLUICE_DIR", "", 1);
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  return complain((std::string("python3: ") + strerror(errno)).c_str());
}

}  // namespace sluice::monitor::bench
