// Where connects go. The coordinator's answers are kept, and those that carry a grant are
// used again without asking, until the listener's process or the coordinator ends them. Where
// several processes accept, each answer names one of them and says how many there are; once all
// are known, and granted, this process chooses among them as the coordinator would.
// All under control_lock.
#pragma once

#include "preload/pair.h"
#include "shm/layout.h"

namespace sluice::preload {

class TcpSocket;

struct Route {
  shm::SocketName to;
  Pair* pair;         // null: free entry
  uint32_t listener;
  uint32_t backlog;   // connections that may wait there unaccepted
  uint32_t begun;     // since they were last counted
  uint32_t epoch;     // of the acceptor's listeners when asked
  uint32_t policy;    // in force when asked: Directory::policy
  uint32_t choices;   // routes to `to` that there are, this one included
  uint32_t assigned;  // the sleep of the acceptor's in which it was last chosen
  uint32_t looked;    // likewise, the look
  bool granted;

  // There is one acceptor only.
  bool is_alone() const { return choices == 1; }
};

// A route to `to`, from memory or from the coordinator; `avoid`: a domain that sent a
// connection away, with the listener it was for; `may_wait`: the caller has nothing else to do. Null with `why` set: take the kernel; or nothing, if `denied` is.
Route* find_route(const shm::SocketName& to, shm::DomainId avoid, uint32_t avoid_listener, bool may_wait,
                  shm::Fallback& why, bool& denied);
// The policy in force, 0: none. Only after the coordinator was there.
uint32_t policy_now();

// Whether one more connection may wait for accept() there, and somebody lives who might.
bool takes_one_more(Route& r, shm::Fallback& why);

void forget_routes(uint32_t listener);
void forget_routes_to(const Pair& p);
void forget_all_routes();

// Local ports for connections that the kernel does not know; 0: none left.
uint16_t take_port();
void give_port(uint16_t port);
void forget_ports();

}  // namespace sluice::preload
