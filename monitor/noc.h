// Packets of a network-on-chip, emulated: four bounded queues of words per client, with credits (shm/noc_queues.h).
// Requests are looked for as divided queues are; the tile of a coordinator would look at one register.
#pragma once

#include "monitor/lane_queues.h"

namespace sluice::monitor {

struct NocLane {
  using Place = shm::DemuxConsumer::Place;

  static void begin(Client& client) {
    client.noc = std::make_unique<shm::NocServer>(*client.region, *client.reply_region, client.domain);
  }
  static Place next(const Client& client) { return client.noc->next(); }
  static bool try_take(Clients& clients, Client& client, shm::Message& request) {
    shm::Taken taken = client.noc->try_take(request);
    if (taken == shm::Taken::kBroken) give_up(clients, client);
    return taken == shm::Taken::kPacket;
  }
  static uint64_t& served(Client& client) { return client.served_noc; }
  static void finish(Client& client) {
    if (client.noc->give_credits()) Post::knock(client);  // a thread may wait for one
  }

  static Transport::Served served_total(uint64_t n) { return {.noc = n}; }
  static Transport::Choice choice(uint64_t clients) { return {.noc = clients, .why = "as asked for"}; }

 private:
  // Nobody can say where its next packet begins.
  static void give_up(Clients& clients, Client& client);
};

using NocQueues = LaneQueues<NocLane>;

}  // namespace sluice::monitor
