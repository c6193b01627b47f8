// Both kinds of queue at once, and each client is told which one to take: who talks much has a ring of its own,
// who is silent shares the queue of its user, which costs the coordinator one look, however many they are.
//
//   few clients            a ring for each
//   many, this one talks   a ring of its own, as long as few do
//   many, this one silent  the shared queue; its ring is hardly looked at
//
// It is looked at all the same, now and then and before each sleep: whoever had read the word before it changed
// may still use its ring, and nothing but its own word says which one it uses.
//
// Who talks is looked at again every kReviewMs. The thresholds below are from docs/queues.md, "Clients that speak in
// turn". A client goes over with its next request, and
// only when all that it said before has been served: shm/request_queues.h.
#pragma once

#include <string>
#include <vector>

#include "monitor/divided.h"
#include "monitor/shared.h"

namespace sluice::monitor {

class AutoQueues : public Transport {
 public:
  AutoQueues(core::CoordinatorCore& core, Clients& clients, Post& post) : divided_(core, clients, post), shared_(core, clients) {}

  int queue_for(uint32_t uid) override { return shared_.queue_for(uid); }
  void join(Client& client) override;
  void leave(Client& client) override;
  bool poll() override;
  bool has_requests() override;
  Served served() const override { return {.divided = divided_.served().divided, .shared = shared_.served().shared}; }
  Choice choice() const override;

 private:
  struct Member {
    Client* client;
    bool shares;        // as it was told
    uint64_t requests;  // when it was last reviewed
  };
  // So many clients and more count as many; they are few again at half of that.
  static constexpr std::size_t kMany = 128;
  static constexpr int64_t kReviewMs = 100;
  static constexpr uint32_t kLooksPerClock = 256;
  // Requests per second from which on a silent client talks.
  static constexpr double kTalksPerSecond = 1000;
  // So many of many have rings of their own: those that are looked at each time.
  static constexpr std::size_t kMostTalkers = DividedQueues::kFewBusy;

  void be_many(bool many);
  void tell(Member& m, shm::RequestQueue queue);
  void review();
  void review(Member& m, double seconds);

  DividedQueues divided_;
  SharedQueues shared_;
  std::vector<Member> members_;
  std::size_t apart_ = 0;  // members with a ring of their own
  bool many_ = false;
  uint32_t looks_ = 0;
  int64_t reviewed_ms_ = 0;
};

}  // namespace sluice::monitor
