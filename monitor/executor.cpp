#include "monitor/executor.h"

namespace sluice::monitor {

void Executor::reply(DomainId to, const shm::Message& message) {
  if (Client* client = clients_.by_domain(to)) post_.reply(*client, message);
}

void Executor::revoke(DomainId to, core::ListenerId listener) {
  if (Client* client = clients_.by_domain(to))
    post_.send(*client, make_packet(shm::kRevoke, shm::kCoordinator, listener));
}

void Executor::gone(DomainId to, DomainId dead) {
  if (Client* client = clients_.by_domain(to))
    post_.send(*client, make_packet(shm::kPeerGone, dead));
}

void Executor::ring(DomainId domain) {
  if (Client* client = clients_.by_domain(domain)) post_.ring(*client);
}

void Executor::reconsider(DomainId to, core::ListenerId listener) {
  if (Client* client = clients_.by_domain(to))
    post_.send(*client, make_packet(shm::kReconsider, shm::kCoordinator, listener));
}

uint32_t Executor::sleeps_at(DomainId domain, core::ListenerId listener) {
  Client* client = clients_.by_domain(domain);
  if (client == nullptr || !client->region) return 0;
  // Relaxed: where it matters, set_waited's fence came before.
  uint32_t at = client->region->accepting.load(std::memory_order_relaxed);
  if (at != listener && at != shm::kEveryListener) return 0;
  return client->region->sleeping.load(std::memory_order_relaxed) | 1;  // likewise
}

bool Executor::may_listen(DomainId domain, const core::Address& address, uint16_t port) {
  return policy_.allows(core_.domain(domain).identity, address, port);
}

}  // namespace sluice::monitor
