// What `sluiced` was asked for.
#pragma once

#include <string>

#include "shm/layout.h"
#include "shm/region.h"

namespace sluice::monitor {

struct Options {
  std::string directory;
  std::string policy = "/etc/sluice/policy.toml";  // empty: none
  bool policy_named = false;                       // else it need not be there
  shm::RequestQueue queues = shm::kDividedQueue;  // kEitherQueue: chosen while it runs
  bool busy_poll = false;
  bool grants = true;
  int cpu = -1;
  shm::Protect protect = shm::Protect::kRegions;
  bool foreground = false;
  bool linger = false;
};

}  // namespace sluice::monitor
