#include "preload/routes.h"

#include <errno.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
#include "preload/peers.h"

namespace sluice::preload {

using namespace shm;

namespace {

constexpr uint32_t kRoutes = 128;
Route routes[kRoutes];
uint32_t next_victim = 0;

bool same(const SocketName& a, const SocketName& b) {
  return a.port == b.port && memcmp(a.address, b.address, sizeof a.address) == 0;
}

Route& entry_for(const SocketName& to, const Pair* pair, uint32_t listener) {
  for (Route& r : routes)
    if (r.pair == pair && r.listener == listener && same(r.to, to)) return r;
  for (Route& r : routes)
    if (r.pair == nullptr) return r;
  return routes[next_victim++ % kRoutes];
}

Fallback reason(int error) {
  switch (error) {
    case -ENOENT: return Fallback::kNoListener;
    case -EAGAIN: return Fallback::kNoAcceptor;
    case -EACCES: return Fallback::kRefused;
    default: return Fallback::kNoCoordinator;
  }
}

Route* ask(const SocketName& to, DomainId avoid, uint32_t avoid_listener, Fallback& why) {
  Message m{};
  m.type = kConnect;
  memcpy(&m.words[0], to.address, sizeof to.address);
  m.words[2] = to.port | uint64_t{to.family} << 16;
  m.words[3] = 1;
  m.words[4] = avoid_listener | uint64_t{avoid} << 32;
  if (int error = coordinator.call(m); error != 0) {
    why = reason(error);
    return nullptr;
  }
  DomainId acceptor = uint32_t(m.words[0]);
  uint32_t listener = uint32_t(m.words[0] >> 32);
  // Whoever else holds the listener may be the one that is going to accept: let the kernel see.
  const TcpSocket* own = acceptor == coordinator.self() ? find_listener(listener) : nullptr;
  if (own != nullptr && !own->only_holder) {
    why = Fallback::kNoAcceptor;
    return nullptr;
  }
  int error = 0;
  Pair* pair = peers.for_new_connection(acceptor, error);
  if (pair == nullptr) {
    why = Fallback::kNoMemory;
    return nullptr;
  }
  Route& r = entry_for(to, pair, listener);
  uint32_t begun = r.pair == pair && r.listener == listener && same(r.to, to) ? r.begun : 0;
  // A grant counts from when the acceptor can take it back: once its region is here.
  bool revocable = static_cast<bool>(pair->in());
  r = {to, pair, listener, uint32_t(m.words[1]), begun, pair->peer_listener_epoch(),
       revocable && (m.words[1] >> 32) != 0};
  return &r;
}

}  // namespace

Route* find_route(const SocketName& to, DomainId avoid, uint32_t avoid_listener, Fallback& why) {
  for (Route& r : routes) {
    if (r.pair == nullptr || !r.granted || !same(r.to, to) || avoid != kNobody) continue;
    if (r.pair->takes_connections() && r.pair->peer_listener_epoch() == r.epoch) return &r;
    r.granted = false;
  }
  return ask(to, avoid, avoid_listener, why);
}

namespace {

bool has_room(Route& r) {
  if (r.begun <= r.backlog) return true;
  r.begun = 0;
  const Pair& p = *r.pair;
  for (uint32_t s = 0; s < p.slot_limit(); ++s) {
    const TcpSocket* socket = p.socket_at(s);
    if (socket == nullptr || !socket->initiator || socket->mine->listener != r.listener) continue;
    bool accepted = socket->theirs != nullptr &&
                    (socket->theirs->state.load(std::memory_order_acquire) & (kAccepted | kClosed)) != 0;
    if (!accepted && !socket->dead && !socket->left_behind) ++r.begun;
  }
  return r.begun <= r.backlog;
}

}  // namespace

bool takes_one_more(Route& r, Fallback& why) {
  why = Fallback::kNoListener;
  if (!r.pair->peer_lives()) return false;
  why = Fallback::kBacklogFull;
  return has_room(r);
}

void forget_routes(uint32_t listener) {
  for (Route& r : routes)
    if (r.listener == listener) r.granted = false;
}

void forget_routes_to(const Pair& p) {
  for (Route& r : routes)
    if (r.pair == &p) r = {};
}

void forget_all_routes() {
  for (Route& r : routes) r = {};
}

// ---- local ports --------------------------------------------------------------------------

namespace {
// First in, first out: a port rests as long as possible before it is used again.
uint16_t free_ports[65536];
uint32_t ports_given = 0, ports_back = 0;
}  // namespace

uint16_t take_port() {
  if (ports_back == ports_given) {
    Message m{};
    m.type = kLeasePorts;
    if (coordinator.call(m) != 0) return 0;
    uint32_t first = uint32_t(m.words[0]), n = uint32_t(m.words[0] >> 32);
    for (uint32_t i = 0; i < n && first + i < 65536; ++i) give_port(uint16_t(first + i));
    if (n == 0) return 0;
  }
  return free_ports[ports_given++ % 65536];
}

// 0: there was none, as on AF_UNIX.
void give_port(uint16_t port) {
  if (port != 0) free_ports[ports_back++ % 65536] = port;
}

void forget_ports() { ports_given = ports_back = 0; }

}  // namespace sluice::preload
