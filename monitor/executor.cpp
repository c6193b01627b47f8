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

// Whoever was forked meanwhile has the same connections.
void Executor::unmet(DomainId to, DomainId peer, uint32_t generation) {
  clients_.for_each([&](Client& c) {
    if (c.domain == to || (c.domain != shm::kNobody && core_.descends(c.domain, to)))
      post_.send(c, make_packet(shm::kUnmet, peer, generation));
  });
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

std::string_view Executor::program_of(DomainId domain) {
  Client* client = clients_.by_domain(domain);
  return client != nullptr ? std::string_view(client->program) : std::string_view();
}

std::string_view Executor::name_of(core::ListenerId listener) {
  const Name* name = names_.by_listener(listener);
  return name != nullptr ? std::string_view(name->bytes) : std::string_view();
}

uint64_t Executor::connections_of(uint32_t uid) {
  uint64_t sum = 0;
  for_each_of(uid, [&](const Client& c) { sum += c.open_ends(shm::kOpen); });
  return sum;
}

uint64_t Executor::memory_of(uint32_t uid) {
  uint64_t sum = pairs_.bytes([&](DomainId writer) { return core_.domain(writer).identity.uid == uid; });
  for_each_of(uid, [&](const Client&) { sum += shm::kClientBytes + shm::kReplyBytes; });
  return sum;
}

}  // namespace sluice::monitor
