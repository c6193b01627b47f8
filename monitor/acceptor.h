// The listening socket.
#pragma once

#include <string>

#include "monitor/clients.h"
#include "monitor/events.h"

namespace sluice::monitor {

class Acceptor {
 public:
  Acceptor(Events& events, Clients& clients) : events_(events), clients_(clients) {}
  ~Acceptor() { close(); }

  // Binds `path`, replacing what a dead coordinator left there. Returns 0 or -errno.
  [[nodiscard]] int listen(const std::string& path);
  void close();
  void accept_some();

 private:
  void admit(Descriptor socket);
  void turn_away_one();

  Events& events_;
  Clients& clients_;
  std::string path_;
  Descriptor socket_;
  Descriptor spare_;  // given up for a moment when descriptors run out
};

}  // namespace sluice::monitor
