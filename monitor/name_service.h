// Who listens under a name of AF_UNIX, and who may connect there: asks the kernel, about
// descriptors that prove what their senders say.
#pragma once

#include <unordered_map>
#include <vector>

#include "monitor/name_table.h"
#include "monitor/registrar.h"

namespace sluice::monitor {

class NameService {
 public:
  NameService(Clients& clients, core::CoordinatorCore& core, Post& post, NameTable& names)
      : clients_(clients), core_(core), post_(post), names_(names) {}

  void listen(Client& client, InPacket& packet);
  void name(Client& client, InPacket& packet);
  void channel(Client& client, InPacket& packet);
  // After its hello: what was sent to it while it had not come back from the last coordinator.
  void came_back(Client& client);
  // What was kept for processes that will not.
  void forget_the_dead();

 private:
  int open_listener(const Client& client, InPacket& packet, core::ListenerId& id);
  int identify(const Client& client, InPacket& packet, Name& name);
  bool give(Client& from, Client& to, const shm::Packet& packet, int fd);
  bool keep_for(shm::DomainId expected, const shm::Packet& packet, int fd);
  core::ListenerId find(const Client& client, const InPacket& packet);
  uint64_t netns_of(const Client& client) const { return core_.domain(client.domain).identity.netns; }

  Clients& clients_;
  core::CoordinatorCore& core_;
  Post& post_;
  NameTable& names_;
  std::unordered_map<shm::DomainId, std::vector<OutPacket>> expected_;
};

}  // namespace sluice::monitor
