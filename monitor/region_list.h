// What `sluice audit` holds against /proc: which memory is whose, as the coordinator knows it.
#pragma once

#include <string>

#include "monitor/core/coordinator_core.h"
#include "monitor/directory.h"
#include "monitor/options.h"
#include "monitor/pair_regions.h"
#include "monitor/tickets.h"

namespace sluice::monitor {

class RegionList {
 public:
  RegionList(const Options& options, const core::CoordinatorCore& core, const DirectoryRegion& directory,
             const PairRegions& pairs, const Tickets& tickets)
      : options_(options), core_(core), directory_(directory), pairs_(pairs), tickets_(tickets) {}

  // {"pid", "protect", "directory": inode, "domains": [{"domain", "pid" (0: not known), "parent"}],
  //  "pairs": [{"inode", "writers": [domain], "readers": [domain]}]}; a region may be there twice, then both hold.
  std::string json() const;

 private:
  const Options& options_;
  const core::CoordinatorCore& core_;
  const DirectoryRegion& directory_;
  const PairRegions& pairs_;
  const Tickets& tickets_;
};

}  // namespace sluice::monitor
