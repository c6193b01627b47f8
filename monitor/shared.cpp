#include "monitor/shared.h"

#include <errno.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "shm/region.h"
#include "shm/death_point.h"

namespace sluice::monitor {

// ---- who shares ---------------------------------------------------------------------------

int SharedQueues::queue_for(uint32_t uid) {
  auto& queue = queues_[uid];
  if (queue != nullptr) return queue->fd.get();
  queue = std::make_unique<Queue>();
  int result = create(*queue);
  if (result < 0) queues_.erase(uid);
  return result;
}

int SharedQueues::create(Queue& queue) {
  int fd = shm::create_region("sluice-requests", shm::kSharedQueueBytes);
  if (fd < 0) return fd == -1 ? -EPERM : fd;
  queue.fd = Descriptor(fd);
  void* base = shm::map_writable(fd, shm::kSharedQueueBytes);
  if (base == nullptr) return -ENOMEM;
  queue.region = {base, shm::kSharedQueueBytes};
  queue.region->magic = shm::kMagic;
  queue.region->version = shm::kProtocolVersion;
  queue.consumer = shm::SharedConsumer(queue.region.get());
  // All its clients write here: only the size is sealed.
  int sealed = shm::seal_region(fd, shm::Protect::kNone);
  return sealed < 0 ? -ENOMEM : fd;
}

uint32_t SharedQueues::uid_of(const Client& client) const {
  return core_.domain(client.domain).identity.uid;
}

void SharedQueues::join(Client& client) {
  auto queue = queues_.find(uid_of(client));
  if (queue != queues_.end()) queue->second->producers.push_back(&client);
}

void SharedQueues::leave(Client& client) {
  auto found = queues_.find(uid_of(client));
  if (found == queues_.end()) return;
  std::erase(found->second->producers, &client);
  if (found->second->producers.empty()) queues_.erase(found);
}

Transport::Choice SharedQueues::choice() const {
  Choice c{.why = "as asked for"};
  for (auto& [uid, queue] : queues_) c.shared += queue->producers.size();
  return c;
}

// ---- serving ------------------------------------------------------------------------------

bool SharedQueues::poll() {
  bool any = false;
  for (auto& [uid, queue] : queues_) any |= serve(uid, *queue);
  return any;
}

bool SharedQueues::has_requests() {
  for (auto& [uid, queue] : queues_) {
    if (queue->broken || core_.is_delayed(uid)) continue;
    if (queue->consumer.has_next() || is_abandoned(*queue)) return true;
  }
  return false;
}

bool SharedQueues::serve(uint32_t uid, Queue& queue) {
  check(queue);
  uint32_t n = 0;
  while (n < shm::kSharedMessages && !queue.broken && !core_.is_delayed(uid) && serve_next(uid, queue)) ++n;
  return n != 0;
}

bool SharedQueues::serve_next(uint32_t uid, Queue& queue) {
  shm::Message request;
  DomainId sender;
  bool abandoned = false;
  if (!queue.consumer.try_pop(request, sender)) {
    if (!queue.consumer.claimed() || ++queue.holds % kPatientLooks != 0 || !is_abandoned(queue)) return false;
    // Its producer may have published, and dropped its claim, since the look above.
    abandoned = !queue.consumer.try_pop(request, sender);
  }
  queue.holds = 0;
  if (abandoned)
    (void)queue.consumer.skip();  // or it is published by now, and comes next
  else
    handle(uid, sender, request);
  return true;
}

// Whether the next ticket was claimed and nobody alive can publish it any more.
bool SharedQueues::is_abandoned(const Queue& queue) {
  if (!queue.consumer.claimed()) return false;
  return std::none_of(queue.producers.begin(), queue.producers.end(), [&](const Client* c) {
    return queue.consumer.covers(c->region->claim.load(std::memory_order_acquire));
  });
}

// Honest producers claim at most kMostAtOnce tickets each beyond a full queue; but one that gave up
// waiting for room leaves its tickets behind, so leave some slack.
void SharedQueues::check(Queue& queue) {
  uint64_t slack = 65536 + queue.producers.size() * shm::SharedProducer::kMostAtOnce;
  if (queue.broken || queue.consumer.claimed_count() <= shm::kSharedMessages + slack) return;
  queue.broken = true;
  spdlog::warn("a shared request queue was written to by something that is no client: closed");
}

void SharedQueues::handle(uint32_t uid, DomainId sender, const shm::Message& request) {
  Client* client = clients_.by_domain(sender);
  if (client == nullptr || client->doomed || client->stage != Stage::kWelcomed) return;
  if (uid_of(*client) != uid) return;
  ++served_;
  ++client->served_shared;
  shm::DeathPoint at_message("request taken", request.type);
  core_.handle(sender, request);
}

}  // namespace sluice::monitor
