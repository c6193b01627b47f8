#include "preload/peers.h"

#include <errno.h>

#include "preload/channels.h"
#include "preload/descriptor_table.h"
#include "preload/files/ancillary.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/pass_region.h"
#include "preload/routes.h"
#include "preload/sleep.h"
#include "preload/waiting.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

constinit Peers peers;
constinit Mutex control_lock;

namespace {
alignas(Pair) std::byte storage[Peers::kMaxPairs][sizeof(Pair)];
bool used[Peers::kMaxPairs];

// Whether a pair with `peer` that has this generation was begun by us.
bool chooses(DomainId peer, uint32_t generation) {
  return (generation & 1) == (coordinator.self() < peer ? 0u : 1u);
}
}  // namespace

// ---- creating -----------------------------------------------------------------------------

Pair* Peers::find(DomainId peer, uint32_t generation) {
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->peer() == peer && pairs_[i]->generation() == generation && !pairs_[i]->inherited)
      return pairs_[i];
  return nullptr;
}

bool Peers::knows(DomainId peer, uint32_t generation) const {
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->peer() == peer && pairs_[i]->generation() == generation) return true;
  return false;
}

void Peers::release_cell(const Pair& p) { used[(reinterpret_cast<const std::byte*>(&p) - storage[0]) / sizeof(Pair)] = false; }

Pair* Peers::create(DomainId peer, uint32_t generation, int& error) {
  return create(coordinator.self(), peer, generation, error);
}

Pair* Peers::create(DomainId writer, DomainId peer, uint32_t generation, int& error) {
  error = -ENOMEM;
  if (count() == kMaxPairs) return nullptr;
  uint32_t cell = 0;
  while (cell < kMaxPairs && used[cell]) ++cell;
  if (cell == kMaxPairs) return nullptr;
  used[cell] = true;
  return new (storage[cell]) Pair(writer, peer, generation);
}

bool Peers::hand_out(Pair& p, int region, int& error) {
  uint32_t pid = 0;
  p.keep_offer(region);
  int bell_fd = coordinator.exchange_region(p.peer(), p.generation(), region, pid);
  if (bell_fd < 0) {
    p.forget_offer();
    p.freeze();  // the peer may get it all the same: it is not to begin anything there
    error = bell_fd;
    return false;
  }
  p.set_bell(bell_fd, pid);
  p.made_under = coordinator.incarnation();
  add(p);
  return true;
}

void Peers::add(Pair& p) {
  ++additions_;
  pairs_[count()] = &p;
  count_.fetch_add(1, std::memory_order_release);
  if (sleepers_ > 0) p.set_sleeping(true);
}

Pair* Peers::create_twins(int& error) {
  DomainId self = coordinator.self();
  Pair* a = create(self, 0, error);
  Pair* b = a != nullptr ? create(self, 1, error) : nullptr;
  bool made = b != nullptr;
  for (Pair* p : {a, b}) {
    int fd = made ? p->create_out(coordinator.protect()) : -1;
    if (made && fd < 0) error = fd;
    made = made && fd >= 0;
    if (made) p->keep_offer(fd);  // for those to whom we pass an end
  }
  if (!made) {
    for (Pair* p : {a, b})
      if (p != nullptr) discard(*p);
    return nullptr;
  }
  a->attach_twin(*b);
  add(*a);
  add(*b);
  return a;
}

Pair* Peers::for_new_connection(DomainId peer, int& error) {
  for (uint32_t i = 0; i < count(); ++i) {
    Pair& p = *pairs_[i];
    if (p.peer() != peer || p.inherited) continue;
    if (p.takes_connections() && !(p.twin != nullptr && !p.begins(0))) return &p;
    if (p.is_peer_frozen() && !p.frozen && p.connections() == 0 && p.twin == nullptr) {
      p.freeze();  // the peer learns that nothing more comes
      left_ = true;
    }
  }
  // Never the same number twice, and never one that the peer might choose.
  uint32_t generation = 2 * next_generation_++;
  if (!chooses(peer, generation)) ++generation;
  if (peer == coordinator.self()) return create_twins(error);
  Pair* p = create(peer, generation, error);
  if (p == nullptr) return nullptr;
  int region = p->create_out(coordinator.protect());
  if (region < 0) {
    error = region;
    discard(*p);
    return nullptr;
  }
  if (!hand_out(*p, region, error)) {
    discard(*p);
    cannot_meet(peer, generation);  // which may have got our region all the same
    return nullptr;
  }
  return p;
}

// Of a pair that never was among the others.
void Peers::discard(Pair& p) {
  p.finish();
  release_cell(p);
}

// A message, which takes no memory and no system call to send: it can be said whatever is short.
void Peers::cannot_meet(DomainId peer, uint32_t generation) {
  Message m{};
  m.type = kCannotMeet;
  m.words[0] = peer | uint64_t{generation} << 32;
  coordinator.post(m);
}

// ---- hearing ------------------------------------------------------------------------------

void Peers::peer_region(ReceivedPacket& r) {
  const Packet& packet = r.packet;
  if (r.fd_count < 2) return packet.reserved == 0 ? lose(packet.domain, packet.value) : void();  // no descriptors left here
  int error = 0;
  PairHeader header;
  if (kernel::pread(r.fds[0], &header, sizeof header, 0) != sizeof header) return;
  if (packet.reserved != 0) return extend_pairs(r, header.reader);
  peer_region_of_others(r, header.reader);
  if (header.reader != coordinator.self()) return;
  Pair* p = find(packet.domain, packet.value);
  if (p == nullptr && chooses(packet.domain, packet.value)) return cannot_meet(packet.domain, packet.value);  // we gave it up
  if (p == nullptr) {
    p = create(packet.domain, packet.value, error);
    if (p == nullptr) return cannot_meet(packet.domain, packet.value);
    int region = p->create_out(coordinator.protect());
    bool handed_out = region >= 0 && hand_out(*p, region, error);
    if (region < 0 || (!handed_out && error != -ESRCH)) {
      discard(*p);
      if (!coordinator.connected()) kernel::ring(r.fds[1]);  // the peer may have got our region, and sees that it is frozen
      return cannot_meet(packet.domain, packet.value);
    }
    if (!handed_out) {  // dead already, but what it has said counts
      p->gone = true;
      ++gone_;
      add(*p);
    }
  }
  left_ = true;  // a new pair often takes the place of a frozen one
  if (int failed = p->attach_in(r.fds[0]); failed != 0) return failed == -EEXIST ? void() : lose(packet.domain, packet.value);
  p->set_bell(r.fds[1], packet.value2);
  r.fd_count = 1;  // the bell is kept
  if (sleepers_ > 0) p->set_sleeping(true);
  for (uint32_t s = 0; s < p->slot_limit(); ++s)
    if (TcpSocket* socket = p->socket_at(s)) socket->on_news();
}

// Meant for our parent, or for who passed us a connection, and so for us.
void Peers::peer_region_of_others(const ReceivedPacket& r, DomainId reader) {
  each([&](Pair& p) {
    bool concerned = p.inherited && p.twin == nullptr && p.writer() == reader && p.peer() == r.packet.domain;
    if (concerned && p.generation() == r.packet.value && !p.in()) (void)p.attach_in(r.fds[0]);
  });
}

// The peer's side of some connections has been passed: it goes on in another region.
void Peers::extend_pairs(ReceivedPacket& r, DomainId reader) {
  each([&](Pair& p) {
    // Between a process and itself: it knows, but children that it has forked do not.
    bool knows = p.twin != nullptr && !p.inherited;
    if (p.writer() != reader || p.peer() != r.packet.domain || p.generation() != r.packet.value || knows) return;
    RaisedLimit raised;
    int bell = move_high(libc.fcntl(r.fds[1], F_DUPFD_CLOEXEC, 0));
    if (bell < 0) return;
    if (!p.extend(r.packet.reserved, r.fds[0], bell)) return close_own(bell);
    for (uint32_t s = 0; s < p.slot_limit(); ++s)
      if (TcpSocket* socket = p.socket_at(s); socket != nullptr && socket->is_left_behind_by_peer()) socket->on_news();
  });
}

// We shall never see what the peer has in that pair.
void Peers::lose(DomainId peer, uint32_t generation) {
  if (Pair* p = find(peer, generation)) give_up(*p, false);
  cannot_meet(peer, generation);
}

// Of a pair with one who lives: what nobody can have accepted is made elsewhere if it is the peer who does not see it, all
// else is reset.
void Peers::give_up(Pair& p, bool unseen) {
  if (p.gone || p.twin != nullptr) return;
  p.freeze();
  p.gone = true;
  ++gone_;
  forget_routes_to(p);
  uint32_t left = p.connections();
  for (uint32_t s = 0; s < p.slot_limit() && left > 0; ++s) {
    TcpSocket* socket = p.socket_at(s);
    if (socket == nullptr) continue;
    --left;
    socket->on_unmet(unseen);
  }
}

void Peers::unmet(DomainId peer, uint32_t generation) {
  each([&](Pair& p) {
    if (p.peer() == peer && p.generation() == generation) give_up(p, true);
  });
}

// The coordinator went away while our region was on its way, or the peer's. Whoever has met us knew it only after the
// coordinator had passed its region on, and what was passed to us we have looked at. So the peer has not, and will not, as
// it does not take what comes from a coordinator that went away (CoordinatorLink::keep_what_came).
void Peers::give_up_unmet() {
  lost_ = false;
  each([&](Pair& p) {
    bool under_another = !coordinator.connected() || p.made_under != coordinator.incarnation();
    if (p.offer() >= 0 && !p.in() && !p.inherited && p.received == 0 && under_another) give_up(p, true);
  });
}

// While there is no coordinator nobody tells of deaths. Their processes are known by pidfds; of those who hold a connection by
// fork or passing nothing is known.
void Peers::look_for_the_dead() {
  constexpr uint64_t kEveryNs = 200'000'000;
  uint64_t now = now_ns();
  if (now - looked_for_the_dead_ns_ < kEveryNs) return;
  looked_for_the_dead_ns_ = now;
  for (uint32_t i = 0; i < count(); ++i) {
    const Pair& p = *pairs_[i];
    if (!p.gone && p.twin == nullptr && !p.peer_lives()) peer_gone(p.peer());
  }
}

void Peers::peer_gone(DomainId who) {
  for (uint32_t i = 0; i < count(); ++i) {
    Pair& p = *pairs_[i];
    if (p.peer() == who && !p.gone) {
      p.gone = true;
      ++gone_;
    }
    p.forget_sharer(who);
    uint32_t left = p.connections();
    for (uint32_t s = 0; s < p.slot_limit() && left > 0; ++s) {
      TcpSocket* socket = p.socket_at(s);
      if (socket == nullptr) continue;
      --left;
      socket->on_peer_gone(who);
    }
  }
}

void Peers::take(ReceivedPacket& r) {
  switch (r.packet.type) {
    case kPeerRegion: peer_region(r); break;
    case kPeerGone: peer_gone(r.packet.domain); break;
    case kUnmet: unmet(r.packet.domain, r.packet.value); break;
    case kRevoke:
      forget_routes(r.packet.value);
      waiting.revoked(r.packet.value);
      break;
    case kChannel:
      if (r.fd_count == 1 && is_channel(r.fds[0]) &&
          take_channel(r.packet.domain, r.packet.value, r.packet.value2, r.packet.reserved, r.fds[0]))
        r.fd_count = 0;
      break;
    case kSharersBell: hear_sharer(r); break;
    case kTaken: ticket_was_taken(r.packet.value); break;
    case kReconsider: waiting.called(r.packet.value); break;
    default: break;
  }
  for (int i = 0; i < r.fd_count; ++i) close_own(r.fds[i]);
}

void Peers::news(Pair& p, uint32_t slot) {
  TcpSocket* s = p.socket_at(slot);
  if (s != nullptr && !p.begins(slot) && p.in().slot(slot).generation.load(std::memory_order_acquire) != s->generation) {
    // The initiator has gone on to another connection: ours was over.
    s->dead = true;
    if (s->closed) {
      (void)s->wind_up();
      s = nullptr;
    }
  }
  if (s != nullptr) {
    s->on_news();
  } else if (!p.begins(slot)) {
    accept_incoming(p, slot);
  }
}

void Peers::scan(Pair& p) {
  uint32_t left = p.connections();
  for (uint32_t s = 0; s < p.slot_limit() && left > 0; ++s) {
    TcpSocket* socket = p.socket_at(s);
    if (socket == nullptr) continue;
    --left;
    if (socket->is_abandoned() && !socket->reset_noted) socket->announce();
    if (socket->theirs == nullptr || socket->is_left_behind_by_peer()) socket->attach();
    if (socket->theirs == nullptr) continue;
    uint64_t tail = socket->theirs->tail.load(std::memory_order_acquire);
    uint64_t head = socket->theirs->head.load(std::memory_order_acquire);
    uint32_t state = socket->theirs->state.load(std::memory_order_acquire);
    if (tail == socket->scanned_tail && head == socket->scanned_head && state == socket->scanned_state) continue;
    socket->scanned_tail = tail;
    socket->scanned_head = head;
    socket->scanned_state = state;
    socket->on_news();
  }
}

void Peers::take_packets() {
  ReceivedPacket r;
  while (coordinator.take_packet(r)) take(r);
}

bool Peers::take_channel(DomainId from, uint32_t generation, uint32_t slot, uint32_t slot_generation, int fd) {
  for (int tries = 0; tries < 2; ++tries) {
    if (tries > 0) hear();  // the connection is there, but was not looked at
    for (uint32_t i = 0; i < count(); ++i) {
      Pair& p = *pairs_[i];
      TcpSocket* s = p.generation() == generation && slot < p.slot_limit() ? p.socket_at(slot) : nullptr;
      if (s != nullptr && s->generation == slot_generation && s->takes_channel(from, fd)) return true;
    }
  }
  return false;
}

void Peers::drain() {
  take_packets();
  if (lost_) give_up_unmet();
  hear();
  if (!coordinator.connected() && any()) look_for_the_dead();
  if (is_unfinished()) finish_redirects();
  if (waiting.is_called()) waiting.answer_calls();
  if (gone_ > 0 || left_ || is_unswept()) sweep();
}

void Peers::hear() {
  for (uint32_t i = 0; i < count(); ++i) {
    Pair& p = *pairs_[i];
    // The peer's region came, or comes, after the fork: it is to be had from the coordinator.
    if (p.inherited && !p.in() && !coordinator.connected()) (void)coordinator.ensure();
    if (p.offer() >= 0 && p.twin == nullptr) {
      bool frozen = p.is_peer_frozen();  // looked at first: one that has met us may fork
      if (p.peer_attached()) p.forget_offer();
      // Who was asked to meet us maps our region at once, or throws its own away.
      else if (frozen && chooses(p.peer(), p.generation())) give_up(p, true);
    }
    if (p.inherited || p.take_sharers_news()) scan(p);
    if (p.inherited) continue;
    uint32_t slots[64];
    while (uint32_t n = p.take_news(slots, 64))
      for (uint32_t k = 0; k < n; ++k) news(p, slots[k]);
  }
}

void Peers::finish_redirects() {
  unfinished_.store(false, std::memory_order_relaxed);  // set again where that fails
  for (uint32_t i = 0; i < count(); ++i) {
    Pair& p = *pairs_[i];
    for (uint32_t s = 0; s < p.slot_limit(); ++s)
      if (TcpSocket* socket = p.socket_at(s)) socket->closed ? (void)socket->wind_up() : socket->redirect(false, false);
  }
}

bool Peers::has_news() const {
  if (coordinator.has_packets()) return true;
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->inherited ? pairs_[i]->has_unscanned() : pairs_[i]->has_news()) return true;
  return false;
}

bool Peers::has_inherited_few() const {
  constexpr uint32_t kFewSlots = 16;
  uint32_t slots = 0;
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->inherited) slots += pairs_[i]->slot_limit();
  return slots <= kFewSlots;
}

// Of a reader that enters and a sweep that begins at once, at least one sees the other: the
// reader then waits for the sweep to end, which holds control_lock.
void Peers::begin_look(uint32_t listener) {
  enter();
  note_cpu();
  if (listener == 0 || count() > kMostTold) return;
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->takes_connections()) pairs_[i]->begin_look(listener);
}

void Peers::end_look(uint32_t listener) {
  if (listener != 0)
    for (uint32_t i = 0; i < count(); ++i) pairs_[i]->end_look();
  leave();
}

void Peers::enter() {
  readers_.fetch_add(1, std::memory_order_acq_rel);
  sleep_wake_fence();
  if (!sweeping_.load(std::memory_order_acquire)) return;
  readers_.fetch_sub(1, std::memory_order_acq_rel);
  Guard guard(control_lock);
  readers_.fetch_add(1, std::memory_order_acq_rel);
}

void Peers::sweep() {
  sweeping_.store(true, std::memory_order_release);
  sleep_wake_fence();
  bool alone = readers_.load(std::memory_order_acquire) == 0;
  unswept_.store(!alone, std::memory_order_relaxed);  // a hint, under the lock
  if (alone) retire_over();
  sweeping_.store(false, std::memory_order_release);
}

void Peers::retire_over() {
  left_ = false;
  uint32_t kept = 0, n = count();
  for (uint32_t i = 0; i < n; ++i) {
    Pair* p = pairs_[i];
    bool left = p->is_left();
    // What the peer began before it left is in the queue by now: not to be thrown away unheard.
    bool unheard = left && p->has_news();
    left_ |= unheard;
    // What was passed to us may be followed by more, as long as there is somebody to pass it.
    bool unused = p->received != 0 && !coordinator.directory()->is_alive(p->writer());
    bool over = (p->gone || (left && !unheard) || unused) && p->connections() == 0 &&
                (p->twin == nullptr || p->twin->connections() == 0);  // which has the same memory
    if (!over) {
      pairs_[kept++] = p;
      continue;
    }
    forget_routes_to(*p);
    p->finish();
    release_cell(*p);
    if (p->gone && gone_ > 0) --gone_;
  }
  count_.store(kept, std::memory_order_release);
  if (kept < n && has_inherited_) forget_takers_bells([](DomainId maker) { return peers.hold_what_passed(maker); });
}

// ---- passing ------------------------------------------------------------------------------

Pair* Peers::find_passing(uint32_t number) {
  for (uint32_t i = 0; i < count(); ++i) {
    Pair& p = *pairs_[i];
    if (p.received == number || (p.pass != nullptr && p.pass->number() == number)) return &p;
  }
  return nullptr;
}

Pair* Peers::adopt(const ReceivedPacket& r) {
  PairHeader h;
  if (r.fd_count < 3 || kernel::pread(r.fds[0], &h, sizeof h, 0) != sizeof h) return nullptr;
  int error = 0;
  Pair* p = create(h.writer, h.reader, h.generation, error);
  if (p == nullptr) return nullptr;
  if (p->adopt(r.fds[0]) != 0 || !hear_takers_bell(r.fds[1], h.maker)) {
    discard(*p);
    return nullptr;
  }
  // Whom we cannot hear, or cannot wake, with that one there is no talking.
  int bell = r.packet.domain != 0 ? move_high(libc.fcntl(r.fds[2], F_DUPFD_CLOEXEC, 0)) : -1;
  if ((r.packet.domain != 0 && bell < 0) || (r.fd_count > 3 && p->attach_in(r.fds[3]) != 0)) {
    close_own(bell);
    discard(*p);
    return nullptr;
  }
  p->received = r.packet.value;
  p->made_under = coordinator.incarnation();
  if (r.packet.domain != 0) p->set_bell(bell, r.packet.domain);
  has_inherited_ = left_ = true;
  ++additions_;
  pairs_[count()] = p;
  count_.fetch_add(1, std::memory_order_release);
  // Each of them counts; and they do not listen to the new bell yet.
  for (uint32_t i = 0; i < sleepers_; ++i) p->set_sleeping(true);
  wake_sleepers();
  if (!coordinator.directory()->is_alive(h.reader)) {
    p->gone = true;
    ++gone_;
  }
  return p;
}

void Peers::look_at(Pair& p, TcpSocket& s) {
  if (p.gone || !coordinator.directory()->is_alive(p.peer())) s.on_peer_gone(p.peer());
  s.on_news();
}

bool Peers::hold_what_passed(DomainId maker) const {
  for (uint32_t i = 0; i < count(); ++i)
    if (pairs_[i]->received != 0 && pairs_[i]->out().header().maker == maker) return true;
  return false;
}

// ---- sleeping -----------------------------------------------------------------------------

void Peers::begin_sleep(uint32_t accepting) {
  Guard guard(control_lock);
  if (has_inherited_ && sleepers_ == 0 && sleeps_ < kSleepsBeforeBell && ++sleeps_ == kSleepsBeforeBell) join_sharers();
  ++sleepers_;
  if (accepting != 0) accepting_ = acceptors_++ == 0 || accepting_ == accepting ? accepting : kEveryListener;
  for (uint32_t i = 0; i < count(); ++i) pairs_[i]->set_sleeping(true);
  if (link_changed.exchange(false, std::memory_order_relaxed)) {  // a sign that is looked into
    coordinator.check_lost();
    coordinator.try_again();
  }
  coordinator.set_sleeping(true, accepting_);
}

void Peers::end_sleep(uint32_t accepting) {
  Guard guard(control_lock);
  --sleepers_;
  if (accepting != 0 && --acceptors_ == 0) accepting_ = 0;
  // Others may sleep on: they are to be rung again for what comes now.
  bool asleep = sleepers_ > 0;
  for (uint32_t i = 0; i < count(); ++i) {
    if (pairs_[i]->counts_sleepers() && asleep) pairs_[i]->set_sleeping(false);
    else pairs_[i]->set_sleeping(asleep);
  }
  coordinator.set_sleeping(asleep, accepting_);
}

// The bell that we have from our parent wakes all of its children. A process that goes on living with
// what it inherited gets one of its own.
void Peers::join_sharers() {
  if (!coordinator.ensure()) {
    sleeps_ = 0;  // later, then
    return;
  }
  each([](Pair& p) {
    if (p.gone || p.connections() == 0 || !p.join_sharers()) return;
    coordinator.hand_bell(p.peer(), p.generation(), p.writer());
  });
}

void Peers::hear_sharer(const ReceivedPacket& r) {
  if (r.fd_count != 1) return;
  each([&](Pair& p) {
    if (p.peer() != r.packet.value2 || p.generation() != r.packet.value || p.twin != nullptr) return;
    RaisedLimit raised;
    int bell = move_high(libc.fcntl(r.fds[0], F_DUPFD_CLOEXEC, 0));
    if (bell >= 0) p.hear_sharer(r.packet.domain, bell);
  });
}

void Peers::wake_sleepers() const {
  if (sleepers_ > 0) ring_own_bell();
}

uint32_t Peers::a_remote_cpu() const {
  uint32_t mine = current_cpu();
  for (uint32_t i = 0; i < count(); ++i) {
    const Pair& p = *pairs_[i];
    // Without a connection too: the next one may be about to begin.
    if (!p.gone && p.peer_cpu() != mine) return p.peer_cpu();
  }
  return mine;
}

void Peers::note_cpu() {
  uint32_t cpu = current_cpu();
  for (uint32_t i = 0; i < count(); ++i) pairs_[i]->note_cpu(cpu);
}

void Peers::listener_closed() {
  each([](Pair& p) { p.close_listener(); });
}

void Peers::announce_all() {
  take_packets();  // of the last one
  if (lost_) give_up_unmet();
  forget_all_routes();  // the ids in them were the old coordinator's
  for (TcpSocket* s = listeners; s != nullptr; s = s->next_listener) s->announce_again();
  waiting.coordinator_is_back();
  each([](Pair& p) {
    if (p.twin != nullptr || (p.gone && p.connections() == 0)) return;
    coordinator.announce_pair(p.peer(), p.generation(), p.peer_pid());  // also the dead: others may hold their connections
    if (p.offer() >= 0 && !p.gone && !p.peer_attached()) coordinator.offer_again(p.peer(), p.generation(), p.offer());
  });
  each([](Pair& p) {
    for (uint32_t s = 0; s < p.slot_limit(); ++s)
      if (TcpSocket* socket = p.socket_at(s)) socket->coordinator_is_back();
  });
}

// ---- fork ---------------------------------------------------------------------------------

void Peers::share_with(DomainId who) {
  each([&](Pair& p) {
    if (p.connections() + (p.twin != nullptr ? p.twin->connections() : 0) == 0) return;
    p.freeze();
    for (uint32_t s = 0; s < p.slot_limit(); ++s)
      if (TcpSocket* socket = p.socket_at(s)) socket->share_with(who);
  });
}

void Peers::become_child() {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < count(); ++i) {
    Pair* p = pairs_[i];
    if (p->connections() + (p->twin != nullptr ? p->twin->connections() : 0) == 0) {
      p->finish();  // the parent keeps it to itself
      continue;
    }
    p->become_inherited();
    has_inherited_ = true;
    p->forget_offer();  // the parent's to make
    pairs_[kept++] = p;
  }
  count_.store(kept, std::memory_order_release);
  each([](Pair& p) {
    for (uint32_t s = 0; s < p.slot_limit(); ++s)
      if (TcpSocket* socket = p.socket_at(s)) socket->become_child();
  });
  sleepers_ = acceptors_ = accepting_ = sleeps_ = 0;
  gone_ = 0;
  waiting.become_child();
  readers_.store(0, std::memory_order_relaxed);  // one thread
  hear_of_the_dead();
}

// Who died before we were known to the coordinator: nobody tells us.
void Peers::hear_of_the_dead() {
  const Directory* d = coordinator.directory();
  for (uint32_t i = 0; d != nullptr && i < count(); ++i)
    if (!pairs_[i]->gone && pairs_[i]->twin == nullptr && !d->is_alive(pairs_[i]->peer())) peer_gone(pairs_[i]->peer());
}

}  // namespace sluice::preload
