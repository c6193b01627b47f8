// Deaths. A client dies when its socket ends, its process ends, or it is dropped. They are buried
// at the end of a round, when nobody holds a reference any more.
#pragma once

#include "monitor/core/coordinator_core.h"
#include "monitor/events.h"
#include "monitor/ledger.h"
#include "monitor/pair_regions.h"
#include "monitor/post.h"
#include "monitor/tickets.h"
#include "monitor/transport.h"
#include "monitor/watcher.h"

namespace sluice::monitor {

class Reaper {
 public:
  Reaper(Events& events, Clients& clients, core::CoordinatorCore& core, PairRegions& pairs,
         Tickets& tickets, Watcher& watcher, Ledger& ledger)
      : events_(events),
        clients_(clients),
        core_(core),
        pairs_(pairs),
        tickets_(tickets),
        watcher_(watcher),
        ledger_(ledger) {}
  void serve(Transport& transport) { transport_ = &transport; }

  // Returns whether anybody died.
  bool bury();

 private:
  void bury(Client& client);

  Events& events_;
  Clients& clients_;
  core::CoordinatorCore& core_;
  PairRegions& pairs_;
  Tickets& tickets_;
  Watcher& watcher_;
  Ledger& ledger_;
  Transport* transport_ = nullptr;
};

}  // namespace sluice::monitor
