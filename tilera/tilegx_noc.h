// A tile of a TILE-Gx as a Noc: its user dynamic network (UDN), through registers.
//
// Nothing here has run on the hardware, only been compiled for it: tilera/build-tilegx looks at what comes out.
//
// Order. The compiler's network builtins order nothing in memory, and the compiler moves loads and stores across them.
// So every packet and every word received stands between two barriers for the compiler. For other tiles to see
// a store, fence() has to come between it and the packet that tells of it: a store and a send can go off in one cycle.
//
// What is known of the hardware: <tmc/udn.h> (the header's length counts the words after it; no tag follows), Linux'
// arch/tile/kernel/hardwall.c (bit q of UDN_DATA_AVAIL is queue q), binutils' opcodes/tilegx-opc.c (numbers of the special registers).
#pragma once

#include <atomic>

#include "tilera/noc.h"

namespace sluice::tilera {

class TileGxNoc {
 public:
  // On tile `here`, one of `tiles`. header_of(tile, queue): what packets to there begin with, their length being 0;
  // with Tilera's library tmc_header() (tilegx/tmc.h).
  template <class HeaderOf>
  void init(TileId here, uint32_t tiles, HeaderOf header_of) {
    here_ = here;
    for (TileId to = 0; to < tiles && to < kMostTiles; ++to)
      for (uint32_t queue = 0; queue < kQueues; ++queue) headers_[to][queue] = header_of(to, Queue(queue));
  }

  TileId here() const { return here_; }
  Word header(TileId to, Queue queue) const { return headers_[to % kMostTiles][queue % kQueues]; }

  template <class... Words>
  void send(Word header, Words... words) {
    constexpr std::size_t kMostWords = 126;  // <tmc/udn.h>
    static_assert(sizeof...(words) > 0 && sizeof...(words) <= kMostWords);
    keep_order();
    __tile_udn_send(header + sizeof...(words));
    (__tile_udn_send(words), ...);
    keep_order();
  }

  template <Queue kQueue>
  Word receive() {
    keep_order();
    Word word;
    if constexpr (kQueue == 0) word = __tile_udn0_receive();
    if constexpr (kQueue == 1) word = __tile_udn1_receive();
    if constexpr (kQueue == 2) word = __tile_udn2_receive();
    if constexpr (kQueue == 3) word = __tile_udn3_receive();
    keep_order();
    return word;
  }

  Word available() const { return __insn_mfspr(kDataAvailable) & ((Word{1} << kQueues) - 1); }
  template <Queue kQueue>
  uint32_t count() const {
    return uint32_t(__insn_mfspr(kDemuxCount0 + kQueue));
  }
  uint64_t cycle() const { return __insn_mfspr(kCycle); }
  // The instruction is mf, which waits until all stores are visible.
  void fence() { std::atomic_thread_fence(std::memory_order_release); }

 private:
  static constexpr int kDemuxCount0 = 0x0b05, kDataAvailable = 0x0b80, kCycle = 0x2781;

  static void keep_order() { asm volatile("" ::: "memory"); }

  TileId here_ = 0;
  Word headers_[kMostTiles][kQueues] = {};
};
static_assert(Noc<TileGxNoc>);

}  // namespace sluice::tilera
