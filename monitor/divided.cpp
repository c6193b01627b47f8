#include "monitor/divided.h"

namespace sluice::monitor {

void DividedQueues::join(Client& client) {
  lanes_.push_back({&client.region->requests.tail, 0, &client});
}

void DividedQueues::leave(Client& client) {
  std::erase_if(lanes_, [&](const Lane& lane) { return lane.client == &client; });
}

bool DividedQueues::poll() {
  bool any = false;
  for (Lane& lane : lanes_) {
    if (!is_servable(lane)) continue;
    serve(lane);
    post_.deliver(*lane.client);
    any = true;
  }
  return any;
}

bool DividedQueues::has_requests() {
  for (const Lane& lane : lanes_)
    if (is_servable(lane)) return true;
  return false;
}

bool DividedQueues::is_servable(const Lane& lane) {
  // Relaxed: a hint, try_pop looks again with acquire.
  if (lane.tail->load(std::memory_order_relaxed) == lane.taken) return false;
  // A client that does not take its replies gets no further ones.
  return !lane.client->doomed && lane.client->late_replies.empty();
}

void DividedQueues::serve(Lane& lane) {
  Client& client = *lane.client;
  uint64_t waiting = lane.tail->load(std::memory_order_relaxed) - lane.taken;  // try_pop acquires
  if (waiting > shm::kMessages) return clients_.doom(client);
  shm::Message request;
  for (uint32_t n = 0; n < shm::kMessages && client.late_replies.empty(); ++n) {
    if (!client.requests.try_pop(request)) return;
    ++lane.taken;
    ++served_;
    core_.handle(client.domain, request);
  }
}

}  // namespace sluice::monitor
