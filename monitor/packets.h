// What arrives on the clients' sockets: receives packets and hands each to whom it concerns.
#pragma once

#include "monitor/name_service.h"
#include "monitor/registrar.h"
#include "monitor/text_service.h"
#include "monitor/tickets.h"

namespace sluice::monitor {

class Packets {
 public:
  Packets(core::CoordinatorCore& core, Clients& clients, Post& post, Registrar& registrar, Tickets& tickets, NameService& names,
          TextService& texts)
      : core_(core), clients_(clients), post_(post), registrar_(registrar), tickets_(tickets), name_service_(names), texts_(texts) {}

  // The socket has something, or takes something again, or has ended.
  void serve(Client& client, uint32_t events);
  // Those go on whose user had asked too much and has waited long enough.
  void resume();
  bool has_paused() const { return !paused_.empty(); }

 private:
  enum class Received { kPacket, kNothing, kEnd, kImpossible };  // the last: for want of memory here
  static Received receive(const Client& client, InPacket& packet);
  void receive_some(Client& client);
  void dispatch(Client& client, InPacket& packet);

  uint32_t uid_of(const Client& client) const;

  core::CoordinatorCore& core_;
  Clients& clients_;
  Post& post_;
  Registrar& registrar_;
  Tickets& tickets_;
  NameService& name_service_;
  TextService& texts_;
  std::vector<uint32_t> paused_;  // serials
};

}  // namespace sluice::monitor
