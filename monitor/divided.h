// Divided queues: one SPSC ring per client, in its own region. Nobody can disturb another.
#pragma once

#include <vector>

#include "monitor/core/coordinator_core.h"
#include "monitor/post.h"
#include "monitor/transport.h"

namespace sluice::monitor {

class DividedQueues : public Transport {
 public:
  DividedQueues(core::CoordinatorCore& core, Clients& clients, Post& post) : core_(core), clients_(clients), post_(post) {}

  int queue_for(uint32_t) override { return -1; }
  void join(Client& client) override;
  void leave(Client& client) override;
  bool poll() override;
  bool has_requests() override;

 private:
  // Side by side, so that a sweep over idle clients is one independent load for each.
  struct Lane {
    const shm::Shared<uint64_t>* tail;
    uint64_t taken;
    Client* client;
  };
  static bool is_servable(const Lane& lane);
  void serve(Lane& lane);

  core::CoordinatorCore& core_;
  Clients& clients_;
  Post& post_;
  std::vector<Lane> lanes_;
};

}  // namespace sluice::monitor
