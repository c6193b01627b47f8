// fork(2). What both processes hold from now on is shared, not duplicated: connections that
// exist stay in their regions, which freeze; whatever either begins later is its own.
#include "preload/fork.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "preload/coordinator_link.h"
#include "preload/deferral.h"
#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/pipes.h"
#include "preload/process_lock.h"
#include "preload/routes.h"
#include "preload/shell.h"
#include "preload/sleep.h"
#include "preload/socket_pairs.h"
#include "preload/unix_name.h"

namespace sluice::preload {

namespace {

pid_t process_id = 0;

bool holds_something() {
  bool any = listeners != nullptr;
  peers.each([&](Pair& p) { any |= p.connections() > 0; });
  return any;
}

void before() {
  control_lock.lock();
  create_pipe_channels();
  create_pair_channels();
  if (!holds_something()) return;
  // A vfork child has its parent's memory, and descriptors that its parent does not have.
  if (!in_vfork_child()) settle_before_fork();
  // The child is known to the coordinator before it exists, so that its death never goes unseen.
  if (shm::DomainId child = coordinator.reserve(); child != shm::kNobody) peers.share_with(child);
  // What came for our connections before the child was known; later it gets its own.
  if (!in_vfork_child()) peers.take_packets();
}

void in_parent() {
  coordinator.drop_child();
  control_lock.unlock();
}

void in_child() {
  control_lock.reset();
  forget_thread_id();
  reset_shell_locks();
  coordinator.become_child();
  peers.become_child();
  renew_bell();
  forget_all_routes();
  forget_ports();
  forget_names();
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) {
    l->only_holder = false;
    l->accepts = false;
    l->backlog = {};
    l->accept_lock.reset();
  }
  forget_deferred();
}

}  // namespace

void settle_before_fork() {
  // What waits for accept() is for whichever process accepts: the kernel's backlog is common.
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) l->no_longer_alone();
  peers.drain();
  peers.drain();  // and once more: what was sent away just now may have been our own
}

bool in_vfork_child() { return process_id != 0 && pid_t(libc.syscall(SYS_getpid)) != process_id; }

void watch_forks() {
  process_id = getpid();
  pthread_atfork(before, in_parent, [] {
    process_id = getpid();
    forks.fetch_add(1, std::memory_order_relaxed);  // one thread
    in_child();
  });
}

}  // namespace sluice::preload
