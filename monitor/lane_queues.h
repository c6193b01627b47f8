// One queue per client, in its own region: nobody can disturb another. What the queues are made of, a Lane says:
// divided.h, noc.h.
//
// A look at all of a thousand rings costs microseconds, and nobody but a client may write into its memory, so
// there can be no word in which clients say that they have something. Instead the lanes are in two groups:
//
//   busy lanes: had a request not long ago,    looked at each time
//   or are few
//   quiet lanes: the rest                      a few each time, in turn; all if no lane is busy
//
// An idle client costs a busy one nearly nothing, and waits itself for its first request until its turn comes:
// for quiet/kQuietAtOnce looks at the most.
#pragma once

#include <vector>

#include "monitor/core/coordinator_core.h"
#include "monitor/post.h"
#include "monitor/transport.h"

namespace sluice::monitor {

// A Lane has, for one client's queue:
//   Place                              where the next request will be; is_filled()
//   begin(client), next(client)        before all else; its Place
//   try_take(clients, client, request) whether there was one
//   served(client)                     the count of its requests
//   finish(client)                     after some were served
//   served_total(n), choice(n)         n requests, n clients, as Transport has them
template <class Lane>
class LaneQueues : public Transport {
 public:
  static constexpr std::size_t kFewBusy = 32;

  LaneQueues(core::CoordinatorCore& core, Clients& clients, Post& post) : core_(core), clients_(clients), post_(post) {}

  int queue_for(uint32_t) override { return -1; }
  void join(Client& client) override;
  void leave(Client& client) override;
  // This one is about to talk. Else: most are silent, and say what they have to say elsewhere.
  void expect(const Client& client);
  void look_seldom(bool seldom) { seldom_ = seldom; }
  bool poll() override;
  bool has_requests() override;
  Served served() const override { return Lane::served_total(served_); }
  Choice choice() const override { return Lane::choice(lanes_.size()); }

 private:
  // Side by side, so that a sweep over idle clients is one independent load for each.
  struct Entry {
    typename Lane::Place next;
    Client* client;
    uint64_t last_look;  // that found something
  };
  // So many looks after its last request a lane is quiet, if more than the few are busy. Without them, those
  // that speak in turn, each once in a while, would be quiet whenever they speak: of 1,000 clients 8 that do
  // had their answers after 7 us instead of 0.7.
  static constexpr uint64_t kBusyLooks = 256;
  // Quiet lanes per look: after one that found something, and after one that did not.
  static constexpr std::size_t kQuietAtOnce = 2, kQuietMeanwhile = 16;
  // One more for so many requests that were served: their turn comes by the time that passes, not by looks.
  static constexpr uint64_t kRequestsPerQuiet = 8;
  // With look_seldom() one quiet lane for so many looks while there is work.
  static constexpr uint64_t kLooksPerQuiet = 16;

  bool is_servable(const Entry& lane);
  bool is_delayed(const Client& client) { return core_.needs_time() && core_.is_delayed(core_.domain(client.domain).identity.uid); }
  std::size_t quiet_at_once(bool any, uint64_t served) const;
  bool look_at(Entry& lane);
  bool look_at_busy();
  bool look_at_quiet(std::size_t count);
  void serve(Entry& lane);

  core::CoordinatorCore& core_;
  Clients& clients_;
  Post& post_;
  std::vector<Entry> lanes_;  // the busy ones first
  std::size_t busy_ = 0;
  std::size_t turn_ = 0;     // of the quiet ones
  uint64_t looks_ = 0;
  uint64_t served_ = 0;
  bool seldom_ = false;
};

}  // namespace sluice::monitor
