// Waits for the end of processes that are known but not registered: peers have announced them, or we had to let go of
// them.
#pragma once

#include <unordered_map>
#include <vector>

#include "monitor/events.h"
#include "shm/layout.h"

namespace sluice::monitor {

class Watcher {
 public:
  explicit Watcher(Events& events) : events_(events) {}

  void watch(shm::DomainId domain, int32_t pid);
  void unwatch(shm::DomainId domain);
  // As watch(), by a pidfd that is there already, and stays the caller's if that cannot be done.
  [[nodiscard]] bool await(shm::DomainId domain, Descriptor& process);
  // Its pidfd has become readable.
  void ended(shm::DomainId domain) { ended_.push_back(domain); }
  bool has_ended() const { return !ended_.empty(); }
  // One domain that has ended, kNobody when there is none.
  shm::DomainId take_ended();

 private:
  Events& events_;
  std::unordered_map<shm::DomainId, Descriptor> watched_;
  std::vector<shm::DomainId> ended_;
};

}  // namespace sluice::monitor
