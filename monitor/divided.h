// Divided queues: one SPSC ring per client (shm/message_ring.h).
#pragma once

#include "monitor/lane_queues.h"

namespace sluice::monitor {

struct DividedLane {
  using Place = shm::MessageConsumer::Place;

  static void begin(Client&) {}
  static Place next(const Client& client) { return client.requests.next(); }
  static bool try_take(Clients&, Client& client, shm::Message& request) { return client.requests.try_pop(request); }
  static uint64_t& served(Client& client) { return client.served_divided; }
  static void finish(Client&) {}

  static Transport::Served served_total(uint64_t n) { return {.divided = n}; }
  static Transport::Choice choice(uint64_t clients) { return {.divided = clients, .why = "as asked for"}; }
};

using DividedQueues = LaneQueues<DividedLane>;

}  // namespace sluice::monitor
