// Where the connections of a pair go on, on our side, once they have been passed over AF_UNIX: a
// region that other processes write too. Made for the first one that is passed.
#pragma once

#include <cstdint>

#include "shm/layout.h"

namespace sluice::preload {

class Pair;

// Under control_lock.
class PassRegion {
 public:
  // Creates it and tells the coordinator, who tells the peer. Null: this pair's connections cannot
  // be passed in memory.
  static PassRegion* create(Pair& pair);
  void finish();

  const shm::PairView& view() const { return view_; }
  uint32_t number() const { return number_; }
  // Another coordinator knows nothing of it, and a forked child may not give out what is in it.
  bool is_usable() const;

  // Ring memory for a connection, until both sides have closed it. `old`: rings of the pair's own
  // region that are free then, too, the newest first, written up to `until`. `port`: a local port of ours likewise; 0: none.
  [[nodiscard]] bool take_ring(uint32_t slot, uint32_t generation, uint32_t size_log2, uint32_t& page);
  void free_later(uint32_t slot, uint32_t generation, const shm::RingRef* old, uint32_t count, uint64_t until, uint16_t port);

 private:
  struct Place {
    uint32_t page, size_log2;
    uint32_t slot, generation;
    shm::RingRef old[2];
    uint64_t old_until;
    uint32_t old_count;
    uint16_t port;
    bool taken;
  };
  explicit PassRegion(Pair& pair) : pair_(pair) {}
  int make_known();
  bool is_over(const Place& p) const;
  void vacate(Place& p);
  void clear(const Place& p);
  Place* find_free(uint32_t size_log2, uint32_t looks);
  Place* add(uint32_t size_log2);

  Pair& pair_;
  shm::PairView view_;
  uint32_t number_ = 0;
  uint32_t incarnation_ = 0;
  shm::DomainId maker_ = shm::kNobody;
  Place* places_ = nullptr;
  uint32_t count_ = 0, room_ = 0, next_ = 0;
  uint32_t next_page_ = shm::kHeapOffset / shm::kPageBytes;
};

}  // namespace sluice::preload
