// sluice status, ss, stop.
#pragma once

#include <string>

namespace sluice::monitor {

struct ShowOptions {
  std::string directory;
  bool json = false;
  bool listening = false;  // ss: listeners instead of connections
  bool all = false;        // ss: both
};

// Each returns the exit status.
int show_status(const ShowOptions& options);
int show_sockets(const ShowOptions& options);
int stop_coordinator(const ShowOptions& options);

}  // namespace sluice::monitor
