// What the transport asks of a network-on-chip. Two models: a TILE-Gx (tilegx_noc.h), where each of these is an
// instruction or two, and nocsim (sim_noc.h), where each takes modelled cycles.
//
//     header(tile, queue)    what a packet to there begins with; opaque; its number of words is added
//     send(header, words...) a packet: so many register writes, without a loop; blocks while the network has no room
//     receive<q>()           the next word of this tile's queue q; blocks while there is none
//     available()            the queues that have words, as bits
//     count<q>()             how many words are in queue q
//     cycle()                the time
//     fence()                what this tile stored is seen by whoever receives what it sends after this
//
// A packet's words arrive together: nothing comes between them in their queue. Packets of one tile to another
// arrive in order, those of different tiles in any. Nothing is lost, so a queue that nobody empties stops the mesh
// behind it, strangers included: hence credits.h.
//
// send() is no fence, and neither is receive(): what is announced was stored and fenced before, and a model keeps
// the compiler from moving loads and stores over either.
//
// All of tilera/ that runs on a tile is freestanding: no allocation, exceptions, system calls, nor what needs a
// run-time library (division by a variable, atomics of 1, 2 or 16 bytes).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace sluice::tilera {

using Word = uint64_t;
// From 0, row by row; on a TILE-Gx the number of the CPU.
using TileId = uint32_t;
inline constexpr TileId kMostTiles = 128;  // the largest chip, the TILE-Gx72, has 9x8

// What the four queues are for. So that a look at available() tells what there is to do, and that a tile
// can wait for one kind and leave the others where they are.
enum Queue : uint32_t { kRequests, kReplies, kDoorbells, kControl };
inline constexpr uint32_t kQueues = 4;
constexpr Word bit_of(Queue queue) { return Word{1} << queue; }

template <class N>
concept Noc = requires(N& noc, const N& constant, TileId to, Queue queue, Word header, Word word) {
  { constant.here() } -> std::same_as<TileId>;
  { constant.header(to, queue) } -> std::same_as<Word>;
  noc.send(header, word);
  noc.send(header, word, word, word, word, word, word, word, word);
  { noc.template receive<kRequests>() } -> std::same_as<Word>;
  { noc.template receive<kControl>() } -> std::same_as<Word>;
  { noc.available() } -> std::same_as<Word>;
  { noc.template count<kRequests>() } -> std::same_as<uint32_t>;
  { noc.cycle() } -> std::same_as<uint64_t>;
  noc.fence();
};

// A model of time has to be told what it cannot see: instructions, and accesses to memory.
template <class N>
concept Modelled = Noc<N> && requires(N& noc, Word queues, uint32_t cycles, const void* at, std::size_t bytes) {
  { noc.await(queues) } -> std::same_as<Word>;
  noc.spend(cycles);
  noc.reads(at, bytes);
  noc.writes(at, bytes);
};

// Polls until one of these queues (bits) has words, and says which have. No interrupt is needed, and none is used.
template <Noc N>
Word await(N& noc, Word queues) {
  if constexpr (Modelled<N>) {
    return noc.await(queues);
  } else {
    for (;;)
      if (Word some = noc.available() & queues) return some;
  }
}

// Instructions between two uses of the network or of memory.
template <Noc N>
void spend(N& noc, uint32_t cycles) {
  if constexpr (Modelled<N>) noc.spend(cycles);
}
// Memory that other tiles use too is about to be read; was just written.
template <Noc N>
void reads(N& noc, const void* at, std::size_t bytes) {
  if constexpr (Modelled<N>) noc.reads(at, bytes);
}
template <Noc N>
void writes(N& noc, const void* at, std::size_t bytes) {
  if constexpr (Modelled<N>) noc.writes(at, bytes);
}

}  // namespace sluice::tilera
