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

bool Executor::is_waiting(DomainId domain) {
  Client* client = clients_.by_domain(domain);
  // Relaxed: a preference, not a promise.
  return client != nullptr && client->region &&
         client->region->accepting.load(std::memory_order_relaxed) == 1;
}

bool Executor::may_listen(DomainId domain, const core::Address& address, uint16_t port) {
  return policy_.allows(core_.domain(domain).identity, address, port);
}

}  // namespace sluice::monitor
