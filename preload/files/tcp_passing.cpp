// Connections that are passed over AF_UNIX: our side goes on in a passing region, which those to
// whom it is passed can write as we do; and following the peer's side when it has gone to one.
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
#include "preload/pass_region.h"
#include "preload/peers.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

constexpr uint32_t kRingLog2 = 18;
constexpr uint32_t kAllWants = kWantsBytes | kWantsSpace | kWantsSpaceEvent;

uint32_t in_ms(int64_t us) { return us == 0 ? 0 : us < 1000 ? 1 : uint32_t(us / 1000); }

uint32_t flags_of(const TcpSocket& s) {
  uint32_t flags = 0;
  auto set = [&](bool on, uint32_t bit) { flags |= on ? bit : 0; };
  set(s.initiator, kPassedInitiator);
  set(s.nonblocking, kPassedNonblocking);
  set(s.nodelay, kPassedNoDelay);
  set(s.cork, kPassedCork);
  set(s.keepalive, kPassedKeepAlive);
  set(s.urgent_inline, kPassedUrgentInline);
  set(s.reuse_address, kPassedReuseAddress);
  set(s.connect_reported, kPassedReported);
  set(s.family == AF_INET6, kPassedV6);
  return flags;
}

// What the peer has not read yet.
void copy_unread(const PairView& from, const Slot& mine, uint64_t head, uint64_t tail, std::byte* ring, size_t size) {
  Slot reader{};
  reader.head.store(head, std::memory_order_relaxed);  // nobody else sees it
  ByteConsumer own(from, const_cast<Slot&>(mine), reader);
  for (uint64_t at = head; at < tail;) {
    Pieces<const std::byte> p;
    if (own.observe(p, at - head) != 0 || p.bytes() == 0) return;
    for (auto [bytes, n] : {std::pair{p.first, p.first_bytes}, {p.second, p.second_bytes}}) {
      Pieces<std::byte> to = pieces_at(ring, size, at, n);
      memcpy(to.first, bytes, to.first_bytes);
      memcpy(to.second, bytes + to.first_bytes, to.second_bytes);
      at += n;
    }
  }
}

}  // namespace

bool TcpSocket::move_to(PassRegion& region) {
  constexpr auto relaxed = std::memory_order_relaxed;  // ordered by the generation's release, or ours
  uint64_t tail = mine->tail.load(relaxed);
  uint64_t head = theirs != nullptr ? theirs->head.load(std::memory_order_acquire) : 0;
  if (tail - head > uint64_t{1} << kLargestRingLog2) return false;  // or a lie
  uint32_t size_log2 = tail - head > uint64_t{1} << kRingLog2 ? kLargestRingLog2 : kRingLog2;
  uint32_t page;
  if (!region.take_ring(slot, generation, size_log2, page)) return false;
  size_t size = size_t{1} << size_log2;
  copy_unread(to(), *mine, head, tail, region.view().base + size_t{page} * kPageBytes, size);

  Slot* old = mine;
  Slot& there = region.view().slot(slot);
  there.tail.store(tail, relaxed);
  there.state.store(old->state.load(relaxed), relaxed);
  there.wants.store(kAllWants, relaxed);  // of threads that wait in the old slot, too
  there.rings[1] = {head, page, size_log2};
  there.switches.store(1, relaxed);
  there.head.store(old->head.load(relaxed), relaxed);
  there.send_lock.store(0, relaxed);
  there.receive_lock.store(0, relaxed);
  there.listener = 0;
  there.initiator = initiator ? local : remote;
  there.acceptor = initiator ? remote : local;
  there.passed = flags_of(*this);
  there.passed_receive_ms = in_ms(receive_timeout_us);
  there.passed_send_ms = in_ms(send_timeout_us);
  there.passed_linger = linger_option.l_onoff != 0 ? linger_option.l_linger : -1;
  for (Shared<DomainId>& h : there.holders) h.store(kNobody, relaxed);
  there.holders[0].store(coordinator.self(), relaxed);
  there.holders_overflow.store(0, relaxed);
  there.urgent.store(old->urgent.load(relaxed), relaxed);
  there.generation.store(generation, std::memory_order_release);

  RingRef rings[2];
  uint32_t n = old->switches.load(relaxed), count = n < 2 ? n : 2;
  for (uint32_t i = 0; i < count; ++i) rings[i] = old->rings[(n - i) & 1];
  region.free_later(slot, generation, rings, count, tail, initiator && !bound ? local.port : 0);

  preload::waiting.over(*this);
  mine = &there;
  passed = region.number();
  shared = true;
  old->moved_to = region.number();
  old->wants.store(kAllWants, relaxed);  // so that nothing is overlooked until the peer follows
  uint32_t before = old->state.fetch_or(kMoved, std::memory_order_acq_rel);
  there.state.fetch_or(before & ~uint32_t{kMoved | kWithdrawn}, std::memory_order_release);
  sleep_wake_fence();
  old->doorbell.fetch_add(1, std::memory_order_release);
  futex_wake(old->doorbell);
  push_news();
  wake_own_threads();
  return true;
}

void TcpSocket::follow() {
  if ((theirs->state.load(std::memory_order_acquire) & kMoved) == 0) return;  // what it announces is there
  Slot* there = pair->moved_slot(*theirs, slot);
  if (there == nullptr || there == theirs || there->generation.load(std::memory_order_acquire) != generation) return;
  theirs = there;
  followed = true;
  // Who holds it now may have gone to sleep where we did not look.
  sleep_wake_fence();
  if (mine == nullptr) return;
  mine->doorbell.fetch_add(1, std::memory_order_release);
  futex_wake(mine->doorbell);
  pair->ring_takers();
}

void TcpSocket::coordinator_is_back() {
  if (!followed || dead) return;
  for (Shared<DomainId>& h : theirs->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder != kNobody && (holder < kFirstInFlight || coordinator.directory()->is_alive(holder))) return;
  }
  on_peer_gone(pair->peer());
}

bool TcpSocket::unmet_has_news() const { return state == TcpState::kConnected && coordinator.has_packets(); }

void TcpSocket::catch_up() {
  Guard guard(control_lock);
  peers.drain();  // all of it: nobody else sees that there was something
  attach();
}

void TcpSocket::take_over(Pair& p, uint32_t index, uint32_t which) {
  bool ours = p.pass != nullptr && p.received == 0;
  mine = ours ? &p.pass->view().slot(index) : &p.out().slot(index);
  pair = &p;
  slot = index;
  generation = which;
  passed = ours ? p.pass->number() : p.received;
  shared = true;
  uint32_t flags = mine->passed;
  initiator = (flags & kPassedInitiator) != 0;
  nonblocking = (flags & kPassedNonblocking) != 0;
  nodelay = (flags & kPassedNoDelay) != 0;
  cork = (flags & kPassedCork) != 0;
  keepalive = (flags & kPassedKeepAlive) != 0;
  urgent_inline = (flags & kPassedUrgentInline) != 0;
  reuse_address = (flags & kPassedReuseAddress) != 0;
  connect_reported = (flags & kPassedReported) != 0;
  receive_timeout_us = int64_t{mine->passed_receive_ms} * 1000;
  send_timeout_us = int64_t{mine->passed_send_ms} * 1000;
  linger_option = {mine->passed_linger >= 0, mine->passed_linger >= 0 ? mine->passed_linger : 0};
  bound = true;  // the port is not ours to give back
  local = initiator ? mine->initiator : mine->acceptor;
  remote = initiator ? mine->acceptor : mine->initiator;
  state = TcpState::kConnected;
  p.put_socket(index, this);
  coordinator.count(initiator ? kOpen : kOpenAccepted);
  attach();
}

}  // namespace sluice::preload
