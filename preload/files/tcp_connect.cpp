// The life of a connection: begun, taken by the other side, let go, wound up; and its
// sharing by fork.
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
#include "preload/iov_cursor.h"
#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/peers.h"
#include "preload/pool.h"
#include "preload/routes.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

constinit Pool<TcpSocket> pool;
constexpr int kRedirectTries = 16;
constexpr int64_t kKernelMs = 1000;

// A socket of UDP can be bound to an address of this host and to no other.
bool is_local(const SocketName& n) {
  static SocketName last{};
  if (is_loopback(n) || is_any(n)) return true;
  if (memcmp(last.address, n.address, sizeof n.address) == 0) return true;
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  memcpy(&a.sin6_addr, n.address, sizeof n.address);
  int s = libc.socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool local = s >= 0 && libc.bind(s, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
  if (s >= 0) libc.close(s);
  if (local) last = n;
  return local;
}

// The address that the kernel would choose as source towards an address of this host.
SocketName source_for(const SocketName& to) {
  SocketName s = to;
  s.port = 0;
  if (is_v4(to) && to.address[12] == 127) {
    const uint8_t loopback[4] = {127, 0, 0, 1};
    memcpy(s.address + 12, loopback, sizeof loopback);
  }
  return s;
}

// Connecting to the wildcard address means the loopback address.
SocketName concrete(SocketName to) {
  if (!is_any(to)) return to;
  if (is_v4(to)) {
    const uint8_t loopback[4] = {127, 0, 0, 1};
    memcpy(to.address + 12, loopback, sizeof loopback);
  } else {
    to.address[15] = 1;
  }
  return to;
}

void clear_slot(Slot& s) {
  // The peer reads none of this before it sees the new generation.
  constexpr auto relaxed = std::memory_order_relaxed;  // ordered by the generation's release
  s.tail.store(0, relaxed);
  s.state.store(0, relaxed);
  s.wants.store(0, relaxed);
  s.switches.store(0, relaxed);
  s.head.store(0, relaxed);
  s.send_lock.store(0, relaxed);
  s.receive_lock.store(0, relaxed);
  for (Shared<DomainId>& h : s.holders) h.store(kNobody, relaxed);
  s.holders[0].store(coordinator.self(), relaxed);
  s.holders_overflow.store(0, relaxed);
  s.urgent.store(0, relaxed);
}

}  // namespace

// ---- names --------------------------------------------------------------------------------

bool is_v4(const SocketName& n) {
  static constexpr uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return memcmp(n.address, prefix, sizeof prefix) == 0;
}

bool is_any(const SocketName& n) {
  static constexpr uint8_t zero[16] = {};
  return memcmp(n.address + (is_v4(n) ? 12 : 0), zero, is_v4(n) ? 4 : 16) == 0;
}

bool is_loopback(const SocketName& n) {
  static constexpr uint8_t one[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return is_v4(n) ? n.address[12] == 127 : memcmp(n.address, one, sizeof one) == 0;
}

int parse_name(const sockaddr* a, socklen_t length, SocketName& out) {
  out = {};
  if (a == nullptr || length < sizeof a->sa_family) return -EINVAL;
  out.family = a->sa_family;
  if (a->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    auto* v4 = reinterpret_cast<const sockaddr_in*>(a);
    out.address[10] = out.address[11] = 0xff;
    memcpy(out.address + 12, &v4->sin_addr, 4);
    out.port = ntohs(v4->sin_port);
    return 0;
  }
  if (a->sa_family == AF_INET6 && length >= offsetof(sockaddr_in6, sin6_scope_id)) {
    auto* v6 = reinterpret_cast<const sockaddr_in6*>(a);
    memcpy(out.address, &v6->sin6_addr, 16);
    out.port = ntohs(v6->sin6_port);
    return 0;
  }
  return a->sa_family == AF_INET || a->sa_family == AF_INET6 ? -EINVAL : -EAFNOSUPPORT;
}

void format_name(const SocketName& name, int family, sockaddr* out, socklen_t* length) {
  if (out == nullptr || length == nullptr) return;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(name.port);
  memcpy(&v4.sin_addr, name.address + 12, 4);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(name.port);
  memcpy(&v6.sin6_addr, name.address, 16);
  const void* from = family == AF_INET ? static_cast<const void*>(&v4) : &v6;
  socklen_t size = family == AF_INET ? sizeof v4 : sizeof v6;
  memcpy(out, from, *length < size ? *length : size);
  *length = size;
}

// ---- begun --------------------------------------------------------------------------------

TcpSocket* create_socket(int family) { return pool.create(family); }
void destroy_socket(TcpSocket* s) { pool.destroy(s); }

// 0, -EINPROGRESS, another -errno, or 1: the kernel has to do it.
int TcpSocket::connect(int fd, const SocketName& wanted) {
  if (state == TcpState::kListening) return -EISCONN;
  if (state == TcpState::kConnected) {
    if (connect_reported) return -EISCONN;
    connect_reported = true;
    return reset_noted ? -take_error() : 0;
  }
  SocketName to = concrete(wanted);
  if (family == AF_INET && wanted.family != AF_INET) return 1;
  if (to.port == 0) return 1;
  Fallback why = Fallback::kNoCoordinator;
  Route* route = nullptr;
  if (coordinator.ensure()) {
    why = Fallback::kNoListener;
    bool known = coordinator.directory()->has_port(to.port);
    if (known && !is_local(to)) return 1;
    if (known) route = find_route(to, kNobody, 0, why);
  }
  if (route != nullptr && !route->pair->peer_lives()) {
    why = Fallback::kNoListener;
    route = nullptr;
  }
  if (route != nullptr && !has_room(*route)) {
    why = Fallback::kBacklogFull;
    route = nullptr;
  }
  SocketName from = source_for(to);
  if (route != nullptr && bound) {
    sockaddr_storage name;
    socklen_t length = sizeof name;
    SocketName bound_name;
    if (libc.getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0 ||
        parse_name(reinterpret_cast<sockaddr*>(&name), length, bound_name) != 0)
      return 1;
    uint16_t port = bound_name.port != 0 ? bound_name.port : take_port();  // IP_BIND_ADDRESS_NO_PORT
    if (!is_any(bound_name)) from = bound_name;
    from.port = port;
  } else if (route != nullptr && (from.port = take_port()) == 0) {
    why = Fallback::kNoPorts;
    route = nullptr;
  }
  uint32_t index = 0;
  if (route != nullptr && !route->pair->take_slot(index)) {
    if (!bound) give_port(from.port);
    why = Fallback::kNoMemory;
    route = nullptr;
  }
  if (route == nullptr) {
    coordinator.count_fallback(why);
    return 1;
  }
  ++route->begun;
  begin(*route->pair, index, route->listener, from, to);
  coordinator.count(kConnects);
  coordinator.count(kOpen);
  if (route->granted) coordinator.count(kConnectsGranted);
  connect_reported = !nonblocking;
  announce();
  return nonblocking ? -EINPROGRESS : 0;
}

void TcpSocket::begin(Pair& p, uint32_t index, uint32_t listener_asked, const SocketName& from, const SocketName& to) {
  pair = &p;
  slot = index;
  initiator = true;
  mine = &p.out().slot(index);
  theirs = nullptr;
  head_seen = 0;
  last_push = 0;
  urgent_taken = 0;
  local = from;
  remote = to;
  generation = mine->generation.load(std::memory_order_relaxed) + 1;  // ours alone
  clear_slot(*mine);
  mine->listener = listener_asked;
  mine->initiator = from;
  mine->acceptor = to;
  mine->generation.store(generation, std::memory_order_release);
  state = TcpState::kConnected;
  p.put_socket(index, this);
  sleep_wake_fence();
  p.push_news(slot, last_push);
}

bool TcpSocket::accept_from(Pair& p, uint32_t index) {
  Slot& peer = p.in().slot(index);
  pair = &p;
  slot = index;
  generation = peer.generation.load(std::memory_order_acquire);
  remote = peer.initiator;
  local = peer.acceptor;
  mine = &p.out().slot(index);
  theirs = &peer;
  clear_slot(*mine);
  mine->generation.store(generation, std::memory_order_release);
  state = TcpState::kConnected;
  p.put_socket(index, this);
  return true;
}

void TcpSocket::attach() {
  if (theirs != nullptr || pair == nullptr || !pair->in()) return;
  Slot& peer = pair->in().slot(slot);
  if (peer.generation.load(std::memory_order_acquire) == generation) theirs = &peer;
}

void TcpSocket::on_news() {
  if (state != TcpState::kConnected) return;
  attach();
  if (theirs == nullptr) return;
  if (closed) {
    (void)wind_up();
    return;
  }
  if ((remote_state() & kRedirect) != 0) redirect(false, false);
  announce();
}

void TcpSocket::on_peer_gone(DomainId who) {
  if (state != TcpState::kConnected || dead) return;
  attach();
  bool concerned = pair->peer() == who;
  for (uint32_t i = 0; theirs != nullptr && i < kHolders; ++i)
    concerned |= theirs->holders[i].load(std::memory_order_acquire) == who;
  if (!concerned) return;
  const Directory* d = coordinator.directory();
  bool alive = d->is_alive(pair->peer());
  if (theirs != nullptr) {
    alive = false;
    for (Shared<DomainId>& h : theirs->holders) {
      DomainId holder = h.load(std::memory_order_acquire);
      if (holder != kNobody && holder != who && d->is_alive(holder)) alive = true;
    }
  }
  if (alive) return;
  uint32_t said = theirs != nullptr ? theirs->state.load(std::memory_order_acquire) : 0;
  if (initiator && !shared && (said & (kAccepted | kClosed)) == 0) {
    // It waited in the backlog: a sibling of the dead may take it, as from the kernel's.
    orphaned = true;
    if (closed) {
      (void)wind_up();
      return;
    }
    if (theirs != nullptr) futex_wake(theirs->doorbell);  // our own threads that wait there
    redirect(false, false);
    announce();
    return;
  }
  dead = true;
  if (closed) {
    (void)wind_up();
    return;
  }
  if (theirs != nullptr) futex_wake(theirs->doorbell);  // our own threads that wait there
  announce();
}

// ---- sent elsewhere -----------------------------------------------------------------------

void TcpSocket::redirect(bool sending, bool receiving) {
  if (dead || shared || !initiator || (remote_state() & kRedirect) == 0) return;
  // A thread that is just sending or receiving may look into the socket no more after that: it is
  // up to us to come again.
  if (!sending && !send_lock.try_lock()) return peers.leave_unfinished();
  if (receiving || receive_lock.try_lock()) {
    redirect_locked();
    if (!receiving) receive_lock.unlock();
  } else {
    peers.leave_unfinished();
  }
  if (!sending) send_lock.unlock();
}

void TcpSocket::redirect_locked() {
  // Nobody has read a byte of it: what was sent so far goes along.
  uint64_t sent = mine->tail.load(std::memory_order_relaxed);  // ours
  std::byte* copy = sent > 0 ? static_cast<std::byte*>(malloc(sent)) : nullptr;
  if (sent > 0 && copy == nullptr) return abandon(kReset | kClosed);
  static constinit Slot untouched{};
  ByteConsumer own(pair->out(), *mine, untouched);  // from the first byte on
  for (uint64_t at = 0; at < sent;) {
    Pieces<const std::byte> p;
    if (own.observe(p, at) != 0 || p.bytes() == 0) break;
    memcpy(copy + at, p.first, p.first_bytes);
    memcpy(copy + at + p.first_bytes, p.second, p.second_bytes);
    at += p.bytes();
  }
  uint64_t urgent = mine->urgent.load(std::memory_order_relaxed);               // ours
  bool finished = (mine->state.load(std::memory_order_relaxed) & kFin) != 0;  // ours
  DomainId avoid = pair->peer();
  uint32_t avoid_listener = mine->listener;
  Route* route = nullptr;
  uint32_t index = 0;
  for (int i = 0; i < kRedirectTries && route == nullptr; ++i) {
    Fallback why;
    route = find_route(remote, avoid, avoid_listener, why);
    if (route == nullptr) break;
    if (route->pair == pair && route->listener == avoid_listener) route = nullptr;
  }
  if (route != nullptr && !route->pair->take_slot(index)) route = nullptr;
  int kernel_fd = route == nullptr ? connect_kernel(copy, sent, finished) : -1;
  if (route == nullptr && kernel_fd < 0) {
    free(copy);
    return abandon(kReset | kClosed);
  }
  orphaned = false;
  Pair* old_pair = pair;
  uint32_t old_slot = slot;
  mine->state.fetch_or(kFin | kClosed, std::memory_order_release);
  free_rings();
  old_pair->remove_socket(old_slot);
  old_pair->give_slot(old_slot);
  if (route == nullptr) {
    leave_for_kernel(kernel_fd);
  } else {
    begin(*route->pair, index, route->listener, local, remote);
    if (urgent != 0) mark_urgent(urgent);
    ByteProducer out(pair->out(), *mine, nullptr, head_seen);
    for (uint64_t at = 0; at < sent;) {
      iovec iov{copy + at, size_t(sent - at)};
      ssize_t n = send_now(&iov, 1, 0);
      if (n <= 0) break;
      at += uint64_t(n);
    }
    if (finished) mine->state.fetch_or(kFin | (closed ? kClosed : 0u), std::memory_order_release);
    sleep_wake_fence();
    pair->push_news(slot, last_push);
  }
  free(copy);
}

namespace {

bool wait_writable(int fd, const Deadline& deadline) {
  while (!deadline.passed()) {
    timespec left = deadline.left();
    pollfd p{fd, POLLOUT, 0};
    if (libc.ppoll(&p, 1, &left, nullptr) > 0) return (p.revents & (POLLERR | POLLHUP)) == 0;
  }
  return false;
}

bool send_all(int fd, const std::byte* bytes, uint64_t n, const Deadline& deadline) {
  for (uint64_t at = 0; at < n;) {
    ssize_t k = libc.send(fd, bytes + at, n - at, MSG_NOSIGNAL);
    if (k > 0) at += uint64_t(k);
    else if (k == 0 || errno != EAGAIN || !wait_writable(fd, deadline)) return false;
  }
  return true;
}

}  // namespace

// No process with the shim accepts there any more: perhaps one without it does. A kernel
// socket that is connected and has been sent the bytes; or -1. All this is done under the lock, so
// that a listener whose backlog is full, or that does not read, may not hold us up for long.
int TcpSocket::connect_kernel(const std::byte* bytes, uint64_t n, bool finished) const {
  sockaddr_storage to;
  socklen_t length = sizeof to;
  format_name(remote, family, reinterpret_cast<sockaddr*>(&to), &length);
  int fd = libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  Deadline deadline = Deadline::in_ms(kKernelMs);
  bool connected = libc.connect(fd, reinterpret_cast<sockaddr*>(&to), length) == 0 ||
                   (errno == EINPROGRESS && wait_writable(fd, deadline));
  if (!connected || !send_all(fd, bytes, n, deadline)) {
    libc.close(fd);
    return -1;
  }
  if (finished) libc.shutdown(fd, SHUT_WR);
  if (!nonblocking) libc.fcntl(fd, F_SETFL, O_RDWR);
  return fd;
}

void TcpSocket::leave_for_kernel(int fd) {
  if (!closed) coordinator.count(kOpen, -1);
  if (!bound) give_port(local.port);
  coordinator.count_fallback(Fallback::kNoAcceptor);
  // The pointers stay, for a thread that is about to look through them; the state is what counts.
  theirs = nullptr;
  state = TcpState::kUnconnected;
  uint32_t released;
  hand_to_kernel(*this, fd, released);
  libc.close(fd);
  while (released-- > 0) release_locked();
}

// ---- let go -------------------------------------------------------------------------------

void TcpSocket::let_go() {
  if (state == TcpState::kListening) stop_listening();
  if (state != TcpState::kConnected) return destroy_socket(this);
  if (counted) coordinator.count(initiator ? kOpen : kOpenAccepted, -1);
  closed = true;
  for (Shared<DomainId>& h : mine->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder == coordinator.self()) h.compare_exchange_strong(holder, kNobody, std::memory_order_acq_rel);
  }
  sleep_wake_fence();  // of two that leave at once, at least one sees that it is the last
  if (shared && others_hold()) {  // it stays open there
    if ((my_state() & kPolite) != 0) ring_family_bells();
    pair->remove_socket(slot);
    destroy_socket(this);
    return;
  }
  bool hard = readable_bytes() > 0 || (linger_option.l_onoff != 0 && linger_option.l_linger == 0);
  mine->state.fetch_or(kFin | kClosed | (hard ? kReset : 0u), std::memory_order_release);
  sleep_wake_fence();
  wake_peer(kWantsBytes | kWantsSpace);
  pair->push_news(slot, last_push);
  (void)wind_up();
}

bool TcpSocket::others_hold() const {
  const Directory* d = coordinator.directory();
  for (Shared<DomainId>& h : mine->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder != kNobody && holder != coordinator.self() && d->is_alive(holder)) return true;
  }
  return false;
}

void TcpSocket::be_polite() {
  if (!coordinator.connected()) return;  // nobody would tell of the others' deaths
  polite = true;
  mine->state.fetch_or(kPolite, std::memory_order_release);
}

bool TcpSocket::wind_up() {
  attach();
  if ((my_state() & kReset) == 0 && (remote_state() & kRedirect) != 0) {
    redirect(false, false);  // closed before anybody accepted it: its bytes are to arrive all the same
    if (state != TcpState::kConnected) {
      destroy_socket(this);
      return true;
    }
  }
  bool over = dead || (theirs != nullptr && (theirs->state.load(std::memory_order_acquire) & kClosed) != 0);
  if (!over) return false;
  free_rings();
  pair->remove_socket(slot);
  if (initiator && !pair->inherited) {
    pair->give_slot(slot);
    if (!bound) give_port(local.port);
  }
  destroy_socket(this);
  return true;
}

void TcpSocket::free_rings() {
  uint32_t n = mine->switches.load(std::memory_order_relaxed);  // our own
  for (uint32_t i = 0; i < 2 && i < n; ++i) {
    RingRef r = mine->rings[(n - i) & 1];
    pair->give_ring(r.page, r.size_log2);
  }
}

// ---- fork ---------------------------------------------------------------------------------

void TcpSocket::share_with(DomainId who) {
  if (closed || listener != nullptr) return;  // what waits for accept() stays the parent's
  shared = true;
  // The child cannot allocate in a region that is ours: it gets a ring to send with now.
  if (mine->switches.load(std::memory_order_relaxed) == 0) (void)grow(size_t{1} << kLargestRingLog2);  // our own
  const Directory* d = coordinator.directory();
  for (Shared<DomainId>& h : mine->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder != kNobody && d->is_alive(holder)) continue;
    h.store(who, std::memory_order_release);
    return;
  }
  mine->holders_overflow.store(1, std::memory_order_release);
}

void TcpSocket::become_child() {
  if (closed || listener != nullptr) {  // the parent's to wind up, or to accept
    pair->remove_socket(slot);
    return;
  }
  counted = false;
  send_lock.reset();
  receive_lock.reset();
  waiting_bytes = waiting_space = 0;
}

}  // namespace sluice::preload
