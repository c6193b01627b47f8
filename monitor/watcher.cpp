#include "monitor/watcher.h"

#include "monitor/process.h"

namespace sluice::monitor {

void Watcher::watch(shm::DomainId domain, int32_t pid) {
  Descriptor process = open_process(pid);
  if (!process || !events_.add(process.get(), Source::kExpected, domain)) return ended(domain);
  watched_[domain] = std::move(process);
}

bool Watcher::await(shm::DomainId domain, Descriptor& process) {
  if (!process) return false;
  events_.remove(process.get());
  if (!events_.add(process.get(), Source::kExpected, domain)) return false;
  watched_[domain] = std::move(process);
  return true;
}

void Watcher::unwatch(shm::DomainId domain) {
  watched_.erase(domain);
  std::erase(ended_, domain);
}

shm::DomainId Watcher::take_ended() {
  if (ended_.empty()) return shm::kNobody;
  shm::DomainId domain = ended_.back();
  ended_.pop_back();
  return domain;
}

}  // namespace sluice::monitor
