// How requests arrive: one queue per client (divided.h), or one per user (shared.h).
#pragma once

#include "monitor/clients.h"

namespace sluice::monitor {

class Transport {
 public:
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

  uint64_t served() const { return served_; }

 protected:
  uint64_t served_ = 0;
};

}  // namespace sluice::monitor
