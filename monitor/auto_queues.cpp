#include "monitor/auto_queues.h"

#include <algorithm>
#include <chrono>

namespace sluice::monitor {

namespace {

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

uint64_t requests_of(const Client& c) { return c.served_divided + c.served_shared; }

}  // namespace

// ---- who is there -------------------------------------------------------------------------

void AutoQueues::join(Client& client) {
  shared_.join(client);
  members_.push_back({&client, false, requests_of(client), client.served_shared});
  if (members_.size() >= kMany) many_ = true;
  tell(members_.back(), many_ ? shm::kSharedQueue : shm::kDividedQueue);
}

void AutoQueues::leave(Client& client) {
  divided_.leave(client);
  shared_.leave(client);
  auto found = std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.client == &client; });
  if (found == members_.end()) return;
  *found = members_.back();
  members_.pop_back();
}

// A ring is looked at from before its client hears that it may use it, and until it has used the other queue.
void AutoQueues::tell(Member& m, shm::RequestQueue queue) {
  if (queue == shm::kDividedQueue && !m.has_lane) {
    divided_.join(*m.client);
    m.has_lane = true;
  }
  m.over_shared = m.client->served_shared;
  m.client->reply_region->queue.store(queue, std::memory_order_release);
}

bool AutoQueues::is_told_to_share(const Member& m) {
  return m.client->reply_region->queue.load(std::memory_order_relaxed) == shm::kSharedQueue;  // our own
}

// ---- the loop -----------------------------------------------------------------------------

bool AutoQueues::poll() {
  bool any = divided_.poll();
  any |= shared_.poll();
  if (!any || ++looks_ % kLooksPerClock == 0) review();
  return any;
}

bool AutoQueues::has_requests() { return divided_.has_requests() || shared_.has_requests(); }

void AutoQueues::review() {
  int64_t now = now_ms();
  if (now - reviewed_ms_ < kReviewMs) return;
  double seconds = double(now - reviewed_ms_) / 1000;
  reviewed_ms_ = now;
  if (members_.size() >= kMany) many_ = true;
  if (members_.size() <= kMany / 2) many_ = false;
  for (Member& m : members_) review(m, seconds);
}

void AutoQueues::review(Member& m, double seconds) {
  uint64_t said = requests_of(*m.client) - m.requests;
  m.requests += said;
  if (!is_told_to_share(m)) {
    if (many_ && said == 0) tell(m, shm::kSharedQueue);
    return;
  }
  if (!many_ || double(said) >= kTalksPerSecond * seconds) return tell(m, shm::kDividedQueue);
  if (!m.has_lane || m.client->served_shared == m.over_shared) return;
  divided_.leave(*m.client);  // it has gone over, and its ring is empty
  m.has_lane = false;
}

// ---- what it chose ------------------------------------------------------------------------

Transport::Choice AutoQueues::choice() const {
  uint64_t sharing = uint64_t(std::count_if(members_.begin(), members_.end(), is_told_to_share));
  std::string all = std::to_string(members_.size()) + " clients";
  std::string why = many_ ? "for " + all + ", " + std::to_string(kMany) + " or more, those share a queue that are silent"
                          : all + " are few enough for a ring each";
  return {members_.size() - sharing, sharing, why};
}

}  // namespace sluice::monitor
