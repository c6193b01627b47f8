// A relay: passes the requests of its clients on to the root, where they would not all have room at once.
//
// It takes a request out of its queue only when it has a credit at the root, so what it has taken it can always
// pass on. The frame keeps its sender; the root answers that one directly, and gives the credit back here.
#pragma once

#include "tilera/code_costs.h"
#include "tilera/credits.h"
#include "tilera/frame.h"

namespace sluice::tilera {

template <Noc N>
class RelayTile {
 public:
  RelayTile(N& noc, const Plan& plan)
      : noc_(noc), plan_(plan), root_(noc.header(plan.root, kRequests)), credits_(plan.forwards) {}

  [[noreturn]] void run() {
    for (;;) serve();
  }
  // Waits until there is something that it can do, and does it.
  void serve() {
    const Word wanted = credits_ != 0 ? bit_of(kRequests) | bit_of(kControl) : bit_of(kControl);
    const Word queues = await(noc_, wanted);
    if (queues & bit_of(kControl)) take_credits();
    if (queues & bit_of(kRequests) && credits_ != 0) pass_on();
  }
  uint64_t strangers() const { return strangers_; }

 private:
  void take_credits() {
    const Frame f = Frame::unpacked(noc_.template receive<kControl>());
    if (f.type == kCredits) credits_ += f.id;
  }
  void pass_on() {
    const Frame f = Frame::unpacked(noc_.template receive<kRequests>());
    const Message m = receive_rest<kRequests>(noc_, f);
    if (f.sender >= kMostTiles || plan_.via[f.sender] != noc_.here()) {
      ++strangers_;
      return;
    }
    spend(noc_, kCyclesToRelay);
    --credits_;
    send_framed(noc_, root_, f, m);
  }

  N& noc_;
  const Plan& plan_;
  const Word root_;
  uint32_t credits_;
  uint64_t strangers_ = 0;
};

}  // namespace sluice::tilera
