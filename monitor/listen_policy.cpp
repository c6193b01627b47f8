#include "monitor/listen_policy.h"

#include "monitor/process.h"

namespace sluice::monitor {

ListenPolicy::ListenPolicy()
    : first_unprivileged_(
          uint16_t(number_in("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024))) {}

bool ListenPolicy::allows(const core::Identity& who, const core::Address&, uint16_t port) const {
  return port >= first_unprivileged_ || who.uid == 0 || may_bind_low_ports(who.pid);
}

}  // namespace sluice::monitor
