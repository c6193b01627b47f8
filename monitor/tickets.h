// Connections that are passed over AF_UNIX. What travels in the message is one end of a socket
// pair, the ticket; what it stands for is kept here. docs/protocol.md, "Passing a connection".
//
// A ticket lives until the last descriptor of its end is closed: until then a holder with no
// process stands for the connection in its slot. So nothing depends on who lives meanwhile.
#pragma once

#include <unordered_map>
#include <vector>

#include "monitor/core/coordinator_core.h"
#include "monitor/options.h"
#include "monitor/pair_regions.h"
#include "monitor/post.h"
#include "monitor/registrar.h"

namespace sluice::monitor {

class Tickets {
 public:
  Tickets(const Options& options, Events& events, Clients& clients, core::CoordinatorCore& core,
          Post& post, PairRegions& pairs);

  void pass(Client& client, InPacket& packet);
  void deposit(Client& client, InPacket& packet);
  void claim(Client& client, InPacket& packet);
  void carry(Client& client, InPacket& packet);
  // The other end says something, which a ticket never does, or is gone.
  void ended(uint32_t ticket);

  // The region of a pair has come, of which connections have been passed already.
  void complete(const PairKey& key, int fd);
  // `reader` is here: the passing regions of the pairs that it reads.
  void introduce(Client& reader);
  // A child of `parent` shares what the parent has now.
  void inherit(DomainId child, DomainId parent);
  void remove(DomainId dead);

  std::size_t in_flight() const { return tickets_.size(); }
  std::size_t regions() const { return regions_.size(); }
  uint64_t claimed() const { return claimed_; }
  // What those read who were passed connections: visit(descriptor, pair of the passing region, holders).
  template <class Visit>
  void for_each_opposite(Visit visit) const {
    for (const auto& [number, region] : regions_)
      if (region.opposite) visit(region.opposite.get(), region.key, region.holders);
  }

 private:
  struct Region {
    PairKey key;
    Descriptor writable, readable, bell, hearing;  // both ends of the bell
    Descriptor opposite;  // what the peer writes, once there is such a region
    uint32_t uid;
    std::vector<DomainId> holders;
    std::vector<DomainId> told;  // readers that have it
    uint32_t tickets = 0;
    bool is_own() const { return key.writer == key.reader; }
    bool over = false;  // to be let go after its last ticket
  };
  struct Ticket {
    Descriptor end;
    uint64_t cookie;
    uint32_t region, slot, generation;
    DomainId stand_in;
    uint32_t uid;
    DomainId watched_by;  // kNobody: nobody wants to hear that it was claimed
    bool claimed;
  };

  uint32_t uid_of(const Client& client) const;
  bool has_room(uint32_t uid) const;
  void give_back(uint32_t uid, uint32_t descriptors);
  int accept_region(const Client& client, const PairKey& key, const InPacket& packet) const;
  int open(Client& client, const PairKey& key, InPacket& packet, uint32_t& number);
  void tell_readers(uint32_t number, Region& region);
  void tell(DomainId reader, uint32_t generation, uint32_t number, Region& region);
  static PairKey opposite_of(const Region& region);
  bool is_deposited_well(const Client& client, const InPacket& packet) const;
  void leave_slot(const Region& region, const Ticket& ticket);
  void drop_if_over(uint32_t number);

  const Options& options_;
  Events& events_;
  Clients& clients_;
  core::CoordinatorCore& core_;
  Post& post_;
  PairRegions& pairs_;
  std::unordered_map<uint32_t, Region> regions_;
  std::unordered_map<uint32_t, Ticket> tickets_;
  std::unordered_map<uint64_t, uint32_t> by_cookie_;
  std::unordered_map<uint32_t, uint32_t> of_uid_;  // descriptors that are kept for them
  uint64_t claimed_ = 0;
  uint32_t next_region_;
  uint32_t next_ticket_ = 1;
};

}  // namespace sluice::monitor
