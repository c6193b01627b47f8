#include "preload/routes.h"

#include <errno.h>
#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
#include "preload/peers.h"
#include "preload/sleep.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

constexpr uint32_t kRoutes = 128;
Route routes[kRoutes];
uint32_t routes_end = 0;  // no route at or above
uint32_t next_victim = 0;
uint32_t turn = 0;

bool same(const SocketName& a, const SocketName& b) {
  return a.port == b.port && memcmp(a.address, b.address, sizeof a.address) == 0;
}

Route& entry_for(const SocketName& to, const Pair* pair, uint32_t listener) {
  for (uint32_t i = 0; i < routes_end; ++i)
    if (routes[i].pair == pair && routes[i].listener == listener && same(routes[i].to, to)) return routes[i];
  for (uint32_t i = 0; i < routes_end; ++i)
    if (routes[i].pair == nullptr) return routes[i];
  return routes_end < kRoutes ? routes[routes_end++] : routes[next_victim++ % kRoutes];
}

// The acceptors that are known and granted, of how many.
struct Choices {
  Route* routes[kMostChoices];
  uint32_t known = 0;
  uint32_t all = 0;
};

Choices choices_for(const SocketName& to) {
  Choices c;
  for (uint32_t i = 0; i < routes_end; ++i) {
    Route& r = routes[i];
    if (r.pair == nullptr || !r.granted || !same(r.to, to)) continue;
    if (!r.pair->takes_connections() || r.pair->peer_listener_epoch() != r.epoch || r.policy != policy_now()) {
      r.granted = false;
      continue;
    }
    if (r.choices != c.all) c.known = 0;  // the coordinator has said something else since
    c.all = r.choices;
    if (c.known < kMostChoices) c.routes[c.known++] = &r;
    if (r.is_alone()) break;
  }
  return c;
}

Fallback reason(int error) {
  switch (error) {
    case -ENOENT: return Fallback::kNoListener;
    case -EAGAIN: return Fallback::kNoAcceptor;
    case -EACCES:
    case -EPERM: return Fallback::kRefused;
    case -EDQUOT: return Fallback::kLimit;
    default: return Fallback::kNoCoordinator;
  }
}

// Addresses to which the policy sends us over the kernel: the answer stays the same as long as the policy does.
struct Refused {
  SocketName to;
  uint32_t policy;  // 0: free entry
};
constexpr uint32_t kRefusals = 16;
Refused refusals[kRefusals];
uint32_t next_refusal = 0;

bool is_refused(const SocketName& to, uint32_t policy) {
  for (const Refused& r : refusals)
    if (policy != 0 && r.policy == policy && same(r.to, to)) return true;
  return false;
}

// `missing`: of several acceptors, which one we would like to hear of; or 0.
Route* ask(const SocketName& to, DomainId avoid, uint32_t avoid_listener, uint32_t missing, Fallback& why, bool& denied) {
  uint32_t policy = policy_now();
  if (is_refused(to, policy)) {
    why = Fallback::kRefused;
    return nullptr;
  }
  Message m{};
  m.type = kConnect;
  memcpy(&m.words[0], to.address, sizeof to.address);
  m.words[2] = to.port | uint64_t{to.family} << 16;
  m.words[3] = 1;
  m.words[4] = avoid_listener | uint64_t{avoid} << 32;
  m.words[5] = missing;
  if (int error = coordinator.call(m); error != 0) {
    why = reason(error);
    denied = error == -EPERM;
    // A name may have to be asked for again.
    if (error == -EACCES && policy != 0 && to.port != 0) refusals[next_refusal++ % kRefusals] = {to, policy};
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
  uint32_t choices = uint32_t(m.words[1] >> 32);
  r = {to, pair, listener, uint32_t(m.words[1]), begun, pair->peer_listener_epoch(), policy, choices, 0, 0,
       revocable && choices != 0 && choices <= kMostChoices};
  return &r;
}

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

// One that looks for connections, awake, and was not given one in this look; unless it has more of ours than others have, or one
// that has just ended: connections that last are for all.
Route* find_looking(const Choices& c, uint32_t start) {
  uint32_t least = UINT32_MAX;
  for (uint32_t i = 0; i < c.known; ++i)
    if (uint32_t n = c.routes[i]->pair->connections(); n < least) least = n;
  for (uint32_t i = 0; i < c.known; ++i) {
    Route& r = *c.routes[(start + i) % c.known];
    uint32_t look = r.pair->peer_look(r.listener);
    if (look == 0 || look == r.looked || r.pair->connections() > least + 1) continue;
    r.looked = look;
    if (has_room(r)) return &r;
  }
  return nullptr;
}

bool is_awake_elsewhere(const Choices& c) {
  uint32_t here = current_cpu();
  for (uint32_t i = 0; i < c.known; ++i)
    if (c.routes[i]->pair->peer_sleep() == 0 && c.routes[i]->pair->peer_cpu() != here) return true;
  return false;
}

// One that looks. If there is none, but one that is awake: it may be about to, having just been done with our last connection,
// and to wait so long costs whoever has nothing else to do less than to wake one up. How often that came true decides whether it is tried.
Route* find_or_await_looking(const Choices& c, uint32_t start) {
  static int experience = 8;  // 0..16
  static uint32_t skipped = 0;
  constexpr uint64_t kPatienceNs = 2'000;
  Route* r = find_looking(c, start);
  if (r != nullptr || !is_awake_elsewhere(c) || (experience == 0 && ++skipped % 16 != 0)) return r;
  for (uint64_t end = now_ns() + kPatienceNs; r == nullptr && now_ns() < end;) {
    for (int i = 0; i < 8; ++i) cpu_relax();
    r = find_looking(c, start);
  }
  experience = r != nullptr ? experience + (experience < 15 ? 2 : 0) : experience - (experience > 0 ? 1 : 0);
  return r;
}

// For a caller that may wait one that looks for connections; else one that sleeps and was not given a connection yet, else one that sleeps, else the next in turn:
// as the coordinator chooses, which sees more of them and asks the same. Null: their backlogs are full.
Route* choose(const Choices& c, bool may_wait) {
  uint32_t start = turn++;
  if (Route* r = may_wait ? find_or_await_looking(c, start) : nullptr) return r;
  Route* assigned = nullptr;
  Route* next = nullptr;
  for (uint32_t i = 0; i < c.known; ++i) {
    Route& r = *c.routes[(start + i) % c.known];
    if (!has_room(r)) continue;
    uint32_t sleep = r.pair->peer_sleep();
    if (sleep != 0 && sleep != r.assigned) {
      r.assigned = sleep;
      return &r;
    }
    if (sleep != 0 && assigned == nullptr) assigned = &r;
    if (next == nullptr) next = &r;
  }
  return assigned != nullptr ? assigned : next;
}

}  // namespace

Route* find_route(const SocketName& to, DomainId avoid, uint32_t avoid_listener, bool may_wait, Fallback& why, bool& denied) {
  denied = false;
  if (avoid != kNobody) return ask(to, avoid, avoid_listener, 0, why, denied);
  Choices known = choices_for(to);
  if (known.all == 1) return known.routes[0];
  if (known.all == 0) return ask(to, kNobody, 0, 0, why, denied);
  if (known.known < known.all) return ask(to, kNobody, 0, 1 + turn++ % known.all, why, denied);
  if (Route* r = choose(known, may_wait)) return r;
  why = Fallback::kBacklogFull;
  return nullptr;
}

uint32_t policy_now() {
  const Directory* d = coordinator.directory();
  return d != nullptr ? d->policy.load(std::memory_order_acquire) : 0;
}

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
  routes_end = 0;
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
