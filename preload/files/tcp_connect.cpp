// The life of a connection: begun, taken by the other side, let go, wound up; and its
// sharing by fork.
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/ancillary.h"
#include "preload/files/tcp_socket.h"
#include "preload/iov_cursor.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/peers.h"
#include "preload/pool.h"
#include "preload/routes.h"
#include "preload/user_memory.h"
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
  if (s >= 0) kernel::close(s);
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

}  // namespace

void clear_slot(Slot& s) {
  // The peer reads none of this before it sees the new generation.
  constexpr auto relaxed = std::memory_order_relaxed;  // ordered by the generation's release
  s.tail.store(0, relaxed);
  s.state.store(0, relaxed);
  s.wants.store(0, relaxed);
  s.switches.store(0, relaxed);
  s.ancillaries.store(0, relaxed);
  s.ancillaries_taken.store(0, relaxed);
  s.head.store(0, relaxed);
  s.send_lock.store(0, relaxed);
  s.receive_lock.store(0, relaxed);
  for (Shared<DomainId>& h : s.holders) h.store(kNobody, relaxed);
  s.holders[0].store(coordinator.self(), relaxed);
  s.holders_overflow.store(0, relaxed);
  s.urgent.store(0, relaxed);
  for (Shared<DomainId>& m : s.channel_makers) m.store(kNobody, relaxed);
}

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

int format_name(const SocketName& name, int family, sockaddr* out, socklen_t* length) {
  if (out == nullptr || length == nullptr) return -EFAULT;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(name.port);
  memcpy(&v4.sin_addr, name.address + 12, 4);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(name.port);
  memcpy(&v6.sin6_addr, name.address, 16);
  const void* from = family == AF_INET ? static_cast<const void*>(&v4) : &v6;
  return put_sized(out, length, from, family == AF_INET ? sizeof v4 : sizeof v6);
}

// ---- begun --------------------------------------------------------------------------------

TcpSocket* create_socket(int family, bool records) { return pool.create(family, records); }
void destroy_socket(TcpSocket* s) {
  waiting.over(*s);
  if (s->channels != nullptr) destroy_channels(s->channels);
  pool.destroy(s);
}

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
    bool denied = false;
    if (known) route = find_route(to, kNobody, 0, !nonblocking, why, denied);
    if (denied) return coordinator.count_fallback(why), -ECONNREFUSED;  // as a firewall would refuse it
  }
  if (route != nullptr && !takes_one_more(*route, why)) route = nullptr;
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
  begin_at(*route, index, from, to);
  connect_reported = !nonblocking;
  announce();
  return nonblocking ? -EINPROGRESS : 0;
}

void TcpSocket::begin_at(Route& route, uint32_t index, const SocketName& from, const SocketName& to) {
  ++route.begun;
  begin(*route.pair, index, route.listener, from, to);
  coordinator.count(kConnects);
  coordinator.count(kOpen);
  if (route.granted) {
    coordinator.count(kConnectsGranted);
    if (route.is_alone()) preload::waiting.begun_alone(*this);
  }
}

void TcpSocket::begin(Pair& p, uint32_t index, uint32_t listener_asked, const SocketName& from, const SocketName& to) {
  pair = &p;
  slot = index;
  initiator = true;
  Slot& fresh = p.out().slot(index);
  clear_slot(fresh);  // before anybody sees the state of whoever had it last
  mine = &fresh;
  theirs = nullptr;
  head_seen = 0;
  last_push = 0;
  urgent_taken = urgent_told = 0;
  local = from;
  remote = to;
  generation = mine->generation.load(std::memory_order_relaxed) + 1;  // ours alone
  mine->listener = listener_asked;
  mine->initiator = from;
  mine->acceptor = to;
  mine->generation.store(generation, std::memory_order_release);
  state = TcpState::kConnected;
  p.put_socket(index, this);
  waiting.listener = listener_asked;
  waiting.incarnation = coordinator.incarnation();
  if (p.twin == nullptr) preload::waiting.begun(*this);
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
  if (pair == nullptr || !pair->in()) return;
  Slot& peer = pair->in().slot(slot);
  if (theirs == nullptr && peer.generation.load(std::memory_order_acquire) == generation) theirs = &peer;
  if (is_left_behind_by_peer()) follow();
}

void TcpSocket::on_news() {
  if (state != TcpState::kConnected) return;
  attach();
  if (theirs == nullptr) return;
  if (closed) {
    (void)wind_up();
    return;
  }
  if (listener != nullptr && (theirs->state.load(std::memory_order_acquire) & kWithdrawn) != 0)
    return listener->give_up(this);
  if ((remote_state() & kRedirect) != 0) redirect(false, false);
  else if (waiting.list == nullptr && is_unaccepted()) preload::waiting.begun(*this);
  let_go_of_far_end();
  announce();
}

void TcpSocket::on_peer_gone(DomainId who) {
  if (state != TcpState::kConnected || dead) return;
  attach();
  bool concerned = pair->peer() == who || followed;
  for (uint32_t i = 0; theirs != nullptr && i < kHolders; ++i)
    concerned |= theirs->holders[i].load(std::memory_order_acquire) == who;
  if (!concerned) return;
  const Directory* d = coordinator.directory();
  bool alive = pair->peer() != who && d->is_alive(pair->peer());  // the directory may be one that nobody writes any more
  if (theirs != nullptr) {
    alive = false;
    for (Shared<DomainId>& h : theirs->holders) {
      DomainId holder = h.load(std::memory_order_acquire);
      if (holder != kNobody && holder != who && d->is_alive(holder)) alive = true;
    }
  }
  if (alive) return;
  uint32_t said = theirs != nullptr ? theirs->state.load(std::memory_order_acquire) : 0;
  bool waited = (said & (kAccepted | kClosed)) == 0 || (said & kRedirect) != 0;
  if (initiator && !shared && !left_behind && waited) {
    // In the backlog, or it was sent away before the end: a sibling may take it, as from the kernel's.
    make_again();
    return;
  }
  dead = true;
  let_go_of_far_end();
  if (closed) {
    (void)wind_up();
    return;
  }
  wake_own_threads();
  announce();
}

void TcpSocket::on_unmet(bool unseen) {
  if (state != TcpState::kConnected || dead) return;
  attach();
  uint32_t said = theirs != nullptr ? theirs->state.load(std::memory_order_acquire) : 0;
  if (!unseen || !initiator || shared || left_behind || (said & kAccepted) != 0) {
    abandon(kReset | kClosed);
    if (closed) (void)wind_up();
    else wake_own_threads(), announce();
    return;
  }
  make_again();
}

// Nobody has accepted it, and who could have is gone.
void TcpSocket::make_again() {
  orphaned = true;
  if (closed) {
    (void)wind_up();
    return;
  }
  wake_own_threads();
  redirect(false, false);
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
  uint64_t sent;
  std::byte* copy = copy_sent(sent);
  if (sent > 0 && copy == nullptr) return abandon(kReset | kClosed);
  uint64_t urgent = mine->urgent.load(std::memory_order_relaxed);               // ours
  uint32_t finished = mine->state.load(std::memory_order_relaxed) & (kFin | kFinished);  // ours
  DomainId avoid = pair->peer();
  uint32_t avoid_listener = mine->listener;
  Route* route = nullptr;
  uint32_t index = 0;
  bool denied = false;  // by a policy that came meanwhile: then it is nowhere to go
  for (int i = 0; i < kRedirectTries && route == nullptr; ++i) {
    Fallback why;
    route = find_route(remote, avoid, avoid_listener, false, why, denied);
    if (route == nullptr) break;
    if (route->pair == pair && route->listener == avoid_listener) route = nullptr;
  }
  if (route != nullptr && !route->pair->take_slot(index)) route = nullptr;
  int kernel_fd = route == nullptr && !denied ? connect_kernel(copy, sent, finished) : -1;
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
    begin_again(*route->pair, index, route->listener, copy, sent, urgent);
    if (finished != 0) mine->state.fetch_or(finished | (closed ? kClosed : 0u), std::memory_order_release);
    after_publish();  // perhaps it is accepted by now, and a thread waits for bytes
  }
  free(copy);
}

// Nobody has read a byte of it: what was sent so far goes along.
std::byte* TcpSocket::copy_sent(uint64_t& sent) const {
  sent = mine->tail.load(std::memory_order_relaxed);  // ours
  std::byte* copy = sent > 0 ? static_cast<std::byte*>(malloc(sent)) : nullptr;
  if (copy == nullptr) return nullptr;
  static constinit Slot untouched{};
  ByteConsumer own(to(), *mine, untouched);  // from the first byte on
  for (uint64_t at = 0; at < sent;) {
    Pieces<const std::byte> p;
    if (own.observe(p, at) != 0 || p.bytes() == 0) break;
    memcpy(copy + at, p.first, p.first_bytes);
    memcpy(copy + at + p.first_bytes, p.second, p.second_bytes);
    at += p.bytes();
  }
  return copy;
}

void TcpSocket::begin_again(Pair& p, uint32_t index, uint32_t listener_asked, const std::byte* copy, uint64_t sent,
                            uint64_t urgent) {
  uint32_t ancillaries = mine->ancillaries.load(std::memory_order_relaxed);  // ours
  begin(p, index, listener_asked, local, remote);
  if (ancillaries != 0) {  // the positions are the same: all that was sent is sent again
    mine->ancillaries.store(ancillaries, std::memory_order_release);
    mine->channel_makers[0].store(coordinator.self(), std::memory_order_release);
    if (hand_out_channel(channels->far) != 0) return abandon(kReset | kClosed);
  }
  if (urgent != 0) mark_urgent(urgent);
  for (uint64_t at = 0; at < sent;) {
    iovec iov{const_cast<std::byte*>(copy) + at, size_t(sent - at)};
    ssize_t n = records ? ssize_t(repeat_record(copy + at, sent - at)) : send_now(&iov, 1, 0);
    if (n <= 0) return abandon(kReset | kClosed);  // without memory: better no connection than one with a gap
    at += uint64_t(n);
  }
}

// ---- taken back ---------------------------------------------------------------------------

bool TcpSocket::is_unaccepted() {
  if (state != TcpState::kConnected || !initiator || shared || dead || orphaned || left_behind) return false;
  if (pair->twin != nullptr || pair->inherited || pair->gone || (my_state() & kReset) != 0) return false;
  attach();
  return theirs == nullptr || (theirs->state.load(std::memory_order_acquire) & (kAccepted | kClosed | kRedirect)) == 0;
}

Moved TcpSocket::move_elsewhere() {
  if (!send_lock.try_lock()) return Moved::kLater;
  Moved moved = Moved::kLater;
  if (receive_lock.try_lock()) {
    moved = move_locked();
    receive_lock.unlock();
  }
  send_lock.unlock();
  return moved;
}

Moved TcpSocket::move_locked() {
  Message m{};
  m.type = kMove;
  m.words[0] = waiting.listener | uint64_t{pair->peer()} << 32;
  memcpy(&m.words[1], remote.address, sizeof remote.address);
  m.words[3] = remote.port;
  int error = coordinator.call(m);
  if (error == -EAGAIN) return Moved::kNobodyIdle;
  if (error == -EBUSY) return Moved::kSoonAccepted;
  uint32_t at = uint32_t(m.words[0] >> 32), index = 0;
  Pair* to = error == 0 ? peers.for_new_connection(uint32_t(m.words[0]), error) : nullptr;
  if (to == nullptr || !to->take_slot(index)) return Moved::kNo;
  uint64_t sent;
  std::byte* copy = copy_sent(sent);
  TcpSocket* rest = sent == 0 || copy != nullptr ? create_socket(family, records) : nullptr;
  if (rest == nullptr || !withdraw()) {
    to->give_slot(index);
    if (rest != nullptr) destroy_socket(rest);
    free(copy);
    return Moved::kNo;
  }
  const Slot* old = theirs;
  uint32_t kept = mine->state.load(std::memory_order_relaxed) & (kFin | kFinished | kDeaf);  // ours
  uint64_t urgent = mine->urgent.load(std::memory_order_relaxed);  // ours
  leave_behind(*rest);
  begin_again(*to, index, at, copy, sent, urgent);
  free(copy);
  if (kept != 0 || closed) mine->state.fetch_or(kept | (closed ? kFin | kClosed : 0u), std::memory_order_release);
  after_publish();  // perhaps it is accepted by now, and a thread waits for bytes
  wake_own_threads(old);
  announce();
  if (to->gone) make_again();  // withdraw() has heard of that, when nothing had begun there yet
  return Moved::kYes;
}

// Takes the connection back unless it was accepted: the acceptor sets kAccepted, full fence, looks at
// kWithdrawn, and gives it up if it sees that. False: it stays, or kRedirect follows.
bool TcpSocket::withdraw() {
  Pair* where = pair;
  uint32_t which = slot;
  // Whose region came to an earlier coordinator only, of that nobody knows whether it accepted.
  if (!pair->in() && pair->made_under != coordinator.incarnation()) return false;
  mine->state.fetch_or(kWithdrawn, std::memory_order_relaxed);  // ordered by the fence
  sleep_wake_fence();
  if (!pair->in()) {
    // Before it takes its first connection the acceptor sends its region. If it has not by now, it
    // will see kWithdrawn.
    if (!coordinator.sync()) {
      mine->state.fetch_and(~uint32_t{kWithdrawn}, std::memory_order_release);
      return false;
    }
    peers.take_packets();
    if (where->socket_at(which) != this) return false;
  }
  return is_unaccepted();
}

// The slot stays taken until the acceptor has answered.
void TcpSocket::leave_behind(TcpSocket& rest) {
  rest.pair = pair;
  rest.slot = slot;
  rest.generation = generation;
  rest.mine = mine;
  rest.theirs = theirs;
  rest.last_push = last_push;
  rest.state = TcpState::kConnected;
  rest.initiator = rest.bound = rest.closed = rest.left_behind = true;
  rest.counted = false;
  pair->remove_socket(slot);
  pair->put_socket(slot, &rest);
  mine->state.fetch_or(kFin | kClosed, std::memory_order_release);
  sleep_wake_fence();
  pair->push_news(slot, rest.last_push);
}

bool wait_writable(int fd, const Deadline& deadline) {
  while (!deadline.passed()) {
    timespec left = deadline.left();
    pollfd p{fd, POLLOUT, 0};
    if (kernel::ppoll(&p, 1, &left) > 0) return (p.revents & (POLLERR | POLLHUP)) == 0;
  }
  return false;
}

namespace {

// A connected kernel socket that does not block; or -1.
int connected_socket(const SocketName& to, int family, const Deadline& deadline) {
  sockaddr_storage a;
  socklen_t length = sizeof a;
  (void)format_name(to, family, reinterpret_cast<sockaddr*>(&a), &length);
  int fd = libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (kernel::connect(fd, reinterpret_cast<sockaddr*>(&a), length) == 0 || (errno == EINPROGRESS && wait_writable(fd, deadline)))
    return fd;
  kernel::close(fd);
  return -1;
}

// Likewise. Here it is the blocking connect that waits while the backlog is full.
int connected_socket(const UnixName& to, int type, const Deadline& deadline) {
  sockaddr_un a;
  socklen_t length = sizeof a;
  (void)to.format(reinterpret_cast<sockaddr*>(&a), &length);
  int fd = libc.socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  timespec left = deadline.left();
  timeval limit{left.tv_sec, left.tv_nsec / 1000 + 1}, none{};
  libc.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (kernel::connect(fd, reinterpret_cast<sockaddr*>(&a), length < sizeof a ? length : sizeof a) == 0) {
    libc.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    libc.fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    return fd;
  }
  kernel::close(fd);
  return -1;
}

}  // namespace

bool send_all(int fd, const std::byte* bytes, uint64_t n, const Deadline& deadline) {
  for (uint64_t at = 0; at < n;) {
    ssize_t k = outside([&] { return libc.send(fd, bytes + at, n - at, MSG_NOSIGNAL); });
    if (k > 0) at += uint64_t(k);
    else if (k < 0 && errno == EINTR) continue;
    else if (k == 0 || errno != EAGAIN || !wait_writable(fd, deadline)) return false;
  }
  return true;
}

// No process with the shim accepts there any more: perhaps one without it does. A kernel
// socket that is connected and has been sent the bytes; or -1. All this is done under the lock, so
// that a listener whose backlog is full, or that does not read, may not hold us up for long.
int TcpSocket::connect_kernel(const std::byte* bytes, uint64_t n, bool finished) const {
  Deadline deadline = Deadline::in_ms(kKernelMs);
  int fd = is_unix() ? connected_socket(asked_name, type(), deadline) : connected_socket(remote, family, deadline);
  if (fd < 0) return -1;
  int far = channels != nullptr ? channels->far : -1;
  if (send_buffer > 0) libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
  bool repeated = records ? repeat_records_in_kernel(far, fd, bytes, n, deadline) : repeat_in_kernel(far, fd, bytes, n, deadline);
  if (!repeated) {
    kernel::close(fd);
    return -1;
  }
  if (finished) libc.shutdown(fd, SHUT_WR);
  if (!nonblocking) libc.fcntl(fd, F_SETFL, O_RDWR);
  return fd;
}

void TcpSocket::leave_for_kernel(int fd) {
  preload::waiting.over(*this);
  if (!closed) coordinator.count(kOpen, -1);
  if (!bound) give_port(local.port);
  coordinator.count_fallback(Fallback::kNoAcceptor);
  // The pointers stay, for a thread that is about to look through them; the state is what counts.
  theirs = nullptr;
  state = TcpState::kUnconnected;
  uint32_t released;
  hand_to_kernel(*this, fd, released);
  kernel::close(fd);
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
  bool hard = readable_bytes() > 0 || (!is_unix() && linger_option.l_onoff != 0 && linger_option.l_linger == 0);
  mine->state.fetch_or(kFin | kClosed | (hard ? kReset : 0u), std::memory_order_release);
  sleep_wake_fence();
  wake_peer(kWantsBytes | kWantsSpace);
  push_news();
  // What is under way is the peer's: if it dies, nothing of ours is to keep that open.
  if (channels != nullptr && (!initiator || was_accepted())) close_sending(*channels);
  (void)wind_up();
}

int TcpSocket::dissolve(uint32_t& released) {
  TcpSocket* fresh = create_socket(family, records);
  if (fresh == nullptr) return -ENOBUFS;
  fresh->real = real;
  fresh->bound = bound;
  fresh->nonblocking = nonblocking;
  fresh->status_flags = status_flags;
  fresh->urgent_inline = urgent_inline;
  fresh->nodelay = nodelay;
  fresh->cork = cork;
  fresh->keepalive = keepalive;
  fresh->reuse_address = reuse_address;
  fresh->linger_option = linger_option;
  fresh->receive_timeout_us = receive_timeout_us;
  fresh->send_timeout_us = send_timeout_us;
  fresh->receive_buffer = receive_buffer;
  fresh->send_buffer = send_buffer;
  fresh->receive_low = receive_low;
  fresh->error.store(ECONNRESET, std::memory_order_relaxed);  // told once, as tcp_disconnect() has it
  mine->state.fetch_or(kFin | kDeaf | kReset, std::memory_order_release);
  reset_noted = true;
  error.store(ECONNRESET, std::memory_order_relaxed);  // told once
  after_publish();
  if (shared) ring_family_bells();
  linger_option = {1, 0};
  wake_own_threads();
  hand_interests_to(*fresh);
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd) {
    if (descriptors.peek(int(fd)) != this) continue;
    (void)descriptors.clear(int(fd));
    (void)remove_descriptor();
    ++released;
    (void)descriptors.set(int(fd), fresh);
  }
  fresh->announce();
  peers.wake_sleepers();
  return 0;
}

bool TcpSocket::others_hold(const Slot& side) const {
  const Directory* d = coordinator.directory();
  for (const Shared<DomainId>& h : side.holders) {
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
  if (!left_behind && (my_state() & kReset) == 0 && (remote_state() & kRedirect) != 0) {
    redirect(false, false);  // closed before anybody accepted it: its bytes are to arrive all the same
    if (state != TcpState::kConnected) {
      destroy_socket(this);
      return true;
    }
  }
  bool over = dead || (theirs != nullptr && (theirs->state.load(std::memory_order_acquire) & kClosed) != 0);
  if (!over) return false;
  if (passed == 0) free_rings();  // else see PassRegion
  pair->remove_socket(slot);
  if (initiator && !pair->inherited && passed == 0) {
    pair->give_slot(slot);
    if (!bound) give_port(local.port);
  }
  destroy_socket(this);
  return true;
}

void TcpSocket::free_rings() {
  uint32_t n = mine->switches.load(std::memory_order_relaxed);  // our own
  uint64_t until = mine->tail.load(std::memory_order_relaxed);   // likewise
  for (uint32_t i = 0; i < 2 && i < n; ++i) {
    RingRef r = mine->rings[(n - i) & 1];
    pair->give_ring(r, until);
    until = r.from;
  }
}

// ---- fork ---------------------------------------------------------------------------------

void TcpSocket::share_with(DomainId who) {
  if (closed || listener != nullptr) return;  // what waits for accept() stays the parent's
  shared = true;
  preload::waiting.over(*this);
  if ((my_state() & kWithdrawn) != 0) mine->state.fetch_and(~uint32_t{kWithdrawn}, std::memory_order_release);
  // The child cannot allocate in a region that is ours: it gets a ring to send with now.
  if (records) grow_for_child();
  else if (mine->switches.load(std::memory_order_relaxed) == 0) (void)grow(size_t{1} << kLargestRingLog2);  // our own
  if (!add_holder(who)) mine->holders_overflow.store(1, std::memory_order_release);
}

bool TcpSocket::add_holder(DomainId who) {
  const Directory* d = coordinator.directory();
  for (Shared<DomainId>& h : mine->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder == who) return true;
    if (holder != kNobody && d->is_alive(holder)) continue;
    if (h.compare_exchange_strong(holder, who, std::memory_order_acq_rel)) return true;  // others may add themselves
  }
  return false;
}

void TcpSocket::become_child() {
  if (closed || listener != nullptr) {  // the parent's to wind up, or to accept
    pair->remove_socket(slot);
    if (channels != nullptr) destroy_channels(channels);
    channels = nullptr;
    return;
  }
  counted = false;
  waiting = {};
  send_lock.reset();
  receive_lock.reset();
  waiting_bytes = waiting_space = 0;
}

}  // namespace sluice::preload
