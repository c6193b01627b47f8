#include "monitor/listen_policy.h"

#include <linux/capability.h>
#include <unistd.h>

#include "monitor/kernel_listeners.h"
#include "monitor/process.h"

namespace sluice::monitor {

ListenPolicy::ListenPolicy()
    : first_unprivileged_(
          uint16_t(number_in("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024))),
      netns_(network_namespace(getpid(), -1)) {}

bool ListenPolicy::allows(const core::Identity& who, const core::Address& address,
                          uint16_t port) const {
  std::optional<bool> listening = who.netns == netns_ ? is_listening(who.uid, address, port)
                                                      : is_listening_in(who.netns, who.pid, who.uid, address, port);
  if (listening.has_value()) return *listening;
  // The kernel does not tell us: a user can only mislead himself, and root nobody.
  return (who.uid == 0 || who.uid == geteuid()) && may_bind(who, port);
}

bool ListenPolicy::may_bind(const core::Identity& who, uint16_t port) const {
  return port >= first_unprivileged_ || has_capability(who.pid, CAP_NET_BIND_SERVICE);
}

}  // namespace sluice::monitor
