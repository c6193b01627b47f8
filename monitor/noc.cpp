#include "monitor/noc.h"

#include <spdlog/spdlog.h>

namespace sluice::monitor {

void NocLane::give_up(Clients& clients, Client& client) {
  spdlog::warn("process {} has written into its queue what is no packet of its own: given up", client.pid);
  clients.doom(client);
}

}  // namespace sluice::monitor
