// fork(2). What both processes hold from now on is shared, not duplicated: connections that
// exist stay in their regions, which freeze; whatever either begins later is its own.
#include "preload/fork.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "preload/code_watch.h"
#include "preload/coordinator_link.h"
#include "preload/deferral.h"
#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/keys.h"
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

bool holds_connections() {
  bool any = false;
  peers.each([&](Pair& p) { any |= p.connections() > 0; });
  return any;
}

// What fork(2) has asked for before libc took its locks, for the fork that is to follow.
struct Ahead {
  bool asked = false;
  CoordinatorLink::Reservation got;
  uint32_t pairs = 0;  // Peers::additions() then
};
thread_local Ahead ahead;

// The child's id. One that was asked for ahead holds for what there was to share then.
shm::DomainId reserved_child() {
  Ahead a = ahead;
  ahead = {};
  if (!a.asked) return coordinator.reserve();
  if (a.got.child == shm::kNobody) return shm::kNobody;
  shm::DomainId child = coordinator.take_back(a.got);
  if (a.pairs == peers.additions()) return child;
  coordinator.drop_child();
  return coordinator.reserve();
}

void before() {
  Entrance entrance;
  control_lock.lock();
  create_pipe_channels();
  create_pair_channels();
  if (!holds_something()) {
    if (ahead.got.child != shm::kNobody) (void)coordinator.take_back(ahead.got);  // and dropped after the fork
    ahead = {};
    return;
  }
  // A vfork child has its parent's memory, and descriptors that its parent does not have.
  if (!in_vfork_child()) settle_before_fork();
  // The child is known to the coordinator before it exists, so that its death never goes unseen.
  if (shm::DomainId child = reserved_child(); child != shm::kNobody) peers.share_with(child);
  // What came for our connections before the child was known; later it gets its own.
  if (!in_vfork_child()) peers.take_packets();
}

void in_parent() {
  Entrance entrance;
  coordinator.drop_child();
  control_lock.unlock();
}

void in_child() {
  control_lock.reset();
  forget_thread_id();
  note_fork();
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

int reserve_before_fork() {
  if (process_id == 0 || in_vfork_child()) return 0;
  Guard guard(control_lock);
  if (!holds_connections()) return 0;
  ahead = {true, {}, peers.additions()};
  if (coordinator.reserve() != shm::kNobody) ahead.got = coordinator.set_aside();
  else if (int error = coordinator.what_is_short(); error != 0) return ahead = {}, error;
  return 0;
}

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
    Entrance entrance;
    process_id = getpid();
    forks.fetch_add(1, std::memory_order_relaxed);  // one thread
    in_child();
  });
}

}  // namespace sluice::preload
