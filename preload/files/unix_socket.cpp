// What is particular to sockets of AF_UNIX: names instead of addresses, and who is at the
// other end.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/un.h>

#include "preload/coordinator_link.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/routes.h"

namespace sluice::preload {

using namespace shm;

namespace {

SocketName name_of(const UnixKey& key) {
  SocketName n{};
  memcpy(n.address, &key, sizeof key);
  n.family = AF_UNIX;
  return n;
}

// An initiator has no name; what stands in its place tells the acceptor who it is.
SocketName name_of(uint64_t ticket) {
  SocketName n{};
  memcpy(n.address, &ticket, sizeof ticket);
  n.family = AF_UNIX;
  return n;
}

uint64_t ticket_in(const SocketName& n) {
  uint64_t ticket;
  memcpy(&ticket, n.address, sizeof ticket);
  return ticket;
}

}  // namespace

// ---- connecting -----------------------------------------------------------------------------

// 0, -errno, or 1: the kernel has to do it.
int TcpSocket::connect_name(const UnixName& to) {
  if (state == TcpState::kListening || (state == TcpState::kConnected && to.empty())) return -EINVAL;
  if (state == TcpState::kConnected) return -EISCONN;
  // A name of its own is the kernel's to give; it gets one by SO_PASSCRED too.
  bool plain = !bound && !pass_credentials && !kernel_only && !has_records_beyond_rings();
  Fallback why = plain ? Fallback::kNoCoordinator : Fallback::kOption;
  const KnownName* known = nullptr;
  Route* route = nullptr;
  bool ready = plain && coordinator.ensure(), denied = false;
  for (int tries = 0; ready && route == nullptr && !denied && tries < 2; ++tries) {
    known = find_name(to, type(), tries > 0, why, denied);
    if (known == nullptr) break;
    route = find_route(name_of(known->key), kNobody, 0, !nonblocking, why, denied);
    if (why != Fallback::kNoListener && why != Fallback::kRefused) break;  // else what we knew is over
  }
  if (denied) return coordinator.count_fallback(why), -EACCES;  // as a file would refuse it
  if (route != nullptr && !takes_one_more(*route, why)) route = nullptr;
  uint32_t index = 0;
  if (route != nullptr && !route->pair->take_slot(index)) {
    why = Fallback::kNoMemory;
    route = nullptr;
  }
  if (route == nullptr) {
    coordinator.count_fallback(why);
    return 1;
  }
  bound_name = known->bound;
  asked_name = to;
  peer = known->listener;
  begin_at(*route, index, name_of(known->ticket), name_of(known->key));
  announce();
  return 0;
}

bool TcpSocket::ask_again() {
  Fallback why;
  bool denied = false;
  const KnownName* known = find_name(asked_name, type(), false, why, denied);
  if (known == nullptr) return false;
  local = name_of(known->ticket);
  remote = name_of(known->key);
  return true;
}

// ---- listening ------------------------------------------------------------------------------

int TcpSocket::announce_name(int fd) {
  sockaddr_un name;
  socklen_t length = sizeof name;
  ++listener_changes;
  if (kernel_only || libc.getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return 0;
  bound_name = UnixName::of(reinterpret_cast<sockaddr*>(&name), length);
  if (bound_name.empty()) return 0;
  char path[sizeof name.sun_path + 1] = {};
  memcpy(path, name.sun_path, sizeof name.sun_path);
  int file = bound_name.is_abstract() ? -1 : kernel::open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
  int64_t id = coordinator.announce_name(fd, file, backlog_limit < 0 ? INT32_MAX : backlog_limit, only_holder);
  if (file >= 0) kernel::close(file);
  if (id > 0) listener_id = uint32_t(id);
  return id < 0 ? int(id) : 0;
}

bool TcpSocket::admits(Pair& p, const Slot& theirs, ucred& who) {
  uint64_t ticket = ticket_in(theirs.initiator);
  const Pair::Admission* a = ticket != 0 ? p.admission(ticket) : nullptr;
  if (a == nullptr && ticket != 0) {
    Message m{};
    m.type = kWho;
    m.words[0] = p.peer();
    m.words[1] = ticket;
    if (coordinator.call(m) != 0) return false;
    ucred is{pid_t(uint32_t(m.words[1])), uid_t(m.words[1] >> 32), gid_t(m.words[2])};
    a = p.put_admission({ticket, uint32_t(m.words[0]), is});
  }
  if (a == nullptr || a->listener != listener_id) return false;
  who = a->who;
  return true;
}

// A listener with an option whose effect only the kernel has: from now on it is as any other's.
void TcpSocket::become_kernels_alone() {
  kernel_only = true;
  if (state != TcpState::kListening || listener_id == 0) return;
  Message m{};
  m.type = kUnlisten;
  m.words[0] = listener_id;
  coordinator.post(m);
  peers.listener_closed();
  send_backlog_away();
  listener_id = 0;
  accepts = false;
  ++listener_changes;
}

}  // namespace sluice::preload
