// Doorbells: "look at what I told you in memory". One word each, and at most one of each tile under way to each other.
//
//   who rings (a)                      who is rung (b)
//   A0 publish, in memory              B0 receive the doorbell
//   full fence                         B1 taken[a] = n
//   A1 read taken[a]: less than rung?  full fence
//   A2 no: send a doorbell             B2 look at what a published
//
// The fence of A does two things. What A0 stored is in memory before the doorbell is under way: the network does not
// order memory, so a store and then a send is no announcement. And with B's fence it excludes that
// A1 misses B1 while B2 misses A0: either A rings again, or B sees what A published.
//
// Ownership: taken is b's; how often a has rung is a's own. Both outlive the program, so that another one on the same tile
// goes on with them. Trust: a false `taken` makes a send more than one doorbell, to that tile only; a false
// sender makes b look in vain. Both are possible inside a hardwall, which is one user's.
#pragma once

#include "tilera/frame.h"
#include "tilera/packet_types.h"
#include "tilera/shared_memory.h"

namespace sluice::tilera {

template <Noc N>
class Doorbells {
 public:
  Doorbells(N& noc, SharedMemory& memory) : noc_(noc), memory_(memory) {}

  // After something was published for that tile (A0): it will look.
  void ring(TileId to) {
    noc_.fence();
    const Shared<uint32_t>& taken = memory_.of[to].taken[noc_.here()].bells;
    reads(noc_, &taken, sizeof taken);
    uint32_t& rung = memory_.of[noc_.here()].rung[to];
    if (taken.load(std::memory_order_relaxed) != rung) return;  // A1, ordered by the fence
    ++rung;
    noc_.send(noc_.header(to, kDoorbells), Frame{.type = kBell, .sender = noc_.here()}.packed());  // A2
  }

  // Who rang; waits for somebody. Look at what it published after this has returned.
  TileId await_ring() {
    for (;;) {
      const Frame f = Frame::unpacked(noc_.template receive<kDoorbells>());  // B0
      if (f.type != kBell || f.sender >= kMostTiles) continue;
      Shared<uint32_t>& taken = memory_.of[noc_.here()].taken[f.sender].bells;
      // B1, ordered by the fence; the load is of our own.
      taken.store(taken.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      writes(noc_, &taken, sizeof taken);
      noc_.fence();
      return f.sender;
    }
  }
  bool is_rung() { return (noc_.available() & bit_of(kDoorbells)) != 0; }

 private:
  N& noc_;
  SharedMemory& memory_;
};

}  // namespace sluice::tilera
