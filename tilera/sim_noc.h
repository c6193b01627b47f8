// The network as nocsim models it (docs/nocsim.md): a tile's program calls this, and cycles go by.
#pragma once

#include "nocsim/tile.h"
#include "tilera/noc.h"

namespace sluice::tilera {

class SimNoc {
 public:
  explicit SimNoc(nocsim::Tile& tile) : tile_(tile) {}

  TileId here() const { return tile_.id(); }
  Word header(TileId to, Queue queue) const { return tile_.header(to, queue); }
  template <class... Words>
  void send(Word header, Words... words) {
    tile_.send(header + sizeof...(words));
    (tile_.send(words), ...);
  }
  template <Queue kQueue>
  Word receive() {
    return tile_.receive(kQueue);
  }
  Word available() { return tile_.available(); }
  template <Queue kQueue>
  uint32_t count() {
    return uint32_t(tile_.count(kQueue));
  }
  uint64_t cycle() { return tile_.cycle(); }
  void fence() { tile_.fence(); }

  // ---- Modelled ----
  Word await(Word queues) { return tile_.wait_for(queues); }
  void spend(uint32_t cycles) { tile_.compute(cycles); }
  void reads(const void* at, std::size_t bytes) { tile_.touch_to_load(at, bytes); }
  void writes(const void* at, std::size_t bytes) { tile_.touch_to_store(at, bytes); }

  nocsim::Tile& tile() { return tile_; }

 private:
  nocsim::Tile& tile_;
};
static_assert(Modelled<SimNoc>);

}  // namespace sluice::tilera
