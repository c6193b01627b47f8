// How requests arrive: one queue per client (divided.h), one per user (shared.h), both (auto_queues.h), or packets of a
// network-on-chip (noc.h).
#pragma once

#include <string>

#include "monitor/clients.h"

namespace sluice::monitor {

class Transport {
 public:
  // Requests since the start, by the way on which they came.
  struct Served {
    uint64_t divided = 0, shared = 0, noc = 0;
  };
  // Clients by the queue that they are to use, and why.
  struct Choice {
    uint64_t divided = 0, shared = 0, noc = 0;
    std::string why;
  };
  virtual ~Transport() = default;

  // A descriptor to send with kWelcome to a client of `uid`, -1 for none, or -errno below that.
  virtual int queue_for(uint32_t uid) = 0;
  virtual void join(Client& client) = 0;
  virtual void leave(Client& client) = 0;

  // Serves what has arrived, a bounded number. Returns whether there was anything.
  virtual bool poll() = 0;
  // A look without serving; with the fence of Directory::fall_asleep before it, it cannot miss
  // a request whose sender saw the coordinator awake.
  virtual bool has_requests() = 0;

  virtual Served served() const = 0;
  virtual Choice choice() const = 0;
};

}  // namespace sluice::monitor
