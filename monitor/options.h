// What `sluiced` was asked for.
#pragma once

#include <string>

#include "shm/layout.h"
#include "shm/protocol.h"
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
  shm::Keys keys = shm::Keys::kNone;  // and programs protect the shim's memory from themselves
  bool foreground = false;
  bool linger = false;

  // As --protect has it.
  const char* protect_name() const {
    if (keys == shm::Keys::kNone) return protect == shm::Protect::kNone ? "none" : "regions";
    return keys == shm::Keys::kStrict ? shm::kKeysStrict : shm::kKeys;
  }
};

}  // namespace sluice::monitor
