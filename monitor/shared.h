// Shared queues: one MPSC queue per user, written by all clients of that user. A request acts as
// the domain that it claims to come from, if that domain lives and is the same user's.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "monitor/core/coordinator_core.h"
#include "monitor/transport.h"
#include "shm/shared_queue.h"

namespace sluice::monitor {

class SharedQueues : public Transport {
 public:
  SharedQueues(core::CoordinatorCore& core, Clients& clients) : core_(core), clients_(clients) {}

  int queue_for(uint32_t uid) override;
  void join(Client& client) override;
  void leave(Client& client) override;
  bool poll() override;
  bool has_requests() override;
  Served served() const override { return {.shared = served_}; }
  Choice choice() const override;

 private:
  struct Queue {
    Descriptor fd;
    Mapping<shm::SharedQueueRegion> region;
    shm::SharedConsumer consumer;
    std::vector<Client*> producers;
    bool broken = false;  // somebody wrote what no honest producer writes
    uint32_t holds = 0;   // looks that found the next entry claimed, and not published
  };
  static int create(Queue& queue);
  uint32_t uid_of(const Client& client) const;
  bool serve(uint32_t uid, Queue& queue);
  bool serve_next(uint32_t uid, Queue& queue);
  // Claimed entries are nearly always published within a few looks; only then are all claims looked at.
  static constexpr uint32_t kPatientLooks = 64;
  static bool is_abandoned(const Queue& queue);
  static void check(Queue& queue);
  void handle(uint32_t uid, DomainId sender, const shm::Message& request);

  core::CoordinatorCore& core_;
  Clients& clients_;
  std::unordered_map<uint32_t, std::unique_ptr<Queue>> queues_;
  uint64_t served_ = 0;
};

}  // namespace sluice::monitor
