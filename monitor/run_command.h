// sluice run: starts a program under the shim.
#pragma once

#include <string>
#include <vector>

namespace sluice::monitor {

struct RunOptions {
  std::string directory;
  // For the coordinator; empty: its default, or whatever the running one uses.
  std::string queues, poll, protect;
  bool require = false;
  std::vector<std::string> command;
};

// Does not return if the command could be started; else the exit status.
int run_command(const RunOptions& options);

}  // namespace sluice::monitor
