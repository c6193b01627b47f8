#include "preload/pass_region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <new>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pair.h"
#include "preload/routes.h"
#include "preload/sleep.h"
#include "shm/byte_ring.h"
#include "shm/region.h"

namespace sluice::preload {

using namespace shm;

namespace {

// Who holds connections that this process has passed listens to it, this process does not: one for
// all pairs, so that a worker needs one for each master only.
Bell pass_bell;
DomainId bell_maker = kNobody;

const Bell& bell_for_takers() {
  if (bell_maker != coordinator.self()) {  // after a fork the old one is our parent's
    destroy_bell(pass_bell);
    RaisedLimit raised;
    pass_bell = create_bell();
    bell_maker = coordinator.self();
  }
  return pass_bell;
}

constexpr uint32_t kFirstPlaces = 64;
// Before more memory is taken so many old places are looked at.
constexpr uint32_t kLooks = 16;

}  // namespace

PassRegion* PassRegion::create(Pair& pair) {
  void* memory = map_private(sizeof(PassRegion));
  if (memory == nullptr) return nullptr;
  auto* p = new (memory) PassRegion(pair);
  RaisedLimit raised;
  if (p->make_known() == 0) return p;
  p->finish();
  return nullptr;
}

// The coordinator makes the memory: several will write it, and no one of them has to be trusted with the file before.
int PassRegion::make_known() {
  const PairHeader& own = pair_.out().header();
  const Bell& bell = bell_for_takers();
  int fds[3] = {bell.ring, bell.hear, -1}, region = -1;
  bool own_peer = pair_.twin != nullptr;
  if (own_peer) fds[2] = pair_.twin->offer();
  if (bell.ring < 0 || bell.hear < 0 || (own_peer && fds[2] < 0)) return -EBADF;
  int error = coordinator.open_passing(own, static_cast<bool>(pair_.in()), fds, own_peer ? 3 : 2, number_, region);
  if (error != 0) return error;
  view_.base = static_cast<std::byte*>(keyed(map_writable(region, kPairBytes), kPairBytes));
  if (!view_) error = -errno;
  close_own(region);
  incarnation_ = coordinator.incarnation();
  maker_ = coordinator.self();
  if (error == 0 && own_peer && !pair_.twin->extend(number_, view_, libc.fcntl(bell.ring, F_DUPFD_CLOEXEC, 0))) error = -ENOSPC;
  return error;
}

void PassRegion::finish() {
  if (view_) unmap_keyed(view_.base, kPairBytes);
  if (room_ > 0) unmap_keyed(places_, room_ * sizeof *places_);
  unmap_keyed(this, sizeof *this);
}

bool PassRegion::is_usable() const {
  return incarnation_ == coordinator.incarnation() && maker_ == coordinator.self() && coordinator.connected();
}

// ---- ring memory --------------------------------------------------------------------------

bool PassRegion::is_over(const Place& p) const {
  if (!p.taken) return true;
  const Slot* theirs = pair_.peer_slot(p.slot);
  if (theirs == nullptr) return false;
  if (theirs->generation.load(std::memory_order_acquire) != p.generation)
    return !pair_.begins(p.slot);  // the peer, who began it, has gone on to another; or has not taken it yet
  bool theirs_closed = (theirs->state.load(std::memory_order_acquire) & kClosed) != 0;
  return theirs_closed && (view_.slot(p.slot).state.load(std::memory_order_acquire) & kClosed) != 0;
}

// As Pair::give_ring; how far it was written, its slot says, unless another connection has that by now.
void PassRegion::clear(const Place& p) {
  const Slot& slot = view_.slot(p.slot);
  uint64_t size = uint64_t{1} << p.size_log2;
  bool known = slot.generation.load(std::memory_order_acquire) == p.generation;
  uint64_t from = known ? slot.rings[1].from : 0;  // others write it: what is wrong clears too little of their user's
  uint64_t until = known ? slot.tail.load(std::memory_order_relaxed) : size;  // over, so it does not change
  clear_ring(view_, {from, p.page, p.size_log2}, until);
}

void PassRegion::vacate(Place& p) {
  if (!p.taken) return;
  p.taken = false;
  clear(p);
  uint64_t until = p.old_until;
  for (uint32_t i = 0; i < p.old_count; ++i) {
    pair_.give_ring(p.old[i], until);
    until = p.old[i].from;
  }
  if (!pair_.begins(p.slot) || pair_.inherited || pair_.socket_at(p.slot) != nullptr) return;
  pair_.give_slot(p.slot);
  if (p.port != 0) give_port(p.port);
}

PassRegion::Place* PassRegion::find_free(uint32_t size_log2, uint32_t looks) {
  for (uint32_t n = 0; n < looks && n < count_; ++n) {
    Place& p = places_[next_++ % count_];
    if (!is_over(p)) continue;
    vacate(p);
    if (p.size_log2 == size_log2) return &p;
  }
  return nullptr;
}

PassRegion::Place* PassRegion::add(uint32_t size_log2) {
  uint32_t pages = (1u << size_log2) / kPageBytes;
  if (next_page_ + pages > kPairBytes / kPageBytes) return nullptr;
  if (count_ == room_) {
    uint32_t room = room_ != 0 ? 2 * room_ : kFirstPlaces;
    void* more = map_private(room * sizeof *places_);
    if (more == nullptr) return nullptr;
    if (count_ > 0) {
      memcpy(more, places_, count_ * sizeof *places_);
      unmap_keyed(places_, room_ * sizeof *places_);
    }
    places_ = static_cast<Place*>(more);
    room_ = room;
  }
  Place& p = places_[count_++];
  p = {next_page_, size_log2, 0, 0, {}, 0, 0, 0, false};
  next_page_ += pages;
  return &p;
}

bool PassRegion::take_ring(uint32_t slot, uint32_t generation, uint32_t size_log2, uint32_t& page) {
  Place* p = find_free(size_log2, kLooks);
  if (p == nullptr) p = add(size_log2);
  if (p == nullptr) p = find_free(size_log2, count_);
  if (p == nullptr) return false;
  p->slot = slot;
  p->generation = generation;
  p->old_count = 0;
  p->port = 0;
  p->taken = true;
  page = p->page;
  return true;
}

void PassRegion::free_later(uint32_t slot, uint32_t generation, const RingRef* old, uint32_t count, uint64_t until, uint16_t port) {
  for (uint32_t i = 0; i < count_; ++i) {
    Place& p = places_[i];
    if (!p.taken || p.slot != slot || p.generation != generation) continue;
    for (uint32_t k = 0; k < count && k < 2; ++k) p.old[k] = old[k];
    p.old_count = count;
    p.old_until = until;
    p.port = port;
    return;
  }
}

}  // namespace sluice::preload
