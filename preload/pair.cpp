#include "preload/pair.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pass_region.h"
#include "preload/peers.h"
#include "preload/sleep.h"
#include "shm/bell.h"
#include "shm/byte_ring.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

bool Pair::reserve_private() {
  void* p = map_private(sizeof(Private));
  if (p == nullptr) return false;
  private_ = static_cast<Private*>(p);
  sockets_ = private_->sockets;
  return true;
}

int Pair::create_out(Protect protect) {
  RaisedLimit raised;
  if (!reserve_private()) return -ENOMEM;
  int fd = create_region("sluice-pair", kPairBytes);
  if (fd < 0) return fd;
  void* base = keyed(map_writable(fd, kPairBytes), kPairBytes);
  int error = base == nullptr ? -errno : 0;
  if (error == 0) {
    out_.base = static_cast<std::byte*>(base);
    PairHeader& h = out_.header();
    h.magic = kMagic;
    h.version = kProtocolVersion;
    h.writer = self_;
    h.reader = peer_;
    h.generation = generation_;
    push_ = ReadyProducer(out_.ready());
    note_cpu(current_cpu());
    error = seal_region(fd, protect);
  }
  if (error != 0) {
    kernel::close(fd);
    return error;
  }
  return move_high(fd);
}

int Pair::attach_in(int region) {
  if (in_) return -EEXIST;
  void* base = keyed(map_readable(region, kPairBytes), kPairBytes, PROT_READ);
  if (base == nullptr) return -errno;
  in_.base = static_cast<std::byte*>(base);
  news_ = ReadyConsumer(in_.ready(), &out_.header().ready_head);
  if (!inherited) out_.header().attached.store(1, std::memory_order_release);  // the parent may not be
  return 0;
}

int Pair::adopt(int region) {
  if (!reserve_private()) return -ENOMEM;
  void* base = keyed(map_writable(region, kPairBytes), kPairBytes);
  if (base == nullptr) return -errno;
  out_.base = static_cast<std::byte*>(base);
  inherited = frozen = true;
  return 0;
}

// ---- passing regions of the other side ----------------------------------------------------

bool Pair::extend(uint32_t number, int region, int bell) {
  void* base = keyed(map_readable(region, kPairBytes), kPairBytes, PROT_READ);
  if (base == nullptr) return false;
  if (!extend(number, PairView{static_cast<std::byte*>(base)}, bell)) {
    unmap_keyed(base, kPairBytes);
    return false;
  }
  extensions_[extension_count_.load(std::memory_order_relaxed) - 1].mapped = true;  // under the lock
  return true;
}

bool Pair::extend(uint32_t number, const PairView& view, int bell) {
  uint32_t n = extension_count_.load(std::memory_order_relaxed);  // under the lock
  for (uint32_t i = 0; i < n; ++i)
    if (extensions_[i].number == number) return false;
  if (n == kExtensions) return false;
  extensions_[n] = {number, view, bell, 0, false};
  extension_count_.store(n + 1, std::memory_order_release);
  return true;
}

Slot* Pair::moved_slot(const Slot& from, uint32_t slot) const {
  uint32_t number = from.moved_to;
  for (uint32_t i = 0, n = extension_count_.load(std::memory_order_acquire); i < n; ++i)
    if (extensions_[i].number == number) return &extensions_[i].view.slot(slot);
  return nullptr;
}

Slot* Pair::peer_slot(uint32_t slot) const {
  if (!in_) return nullptr;
  Slot& s = in_.slot(slot);
  return (s.state.load(std::memory_order_acquire) & kMoved) != 0 ? moved_slot(s, slot) : &s;
}

void Pair::ring_takers() {
  for (uint32_t i = 0, n = extension_count_.load(std::memory_order_acquire); i < n; ++i) {
    const Extension& e = extensions_[i];
    if (e.view.header().sharers_sleeping.load(std::memory_order_relaxed) == 0) continue;  // ordered by the fence
    coordinator.count(kBells);
    shm::ring_bell(e.bell);
  }
}

bool Pair::has_takers_news() const {
  for (uint32_t i = 0, n = extension_count_.load(std::memory_order_acquire); i < n; ++i)
    if (extensions_[i].view.header().sharers_news.load(std::memory_order_relaxed) != extensions_[i].news_seen)  // a hint
      return true;
  return false;
}

void Pair::attach_twin(Pair& other) {
  twin = &other;
  other.twin = this;
  other.twin_acceptor_ = true;
  other.owns_regions_ = owns_regions_ = true;
  in_ = other.out_;
  other.in_ = out_;
  for (const PairView& v : {in_, out_}) v.header().attached.store(1, std::memory_order_release);
  news_ = ReadyConsumer(in_.ready(), &out_.header().ready_head);
  other.news_ = ReadyConsumer(other.in_.ready(), &other.out_.header().ready_head);
}

void Pair::set_bell(int fd, uint32_t pid) {
  if (bell_ >= 0) close_own(bell_);
  bell_ = fd;
  if (pidfd_ < 0) pidfd_ = move_high(int(libc.syscall(SYS_pidfd_open, pid, 0)));
  peer_pid_ = pid;
}

bool Pair::peer_lives() const {
  pollfd p{pidfd_, POLLIN, 0};
  return pidfd_ < 0 || kernel::poll_now(&p, 1) == 0;
}

void Pair::forget_offer() {
  close_own(offer_);
  offer_ = -1;
}

void Pair::finish() {
  forget_offer();
  if (pass != nullptr) pass->finish();
  pass = nullptr;
  for (uint32_t i = 0; i < extension_count_.load(std::memory_order_relaxed); ++i) {  // under the lock
    if (extensions_[i].mapped) unmap_keyed(extensions_[i].view.base, kPairBytes);
    close_own(extensions_[i].bell);
  }
  extension_count_.store(0, std::memory_order_relaxed);  // likewise
  if (twin == nullptr && in_) unmap_keyed(in_.base, kPairBytes);
  if (out_) unmap_keyed(out_.base, kPairBytes);
  if (private_ != nullptr) unmap_keyed(private_, sizeof(Private));
  close_own(bell_);
  close_own(pidfd_);
  for (SharersBell& b : sharers_bells_) close_own(b.fd.exchange(-1, std::memory_order_relaxed));  // nobody looks any more
  own_sharer_ = nullptr;
  in_ = out_ = {};
  private_ = nullptr;
  bell_ = pidfd_ = -1;
}

// ---- connections --------------------------------------------------------------------------

void Pair::put_socket(uint32_t slot, TcpSocket* s) {
  sockets_[slot] = s;
  ++connections_;
  if (slot >= slot_limit_) slot_limit_ = slot + 1;
}

void Pair::remove_socket(uint32_t slot) {
  sockets_[slot] = nullptr;
  if (--connections_ == 0 && (gone || is_left())) peers.note_unswept();
}

uint32_t Pair::count_incoming() const {
  uint32_t n = 0;
  for (uint32_t i = 0; i < slot_limit_; ++i) {
    const TcpSocket* s = sockets_[i];
    if (s == nullptr || s->initiator || s->closed) continue;
    n += s->theirs == nullptr || (s->theirs->state.load(std::memory_order_relaxed) & kClosed) == 0;  // only a number
  }
  return n;
}

bool Pair::take_slot(uint32_t& slot) {
  if (free_slot_count_ > 0) {
    slot = private_->free_slots[--free_slot_count_];
    return true;
  }
  if (next_slot_ >= kSlots / 2) return false;
  slot = 2 * next_slot_++ + parity();
  return true;
}

void Pair::give_slot(uint32_t slot) { private_->free_slots[free_slot_count_++] = slot; }

// ---- ring memory --------------------------------------------------------------------------

namespace {
constexpr uint32_t kClasses[] = {12, 16, 18, 20};
uint32_t class_of(uint32_t size_log2) {
  uint32_t c = 0;
  while (kClasses[c] < size_log2) ++c;
  return c;
}
}  // namespace

bool Pair::take_ring(uint32_t size_log2, uint32_t& page) {
  Guard guard(ring_lock_);
  uint32_t c = class_of(size_log2);
  if (free_ring_count_[c] > 0) {
    page = private_->free_rings[c][--free_ring_count_[c]];
    return true;
  }
  uint32_t pages = (1u << size_log2) / kPageBytes;
  if (next_page_ + pages > kPairBytes / kPageBytes) return false;
  page = next_page_;
  next_page_ += pages;
  return true;
}

// What was in it was for whoever had that connection: the next one finds nothing of it.
void Pair::give_ring(const RingRef& r, uint64_t until) {
  clear_ring(out_, r, until);
  Guard guard(ring_lock_);
  uint32_t c = class_of(r.size_log2);
  private_->free_rings[c][free_ring_count_[c]++] = r.page;
}

// ---- news ---------------------------------------------------------------------------------

namespace {
bool is_held_by(const Slot& s, DomainId who) {
  for (const Shared<DomainId>& h : s.holders)
    if (h.load(std::memory_order_acquire) == who) return true;
  return s.holders_overflow.load(std::memory_order_acquire) != 0;
}
}  // namespace

void Pair::push_news(uint32_t slot, uint64_t& last, const Slot* held) {
  bool shared = is_peer_frozen();
  if (!shared) held = nullptr;
  // Who has forked and let go of the connection hears nothing of its bytes.
  bool for_peer = held == nullptr || is_held_by(*held, peer_);
  bool pushed = for_peer;
  if (inherited) {
    out_.header().sharers_news.fetch_add(1, std::memory_order_release);
  } else if (for_peer) {
    push_lock_.lock();
    pushed = push_.push(slot, last, in_ ? &in_.header().ready_head : nullptr);
    push_lock_.unlock();
  }
  if (!in_) return ring_bell();  // not attached yet: perhaps asleep
  if (pushed) sleep_wake_fence();
  const PairHeader& peer = in_.header();
  uint32_t asleep = peer.sleeping.load(std::memory_order_relaxed);  // ordered by the fence
  bool ring = pushed && (asleep & 1) != 0 && rung_.exchange(asleep, std::memory_order_relaxed) != asleep;  // once per sleep
  // Those who share the peer's side after a fork do not consume the queue: ring whenever.
  if (ring || peer.sharers_sleeping.load(std::memory_order_relaxed) != 0) ring_bell();  // likewise
  if (shared) wake_sharers(held);
}

// Each by its own bell where we have it; else by the one to which the whole family listens.
void Pair::wake_sharers(const Slot* held) {
  bool family = false;
  for (uint32_t i = 0; i < kSharers; ++i) {
    const Sharer& s = in_.header().sharers[i];
    DomainId who = s.domain.load(std::memory_order_relaxed);  // a hint: whoever takes an entry is awake
    uint32_t asleep = s.sleeping.load(std::memory_order_relaxed);  // ordered by the fence
    if ((asleep & 1) == 0 || who == kNobody || (held != nullptr && !is_held_by(*held, who))) continue;
    // Whether it lives is not asked: the directory may be an earlier coordinator's, and the dead sleep only once.
    SharersBell* bell = bell_of(who);
    std::atomic<uint32_t>& rung = bell != nullptr ? bell->rung : family_rung_[i];
    if (rung.exchange(asleep, std::memory_order_relaxed) == asleep) continue;  // once per sleep
    family |= bell == nullptr;
    if (bell == nullptr) continue;
    coordinator.count(kBells);
    shm::ring_bell(bell->fd.load(std::memory_order_relaxed));  // set before `who`
  }
  if (family) ring_bell();
}

Pair::SharersBell* Pair::bell_of(DomainId who) {
  for (SharersBell& b : sharers_bells_)
    if (b.who.load(std::memory_order_acquire) == who) return &b;
  return nullptr;
}

void Pair::hear_sharer(DomainId who, int bell) {
  if (bell_of(who) != nullptr) return close_own(bell);
  for (SharersBell& b : sharers_bells_) {
    if (b.who.load(std::memory_order_relaxed) != kNobody) continue;  // under the lock
    if (int fd = b.fd.load(std::memory_order_relaxed); fd >= 0) {    // likewise
      libc.dup3(bell, fd, O_CLOEXEC);
      close_own(bell);
    } else {
      b.fd.store(bell, std::memory_order_relaxed);
    }
    b.rung.store(0, std::memory_order_relaxed);  // both seen with `who`
    return b.who.store(who, std::memory_order_release);
  }
  close_own(bell);
}

void Pair::forget_sharer(DomainId who) {
  if (SharersBell* b = bell_of(who)) b->who.store(kNobody, std::memory_order_release);
}

bool Pair::join_sharers() {
  const Directory* d = coordinator.directory();
  if (!inherited || received != 0 || twin != nullptr || d == nullptr) return false;
  // The peer looks at entries of frozen pairs, for holders: one that was forked without the coordinator's knowing is none.
  if (out_.header().frozen.load(std::memory_order_relaxed) == 0) return false;  // since before we were forked
  for (uint32_t i = 0; i < slot_limit_; ++i)
    if (sockets_[i] != nullptr && !is_held_by(*sockets_[i]->mine, coordinator.self())) return false;
  for (Sharer& s : out_.header().sharers) {
    DomainId before = s.domain.load(std::memory_order_acquire);
    if (before != kNobody && d->is_alive(before)) continue;
    if (!s.domain.compare_exchange_strong(before, coordinator.self(), std::memory_order_acq_rel)) continue;
    s.sleeping.store((s.sleeping.load(std::memory_order_relaxed) + 1) & ~1u, std::memory_order_release);  // ours now
    own_sharer_ = &s;
    return true;
  }
  return false;
}

bool Pair::has_unscanned() const {
  for (uint32_t i = 0; in_ && i < slot_limit_; ++i) {
    const TcpSocket* s = sockets_[i];
    if (s != nullptr && s->has_unscanned()) return true;
  }
  return false;
}

bool Pair::take_sharers_news() {
  bool any = false;
  for (uint32_t i = 0, e = extension_count_.load(std::memory_order_relaxed); i < e; ++i) {  // under the lock
    uint32_t n = extensions_[i].view.header().sharers_news.load(std::memory_order_acquire);
    any |= n != extensions_[i].news_seen;
    extensions_[i].news_seen = n;
  }
  uint32_t n = in_ ? in_.header().sharers_news.load(std::memory_order_acquire) : 0;
  if (n == sharers_news_seen_) return any;
  sharers_news_seen_ = n;
  return true;
}

void Pair::ring_bell() {
  coordinator.count(kBells);
  if (twin != nullptr) {
    ring_family_bells();  // after a fork the other end may be in a relative
  } else if (bell_ >= 0) {
    shm::ring_bell(bell_);
  }
}

void Pair::set_sleeping(bool asleep) {
  if (!out_) return;
  PairHeader& h = out_.header();
  if (counts_sleepers()) {
    h.sharers_sleeping.fetch_add(asleep ? 1u : ~0u, std::memory_order_release);
    return;
  }
  Shared<uint32_t>& word = own_sharer_ != nullptr ? own_sharer_->sleeping : h.sleeping;
  uint32_t s = word.load(std::memory_order_relaxed);  // own word
  // A new odd number for each sleep, also when another thread sleeps already.
  word.store(asleep ? (s | 1) + (s & 1 ? 2 : 0) : (s + 1) & ~1u, std::memory_order_release);
}

void Pair::note_cpu(uint32_t cpu) {
  Shared<uint32_t>& mine = out_.header().cpu;
  if (mine.load(std::memory_order_relaxed) != cpu) mine.store(cpu, std::memory_order_relaxed);  // a hint
}

uint32_t Pair::peer_cpu() const {
  return in_ ? in_.header().cpu.load(std::memory_order_relaxed) : Spinner::kAnyCpu;  // a hint
}

void Pair::freeze() {
  frozen = true;
  if (out_) out_.header().frozen.store(1, std::memory_order_release);
}

}  // namespace sluice::preload
