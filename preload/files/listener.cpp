// A listening socket: a real kernel listener, and beside its backlog one of accelerated
// connections.
#include <errno.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/peers.h"
#include "preload/routes.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

TcpSocket* listeners = nullptr;
uint32_t listener_changes = 0;

namespace {

uint64_t int_option(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  return libc.getsockopt(fd, level, name, &value, &length) == 0 ? uint64_t(value) : 0;
}

// Beyond what listen() asked for plus this, a peer that ignores the limit is sent away.
constexpr uint32_t kBacklogSlack = 128;

void post_role(uint32_t id, AcceptorRole role) {
  Message m{};
  m.type = kAcceptor;
  m.words[0] = id;
  m.words[1] = uint64_t(role);
  coordinator.post(m);
}

// Says, in our slot, that this connection has to be made elsewhere.
void send_away(Pair& p, uint32_t slot, uint32_t generation) {
  Slot& mine = p.out().slot(slot);
  // It may never have been ours: whoever sees the new generation before the news reads in the slot what is there.
  if (mine.generation.load(std::memory_order_relaxed) != generation) clear_slot(mine);  // our own
  mine.state.store(kRedirect | kClosed, std::memory_order_relaxed);  // ordered by the next store
  mine.generation.store(generation, std::memory_order_release);
  sleep_wake_fence();
  if (p.in().slot(slot).wants.load(std::memory_order_relaxed) != 0) {  // ordered by the fence
    mine.doorbell.fetch_add(1, std::memory_order_release);
    futex_wake(mine.doorbell);
  }
  uint64_t last = 0;
  p.push_news(slot, last);
}

}  // namespace

TcpSocket* find_listener(uint32_t id) {
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener)
    if (l->listener_id == id) return l;
  return nullptr;
}

int TcpSocket::listen(int fd, int backlog_asked) {
  if (state == TcpState::kConnected) return -EINVAL;
  if (int error = make_real(fd, *this); error != 0) return error;
  if (libc.listen(fd, backlog_asked) != 0) return -errno;
  backlog_limit = backlog_asked;
  int error = announce_listener(fd);
  if (state != TcpState::kListening) {
    if (error == -EPERM) {
      libc.shutdown(fd, SHUT_RD);  // nor over the kernel
      return -EACCES;
    }
    state = TcpState::kListening;
    next_listener = listeners;
    listeners = this;
    move_interests_to_both(*this, fd);
  }
  if (interests() != nullptr) note_interest(fd);
  return 0;
}

int TcpSocket::announce_listener(int fd) {
  uint32_t policy = policy_now();
  int error = is_unix() ? announce_name(fd) : announce_port(fd);
  refused_under = error == -EACCES || error == -EPERM ? policy : 0;
  return error;
}

int TcpSocket::announce_port(int fd) {
  sockaddr_storage name;
  socklen_t length = sizeof name;
  if (libc.getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0 ||
      parse_name(reinterpret_cast<sockaddr*>(&name), length, local) != 0)
    return 0;
  uint64_t flags = 0;
  if (family == AF_INET6 && int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY)) flags |= kListenV6Only;
  reuses_port = int_option(fd, SOL_SOCKET, SO_REUSEPORT);
  if (reuses_port) flags |= kListenReusePort;
  Message m{};
  m.type = kListen;
  memcpy(&m.words[0], local.address, sizeof local.address);
  m.words[2] = local.port | uint64_t{family} << 16 | flags << 32;
  m.words[3] = uint32_t(backlog_limit < 0 ? INT32_MAX : backlog_limit) | uint64_t{only_holder} << 32;
  int error = coordinator.call(m);
  if (error == 0) listener_id = uint32_t(m.words[0]);
  ++listener_changes;
  return error;
}

// It need not be asked each time that somebody accepts.
bool TcpSocket::is_kernels_by_policy() const { return refused_under != 0 && refused_under == policy_now(); }

// Under a policy the coordinator says who may connect here: what was begun without its knowledge is sent away.
bool TcpSocket::permits(Pair& p) const {
  uint32_t policy = policy_now();
  if (policy == 0) return true;
  const Pair::Permission* known = p.permission(policy, listener_id);
  if (known == nullptr) {
    Message m{};
    m.type = kMay;
    m.words[0] = p.peer();
    m.words[1] = listener_id;
    if (coordinator.call(m) != 0) return false;
    known = p.put_permission({policy, listener_id, uint32_t(m.words[0])});
  }
  return known->most == 0 || p.count_incoming() < known->most;
}

void inherit_listener(int fd) {
  if (int_option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1) return;
  int family = int(int_option(fd, SOL_SOCKET, SO_DOMAIN));
  if (family != AF_UNIX && int_option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP) return;
  Guard guard(control_lock);
  TcpSocket* s = create_socket(family, int_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_SEQPACKET);
  if (s == nullptr) return;
  s->real = s->bound = true;
  s->state = TcpState::kListening;
  s->only_holder = false;
  s->backlog_limit = 511;  // cannot be asked of the kernel
  s->nonblocking = (libc.fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
  s->next_listener = listeners;
  listeners = s;
  (void)descriptors.set(fd, s);
  // Now, not when a worker of this program shows interest: that may have lost the right by then.
  if (coordinator.ensure()) (void)s->announce_listener(fd);
}

void TcpSocket::announce_again() {
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd) {
    if (descriptors.peek(int(fd)) != this) continue;
    (void)announce_listener(int(fd));
    if (accepts && listener_id != 0) post_role(listener_id, AcceptorRole::kAccepts);
    return;
  }
}

void TcpSocket::note_interest(int fd) {
  if (accepts || kernel_only || !coordinator.ensure()) return;
  if (listener_id == 0 && !is_kernels_by_policy()) (void)announce_listener(fd);
  if (listener_id == 0) return;
  accepts = true;
  ++listener_changes;
  post_role(listener_id, AcceptorRole::kAccepts);
}

void TcpSocket::no_longer_alone() {
  if (!only_holder) return;
  only_holder = false;
  if (accepts || listener_id == 0) return;
  post_role(listener_id, AcceptorRole::kHolder);
  send_backlog_away();  // whichever process accepts is to find them
}

void TcpSocket::no_longer_here() {
  if (listener_id == 0) return;
  post_role(listener_id, AcceptorRole::kHolder);
  accepts = only_holder = false;
  send_backlog_away();
}

void accept_incoming(Pair& p, uint32_t slot) {
  const Slot& peer = p.in().slot(slot);
  uint32_t generation = peer.generation.load(std::memory_order_acquire);
  if (generation == p.out().slot(slot).generation.load(std::memory_order_relaxed)) return;  // known, and over
  // It went to another process while we were busy.
  if ((peer.state.load(std::memory_order_acquire) & kWithdrawn) != 0) return send_away(p, slot, generation);
  TcpSocket* l = find_listener(peer.listener);
  bool room = l != nullptr && (l->accepts || l->only_holder) && l->backlog.count <= uint32_t(l->backlog_limit) + kBacklogSlack;
  ucred who{};
  if (room && !l->permits(p)) room = false;
  if (room && l->is_unix() && !l->admits(p, peer, who)) room = false;
  TcpSocket* s = room ? create_socket(l->family, l->records) : nullptr;
  if (s == nullptr) return send_away(p, slot, generation);
  (void)s->accept_from(p, slot);
  s->peer = who;
  l->incoming(s);
  if (p.gone) s->on_peer_gone(p.peer());
}

void TcpSocket::inherit_options(TcpSocket& s) const {
  s.nodelay = nodelay;
  s.keepalive = keepalive;
  s.urgent_inline = urgent_inline;
  s.receive_low = receive_low;
  s.linger_option = linger_option;
  s.receive_timeout_us = receive_timeout_us;
  s.send_timeout_us = send_timeout_us;
  s.receive_buffer = receive_buffer;
  s.send_buffer = send_buffer;
}

void TcpSocket::incoming(TcpSocket* s) {
  s->listener = this;
  if (is_unix()) s->bound_name = bound_name;  // no option is inherited there but SO_PASSCRED
  else inherit_options(*s);
  s->real = false;
  (backlog.last != nullptr ? backlog.last->next_in_backlog : backlog.first) = s;
  backlog.last = s;
  ++backlog.count;
  announce();
}

TcpSocket* TcpSocket::pop_backlog() {
  while (TcpSocket* s = backlog.first) {
    s->mine->state.fetch_or(kAccepted, std::memory_order_release);
    sleep_wake_fence();  // and the initiator the other way round: it cannot have it back unseen
    if ((s->theirs->state.load(std::memory_order_acquire) & kWithdrawn) != 0) {
      give_up(s);
      continue;
    }
    backlog.first = s->next_in_backlog;
    if (backlog.first == nullptr) backlog.last = nullptr;
    --backlog.count;
    s->next_in_backlog = nullptr;
    s->listener = nullptr;
    s->pass_credentials = pass_credentials;
    coordinator.count(kAccepts);
    coordinator.count(kOpenAccepted);
    return s;
  }
  return nullptr;
}

void TcpSocket::give_up(TcpSocket* s) {
  TcpSocket* before = nullptr;
  for (TcpSocket* b = backlog.first; b != s; b = b->next_in_backlog) before = b;
  (before != nullptr ? before->next_in_backlog : backlog.first) = s->next_in_backlog;
  if (backlog.last == s) backlog.last = before;
  --backlog.count;
  Pair& p = *s->pair;
  uint32_t slot_sent = s->slot, generation_sent = s->generation;
  p.remove_socket(slot_sent);
  destroy_socket(s);
  send_away(p, slot_sent, generation_sent);
}

void TcpSocket::stop_listening() {
  for (TcpSocket** l = &listeners; *l != nullptr; l = &(*l)->next_listener) {
    if (*l != this) continue;
    *l = next_listener;
    break;
  }
  if (listener_id != 0) {
    Message m{};
    m.type = kUnlisten;
    m.words[0] = listener_id;
    coordinator.post(m);
    peers.listener_closed();
  }
  send_backlog_away();
  state = TcpState::kUnconnected;
  listener_id = 0;
  accepts = false;
  ++listener_changes;
}

void TcpSocket::send_backlog_away() {
  while (backlog.first != nullptr) give_up(backlog.first);
}

}  // namespace sluice::preload
