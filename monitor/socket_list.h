// What `sluice ss` shows, as a JSON array: both ends of every accelerated connection, and the
// listeners. Everything in the regions is what clients wrote, so every number is cut to its range.
#pragma once

#include <string>

#include "monitor/clients.h"
#include "monitor/core/coordinator_core.h"
#include "monitor/name_table.h"
#include "monitor/pair_regions.h"

namespace sluice::monitor {

class SocketList {
 public:
  SocketList(Clients& clients, core::CoordinatorCore& core, const PairRegions& pairs, const NameTable& names)
      : clients_(clients), core_(core), pairs_(pairs), names_(names) {}

  std::string json() const;

 private:
  Clients& clients_;
  core::CoordinatorCore& core_;
  const PairRegions& pairs_;
  const NameTable& names_;
};

}  // namespace sluice::monitor
