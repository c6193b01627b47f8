// The accelerated listeners, by id, and by port or name.
#pragma once

#include "monitor/core/actions.h"
#include "monitor/core/limits.h"
#include "shm/protocol.h"

namespace sluice::monitor::core {

struct Listener {
  Address address;
  uint64_t netns;
  uint32_t uid;
  uint32_t backlog;
  uint32_t flags;  // ListenFlags
  ListenerId id;   // generation << kListenerBits | index: an old id names nobody new
  uint32_t turn;   // for round robin
  Index next;      // in the same chain, in any namespace
  uint16_t port;   // 0: `address` is a name of AF_UNIX
  bool used;

  bool is_name() const { return port == 0; }
  uint32_t chain() const { return chain_of(address, port); }
  static uint32_t chain_of(const Address& a, uint16_t port) {
    return port != 0 ? port : 65536 + shm::name_bit(key_of(a));
  }

  bool v6only() const { return flags & shm::kListenV6Only; }
  bool reuses_port() const { return flags & shm::kListenReusePort; }
  // 0: does not receive what is sent to `a`; the higher, the closer the match, as in Linux'
  // inet_lookup and inet6_lookup.
  int match(const Address& a) const {
    if (address == a) return 3;
    if (is_name() || !wildcard_covers(address, v6only(), a)) return 0;
    return address == kV4Any || !is_v4(a) ? 2 : 1;
  }
  // Whether some destination would match both.
  bool overlaps(const Listener& other) const {
    return match(other.address) != 0 || other.match(address) != 0;
  }
};

template <uint32_t kCapacity>
class ListenerTable {
 public:
  // Null when the table is full. Sets id; everything else is taken from `l`.
  Listener* create(const Listener& l) {
    Index i = free_ != 0 ? free_ : used_ + 1 < kCapacity ? ++used_ : 0;
    if (i == 0) return nullptr;
    Listener& slot = listeners_[i];
    if (i == free_) free_ = slot.next;
    uint32_t generation = (slot.id >> kListenerBits) + 1;
    slot = l;
    slot.id = generation << kListenerBits | i;
    slot.used = true;
    slot.next = chains_[l.chain()];
    chains_[l.chain()] = i;
    return &slot;
  }

  void destroy(Listener& l) {
    Index i = index(l);
    Index* link = &chains_[l.chain()];
    while (*link != i) link = &listeners_[*link].next;
    *link = l.next;
    l.used = false;
    l.next = free_;
    free_ = i;
  }

  // Null when there is no such listener (any more).
  Listener* find(ListenerId id) {
    Listener& l = listeners_[id % kMaxListeners % kCapacity];
    return l.used && l.id == id ? &l : nullptr;
  }

  Index index(const Listener& l) const { return Index(&l - listeners_); }
  Listener& at(Index i) { return listeners_[i]; }
  Listener* first_on(uint32_t chain) { return from(chains_[chain]); }
  Listener* next(const Listener& l) { return from(l.next); }

 private:
  static_assert(kCapacity <= kMaxListeners);
  Listener* from(Index i) { return i == 0 ? nullptr : &listeners_[i]; }

  Index free_;
  Index used_;
  Index chains_[65536 + shm::kNameBits];
  Listener listeners_[kCapacity];
};

}  // namespace sluice::monitor::core
