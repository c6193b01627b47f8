// Who may listen where: what the kernel enforces at bind(2).
#pragma once

#include "monitor/core/address.h"
#include "monitor/core/domain_table.h"

namespace sluice::monitor {

class ListenPolicy {
 public:
  ListenPolicy();
  bool allows(const core::Identity& who, const core::Address& address, uint16_t port) const;

 private:
  uint16_t first_unprivileged_;
};

}  // namespace sluice::monitor
