// Who may listen where: what the kernel enforces at bind(2).
#pragma once

#include "monitor/core/address.h"
#include "monitor/core/domain_table.h"

namespace sluice::monitor {

// A client that says it listens gets the connections that others make there, so it has to be
// true: the kernel must have such a listener of the same user.
class ListenPolicy {
 public:
  ListenPolicy();
  bool allows(const core::Identity& who, const core::Address& address, uint16_t port) const;

 private:
  bool may_bind(const core::Identity& who, uint16_t port) const;

  uint16_t first_unprivileged_;
  uint64_t netns_;  // ours
};

}  // namespace sluice::monitor
