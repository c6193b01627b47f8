// fork(2). What both processes hold from now on is shared, not duplicated: connections that
// exist stay in their regions, which freeze; whatever either begins later is its own.
#include "preload/fork.h"

#include <pthread.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/peers.h"
#include "preload/routes.h"
#include "preload/sleep.h"

namespace sluice::preload {

namespace {

bool holds_something() {
  bool any = listeners != nullptr;
  peers.each([&](Pair& p) { any |= p.connections() > 0; });
  return any;
}

void before() {
  control_lock.lock();
  coordinator.forget_reserved();
  if (!coordinator.connected() || !holds_something()) return;
  // The child is known to the coordinator before it exists, so that its death never goes unseen.
  if (shm::DomainId child = coordinator.reserve(); child != shm::kNobody) peers.share_with(child);
}

void in_parent() {
  coordinator.drop_reserved();
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) l->no_longer_alone();
  control_lock.unlock();
}

void in_child() {
  control_lock.reset();
  coordinator.become_reserved();
  peers.become_child();
  renew_bell();
  forget_all_routes();
  forget_ports();
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) {
    l->only_holder = false;
    l->accepts = false;
    l->backlog = {};
  }
}

}  // namespace

void watch_forks() { pthread_atfork(before, in_parent, in_child); }

}  // namespace sluice::preload
