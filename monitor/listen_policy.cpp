#include "monitor/listen_policy.h"

#include "monitor/kernel_listeners.h"
#include "monitor/process.h"

namespace sluice::monitor {

ListenPolicy::ListenPolicy()
    : first_unprivileged_(
          uint16_t(number_in("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024))),
      netns_(network_namespace(getpid(), -1)) {}

bool ListenPolicy::allows(const core::Identity& who, const core::Address& address,
                          uint16_t port) const {
  if (who.uid == 0) return true;
  if (who.netns != netns_) return may_bind(who, port);
  std::optional<bool> listening = is_listening(who.uid, address, port);
  return listening.value_or(may_bind(who, port));
}

bool ListenPolicy::may_bind(const core::Identity& who, uint16_t port) const {
  return port >= first_unprivileged_ || may_bind_low_ports(who.pid);
}

}  // namespace sluice::monitor
