#include "monitor/clients.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>

namespace sluice::monitor {
namespace {

constexpr std::size_t kMostGroups = 1024;

}  // namespace

std::vector<uint32_t> groups_of(const Client& client) {
  if (client.groups.has_value()) return *client.groups;
  std::vector<uint32_t> groups(kMostGroups);
  socklen_t bytes = kMostGroups * sizeof(gid_t);
  if (getsockopt(client.socket.get(), SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) != 0) bytes = 0;
  groups.resize(bytes / sizeof(gid_t));
  return groups;
}

void Client::keep(const shm::Packet& packet, int fd, uint32_t from) {
  kept.push_back({packet, {}, {}, from});
  kept.back().fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

uint64_t Client::open_ends(shm::Counter counter) const {
  if (!region) return 0;
  auto n = int64_t(region->counters[counter].load(std::memory_order_relaxed));  // only a number
  return uint64_t(std::clamp<int64_t>(n, 0, int64_t{1} << 32));
}

Client& Clients::add(Descriptor socket, uint32_t uid, int32_t pid) {
  while (by_serial_.count(next_serial_) != 0) ++next_serial_;
  auto client = std::make_unique<Client>();
  client->serial = next_serial_++;
  client->socket = std::move(socket);
  client->uid = uid;
  client->pid = pid;
  ++connections_of_[uid];
  return *(by_serial_[client->serial] = std::move(client));
}

void Clients::remove(Client& client) {
  for (const OutPacket& p : client.outbox) forget_waiting(p);
  for (const OutPacket& p : client.kept) forget_waiting(p);
  if (client.domain != shm::kNobody) by_domain_[client.domain] = nullptr;
  auto count = connections_of_.find(client.uid);
  if (--count->second == 0) connections_of_.erase(count);
  by_serial_.erase(client.serial);
}

void Clients::forget_waiting(const OutPacket& packet) {
  if (Client* from = packet.from != 0 ? by_serial(packet.from) : nullptr) from->fds_elsewhere -= packet.fds.size();
}

Client* Clients::by_serial(uint32_t serial) {
  auto found = by_serial_.find(serial);
  return found == by_serial_.end() ? nullptr : found->second.get();
}

Client* Clients::by_domain(DomainId domain) {
  return domain < by_domain_.size() ? by_domain_[domain] : nullptr;
}

void Clients::enter_domain(Client& client, DomainId domain) {
  client.domain = domain;
  by_domain_[domain] = &client;
}

void Clients::doom(Client& client) {
  if (client.doomed) return;
  client.doomed = true;
  doomed_.push_back(client.serial);
}

void Clients::drop(Client& client) {
  if (client.doomed) return;
  client.lives = client.stage == Stage::kWelcomed;
  doom(client);
}

Client* Clients::next_doomed() {
  if (doomed_.empty()) return nullptr;
  uint32_t serial = doomed_.back();
  doomed_.pop_back();
  return by_serial(serial);
}

// A client needs four descriptors and two for each peer; no user may take them all.
bool Clients::has_room_for(uint32_t uid) const {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  auto found = connections_of_.find(uid);
  return found == connections_of_.end() || found->second < limit.rlim_cur / 5;
}

}  // namespace sluice::monitor
