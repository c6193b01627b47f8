// What `sluiced` was asked for.
#pragma once

#include <string>

#include "shm/region.h"

namespace sluice::monitor {

struct Options {
  std::string directory;
  bool shared_queues = false;
  bool busy_poll = false;
  int cpu = -1;
  shm::Protect protect = shm::Protect::kRegions;
  bool foreground = false;
  bool linger = false;
};

}  // namespace sluice::monitor
