// This process and one peer: the region we write, the region we read, and the connections
// between the two.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "preload/mutex.h"
#include "shm/layout.h"
#include "shm/ready_queue.h"
#include "shm/region.h"

namespace sluice::preload {

class PassRegion;
class TcpSocket;

// Under control_lock unless said otherwise. The memory of a Pair is never given back, its
// regions are when the peer is gone and the last connection is wound up.
class Pair {
 public:
  Pair(shm::DomainId self, shm::DomainId peer, uint32_t generation)
      : self_(self), peer_(peer), generation_(generation) {}

  shm::DomainId writer() const { return self_; }  // an inherited pair: the process that it is from
  shm::DomainId peer() const { return peer_; }
  uint32_t generation() const { return generation_; }
  const shm::PairView& out() const { return out_; }
  const shm::PairView& in() const { return in_; }

  // Creates our region. Returns its descriptor, to be handed out, or -errno.
  [[nodiscard]] int create_out(shm::Protect protect);
  // The peer's region has arrived. 0 or -errno.
  [[nodiscard]] int attach_in(int region);
  // A connection that came in a message: our side of it is in this passing region.
  [[nodiscard]] int adopt(int region);
  // A passing region of the peer's side, with the bell of those who share it. Takes the descriptors.
  bool extend(uint32_t number, int region, int bell);
  bool extend(uint32_t number, const shm::PairView& view, int bell);
  // The peer's slot, in a passing region if it has gone there and we know it; else null.
  shm::Slot* moved_slot(const shm::Slot& from, uint32_t slot) const;
  shm::Slot* peer_slot(uint32_t slot) const;
  // Wakes those who hold passed connections of the peer's side. After a full fence.
  void ring_takers();
  // ---- processes that share a side by fork, and have bells of their own
  // We share our side, and say for ourselves from now on whether we sleep. While nobody here does. False: no place.
  [[nodiscard]] bool join_sharers();
  // `who` shares the peer's side. Takes the bell.
  void hear_sharer(shm::DomainId who, int bell);
  void forget_sharer(shm::DomainId who);
  // Both ends in this process: the other Pair has the same two regions, the other way round.
  void attach_twin(Pair& twin);
  void set_bell(int fd, uint32_t pid);
  uint32_t peer_pid() const { return peer_pid_; }
  // The coordinator's incarnation that handed out our region.
  uint32_t made_under = 0;
  // Asks the kernel, which knows of a death before the coordinator does.
  bool peer_lives() const;
  void finish();  // unmaps everything

  // Our region, until the peer has it: the coordinator may end while it is on its way.
  void keep_offer(int region) { offer_ = region; }
  int offer() const { return offer_; }
  void forget_offer();

  // ---- who the peer is at our listeners of AF_UNIX, as the coordinator has said
  struct Admission {
    uint64_t ticket;  // 0: free entry
    uint32_t listener;
    ucred who;
  };
  const Admission* admission(uint64_t ticket) const {
    for (const Admission& a : admissions_)
      if (a.ticket == ticket) return &a;
    return nullptr;
  }
  const Admission* put_admission(const Admission& a) { return &(admissions_[next_admission_++ % kAdmissions] = a); }

  // ---- which of our listeners the peer may connect to, under which policy (shm/layout.h, Directory::policy)
  struct Permission {
    uint32_t policy;  // 0: free entry
    uint32_t listener;
    uint32_t most;  // connections at a time; 0: no bound
  };
  const Permission* permission(uint32_t policy, uint32_t listener) const {
    for (const Permission& p : permissions_)
      if (p.policy == policy && p.listener == listener) return &p;
    return nullptr;
  }
  const Permission* put_permission(const Permission& p) { return &(permissions_[next_permission_++ % kAdmissions] = p); }
  // Connections that the peer has begun and that are open here.
  uint32_t count_incoming() const;

  // ---- connections
  TcpSocket* socket_at(uint32_t slot) const { return sockets_[slot]; }
  void put_socket(uint32_t slot, TcpSocket* s);
  void remove_socket(uint32_t slot);
  uint32_t connections() const { return connections_; }
  uint32_t slot_limit() const { return slot_limit_; }  // no socket at or above
  // Whether connections with this index are begun by us.
  bool begins(uint32_t slot) const { return (slot & 1) == parity(); }
  [[nodiscard]] bool take_slot(uint32_t& slot);
  void give_slot(uint32_t slot);

  // ---- ring memory of our region; has a lock of its own
  [[nodiscard]] bool take_ring(uint32_t size_log2, uint32_t& page);
  // `until`: the position up to which it was written.
  void give_ring(const shm::RingRef& r, uint64_t until);

  // ---- news; needs no lock
  // Tells the peer to look at a connection, and wakes it. After a full fence that follows
  // the publication of what is new. `last`: see ReadyProducer::push. `held`: the peer's slot, if
  // nothing but bytes is new, which concerns only those who hold the connection.
  void push_news(uint32_t slot, uint64_t& last, const shm::Slot* held = nullptr);
  void ring_bell();
  // The next indexes that the peer has pushed.
  uint32_t take_news(uint32_t* slots, uint32_t capacity) { return in_ ? news_.take(slots, capacity) : 0; }
  // Whether a process that shares the peer's side has counted something since the last time.
  bool take_sharers_news();
  bool has_news() const {
    return in_ && !inherited && (news_.has_fresh() || has_takers_news() ||
                   in_.header().sharers_news.load(std::memory_order_relaxed) != sharers_news_seen_);  // a hint
  }
  bool has_takers_news() const;

  // Whether an inherited pair has something that was not looked at; a hint.
  bool has_unscanned() const;

  void set_sleeping(bool asleep);
  // Whether each thread that sleeps is to say so.
  bool counts_sleepers() const { return inherited && own_sharer_ == nullptr; }
  void become_inherited() {
    inherited = true;
    own_sharer_ = nullptr;
  }
  void note_cpu(uint32_t cpu);
  uint32_t peer_cpu() const;
  // Until then the peer cannot see what our threads wait for, and rings the bell each time.
  bool peer_attached() const { return in_ && in_.header().attached.load(std::memory_order_acquire) != 0; }
  void close_listener() { out_.header().listener_epoch.fetch_add(1, std::memory_order_release); }
  uint32_t peer_listener_epoch() const { return in_ ? in_.header().listener_epoch.load(std::memory_order_acquire) : 0; }
  // Which sleep the peer is in; 0: it is awake, or has said nothing yet.
  uint32_t peer_sleep() const {
    uint32_t s = in_ ? in_.header().sleeping.load(std::memory_order_relaxed) : 0;  // a hint
    return (s & 1) != 0 ? s : 0;
  }
  // Of a thread that looks for connections at a listener without sleeping.
  void begin_look(uint32_t listener) {
    shm::PairHeader& h = out_.header();
    h.looking_at.store(listener, std::memory_order_relaxed);                                             // a hint, all of it
    h.looking.store((h.looking.load(std::memory_order_relaxed) | 1) + 2, std::memory_order_relaxed);
  }
  // Of what was begun, though it may have become another's since.
  void end_look() {
    if (!out_ || inherited) return;
    shm::PairHeader& h = out_.header();
    uint32_t look = h.looking.load(std::memory_order_relaxed);                           // likewise
    if ((look & 1) != 0) h.looking.store(look + 1, std::memory_order_relaxed);
  }
  // Which look at this listener the peer takes; 0: none.
  uint32_t peer_look(uint32_t listener) const {
    if (!in_) return 0;
    uint32_t look = in_.header().looking.load(std::memory_order_relaxed), at = in_.header().looking_at.load(std::memory_order_relaxed);  // hints
    return (look & 1) != 0 && (at == listener || at == shm::kEveryListener) ? look : 0;
  }
  bool takes_connections() const {
    return !gone && !frozen && !inherited && !is_peer_frozen();
  }
  // Neither side begins anything in it any more: with the last connection it can go.
  bool is_left() const { return frozen && !inherited && twin == nullptr && in_ && is_peer_frozen(); }
  bool is_peer_frozen() const { return in_ && in_.header().frozen.load(std::memory_order_acquire) != 0; }
  // After fork both processes hold the regions: neither begins anything new in them.
  void freeze();

  bool gone = false;       // the peer is dead
  bool frozen = false;     // we forked: see freeze
  bool inherited = false;  // we are the child: the parent consumes the ready queue
  Pair* twin = nullptr;
  PassRegion* pass = nullptr;  // where our side of its connections goes when they are passed
  uint32_t received = 0;       // the number of the passing region that `out` is, or 0

 private:
  // A passing region of the peer's side.
  struct Extension {
    uint32_t number;
    shm::PairView view;
    int bell;
    uint32_t news_seen;
    bool mapped;  // by us, for this
  };
  static constexpr uint32_t kExtensions = 16;
  // What only we know, in one reserved mapping.
  struct Private {
    TcpSocket* sockets[shm::kSlots];
    uint32_t free_slots[shm::kSlots];
    uint32_t free_rings[4][shm::kPairBytes / shm::kPageBytes / 4];
  };
  bool reserve_private();
  uint32_t parity() const {
    if (twin != nullptr) return twin_acceptor_ ? 1 : 0;
    return self_ < peer_ ? 0 : 1;
  }

  // The bell of a process that shares the peer's side. The number is kept for the next one: others look
  // without a lock.
  struct SharersBell {
    std::atomic<shm::DomainId> who{shm::kNobody};
    std::atomic<int> fd{-1};
    std::atomic<uint32_t> rung{0};  // as rung_
  };
  SharersBell* bell_of(shm::DomainId who);
  void wake_sharers(const shm::Slot* held);

  static constexpr uint32_t kAdmissions = 4;

  shm::DomainId self_;
  shm::DomainId peer_;
  uint32_t generation_;
  uint32_t peer_pid_ = 0;
  int bell_ = -1;
  int offer_ = -1;
  int pidfd_ = -1;
  bool twin_acceptor_ = false;
  bool owns_regions_ = true;
  shm::PairView out_, in_;
  Extension extensions_[kExtensions] = {};
  std::atomic<uint32_t> extension_count_{0};  // grows under control_lock, is read without
  shm::Sharer* own_sharer_ = nullptr;
  SharersBell sharers_bells_[shm::kSharers];
  std::atomic<uint32_t> family_rung_[shm::kSharers] = {};  // by entry: as rung_, for those whose bell we have not
  shm::ReadyProducer push_;
  shm::ReadyConsumer news_;
  Mutex push_lock_;
  std::atomic<uint32_t> rung_{0};  // the sleep for which the bell was rung already
  Private* private_ = nullptr;
  TcpSocket** sockets_ = nullptr;
  uint32_t connections_ = 0;
  uint32_t slot_limit_ = 0;
  uint32_t sharers_news_seen_ = 0;
  uint32_t free_slot_count_ = 0;
  uint32_t next_slot_ = 0;
  Mutex ring_lock_;
  uint32_t free_ring_count_[4] = {};
  Admission admissions_[kAdmissions] = {};
  uint32_t next_admission_ = 0;
  Permission permissions_[kAdmissions] = {};
  uint32_t next_permission_ = 0;
  uint32_t next_page_ = shm::kHeapOffset / shm::kPageBytes;
};

}  // namespace sluice::preload
