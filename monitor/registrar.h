// Registration: hello, reserve, the regions of pairs.
#pragma once

#include "monitor/core/coordinator_core.h"
#include "monitor/directory.h"
#include "monitor/options.h"
#include "monitor/pair_regions.h"
#include "monitor/post.h"
#include "monitor/transport.h"

namespace sluice::monitor {

// A packet as it arrived. Descriptors that nobody takes are closed with it.
struct InPacket {
  shm::Packet header;
  std::vector<Descriptor> fds;
  int32_t pid = 0;  // SCM_CREDENTIALS, 0 if there were none
  uint32_t uid = 0, gid = 0;
  bool has_credentials = false;
  shm::NameBody body{};
  bool has_body = false;
};

class Tickets;

class Registrar {
 public:
  Registrar(const Options& options, Events& events, Clients& clients, core::CoordinatorCore& core,
            Post& post, DirectoryRegion& directory, PairRegions& pairs)
      : options_(options),
        events_(events),
        clients_(clients),
        core_(core),
        post_(post),
        directory_(directory),
        pairs_(pairs) {}
  void serve(Transport& transport, Tickets& tickets) {
    transport_ = &transport;
    tickets_ = &tickets;
  }

  void hello(Client& client, InPacket& packet);
  void reserve(Client& parent, InPacket& packet);
  void region(Client& client, InPacket& packet);
  void announce_pair(Client& client, const InPacket& packet);
  void sharers_bell(Client& client, const InPacket& packet);

 private:
  int check_hello(const Client& client, const InPacket& packet) const;
  core::Identity identity_of(const Client& client) const;
  int attach(Client& client, InPacket& packet);
  int create_replies(Client& client, Descriptor& fd);
  int register_domain(Client& client, DomainId wanted);
  int welcome(Client& client, InPacket& packet);
  void refuse(Client& client, int error);
  int accept_region(Client& client, Client* peer, const InPacket& packet);
  bool has_room_for_pair(const Client& peer) const;
  void pass_region(Client& to, const PairKey& key);
  // Those that are there for `reader` already when it comes.
  void pass_regions(Client& reader);

  const Options& options_;
  Events& events_;
  Clients& clients_;
  core::CoordinatorCore& core_;
  Post& post_;
  DirectoryRegion& directory_;
  PairRegions& pairs_;
  Transport* transport_ = nullptr;
  Tickets* tickets_ = nullptr;
};

}  // namespace sluice::monitor
