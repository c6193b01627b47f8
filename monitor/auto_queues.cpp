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
  divided_.join(client);
  shared_.join(client);
  members_.push_back({&client, true, requests_of(client)});
  if (members_.size() >= kMany) be_many(true);
  tell(members_.back(), many_ ? shm::kSharedQueue : shm::kDividedQueue);
}

void AutoQueues::leave(Client& client) {
  divided_.leave(client);
  shared_.leave(client);
  auto found = std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.client == &client; });
  if (found == members_.end()) return;
  apart_ -= !found->shares;
  *found = members_.back();
  members_.pop_back();
}

void AutoQueues::tell(Member& m, shm::RequestQueue queue) {
  apart_ += m.shares;
  m.shares = queue == shm::kSharedQueue;
  apart_ -= m.shares;
  m.client->reply_region->queue.store(queue, std::memory_order_release);
  if (!m.shares) divided_.expect(*m.client);
}

void AutoQueues::be_many(bool many) {
  many_ = many;
  divided_.look_seldom(many);
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
  if (members_.size() >= kMany) be_many(true);
  if (members_.size() <= kMany / 2) be_many(false);
  for (Member& m : members_) review(m, seconds);
}

void AutoQueues::review(Member& m, double seconds) {
  uint64_t said = requests_of(*m.client) - m.requests;
  m.requests += said;
  bool talks = double(said) >= kTalksPerSecond * seconds;
  bool is_one_too_many = many_ && !m.shares && apart_ > kMostTalkers;
  if (m.shares ? !many_ || (talks && apart_ < kMostTalkers) : (many_ && said == 0) || is_one_too_many)
    tell(m, m.shares ? shm::kDividedQueue : shm::kSharedQueue);
}

// ---- what it chose ------------------------------------------------------------------------

Transport::Choice AutoQueues::choice() const {
  uint64_t sharing = uint64_t(std::count_if(members_.begin(), members_.end(), [](const Member& m) { return m.shares; }));
  std::string all = std::to_string(members_.size()) + " clients";
  std::string why = many_ ? "for " + all + ", " + std::to_string(kMany) + " or more, those share a queue that are silent"
                          : all + " are few enough for a ring each";
  return {.divided = members_.size() - sharing, .shared = sharing, .why = why};
}

}  // namespace sluice::monitor
