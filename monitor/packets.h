// What arrives on the clients' sockets: receives packets and hands each to whom it concerns.
#pragma once

#include "monitor/name_service.h"
#include "monitor/registrar.h"
#include "monitor/text_service.h"
#include "monitor/tickets.h"

namespace sluice::monitor {

class Packets {
 public:
  Packets(Clients& clients, Post& post, Registrar& registrar, Tickets& tickets, NameService& names, TextService& texts)
      : clients_(clients), post_(post), registrar_(registrar), tickets_(tickets), name_service_(names), texts_(texts) {}

  // The socket has something, or takes something again, or has ended.
  void serve(Client& client, uint32_t events);

 private:
  enum class Received { kPacket, kNothing, kEnd };
  static Received receive(const Client& client, InPacket& packet);
  void receive_some(Client& client);
  void dispatch(Client& client, InPacket& packet);

  Clients& clients_;
  Post& post_;
  Registrar& registrar_;
  Tickets& tickets_;
  NameService& name_service_;
  TextService& texts_;
};

}  // namespace sluice::monitor
