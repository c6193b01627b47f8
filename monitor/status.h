// What `sluice status` shows, as JSON. The names of its keys are an interface.
#pragma once

#include <chrono>
#include <string>

#include "monitor/core/coordinator_core.h"
#include "monitor/ledger.h"
#include "monitor/options.h"
#include "monitor/pair_regions.h"
#include "monitor/policing.h"
#include "monitor/post.h"
#include "monitor/tickets.h"
#include "monitor/transport.h"

namespace sluice::monitor {

class Status {
 public:
  Status(const Options& options, Clients& clients, core::CoordinatorCore& core, const Post& post,
         const PairRegions& pairs, const Tickets& tickets, const Ledger& ledger,
         const Policing& policing)
      : options_(options),
        clients_(clients),
        core_(core),
        post_(post),
        pairs_(pairs),
        tickets_(tickets),
        ledger_(ledger),
        policing_(policing) {}
  void serve(const Transport& transport) { transport_ = &transport; }

  // `all`: what the rules are, too, which is nobody else's business.
  std::string json(bool all) const;

 private:
  uint64_t total(uint32_t counter) const;
  uint64_t open_now(shm::Counter counter) const;

  const Options& options_;
  Clients& clients_;
  core::CoordinatorCore& core_;
  const Post& post_;
  const PairRegions& pairs_;
  const Tickets& tickets_;
  const Ledger& ledger_;
  const Policing& policing_;
  const Transport* transport_ = nullptr;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace sluice::monitor
