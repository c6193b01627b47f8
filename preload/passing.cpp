#include "preload/passing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/channels.h"
#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/escape.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/pass_region.h"
#include "preload/peers.h"
#include "preload/pipes.h"
#include "preload/socket_pairs.h"

namespace sluice::preload {

using namespace shm;

namespace {

// Calls f(int& fd) for every descriptor in a message.
template <class F>
void each_descriptor(const msghdr* m, F&& f) {
  auto* all = const_cast<msghdr*>(m);
  for (cmsghdr* c = CMSG_FIRSTHDR(all); c != nullptr; c = CMSG_NXTHDR(all, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      f(fd);
      memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
    }
  }
}

bool is_socket_of_ours(int fd) {
  File* f = descriptors.peek(fd);
  return f != nullptr && f->kind() == FileKind::kTcpSocket;
}

// ---- sending ------------------------------------------------------------------------------

// Our side of the connection is where others may have it too. Under all its locks.
bool is_passable(TcpSocket& s) {
  if (s.passed != 0) return true;
  if (s.is_unix()) return false;  // its ancillary data would stay behind
  Pair& p = *s.pair;
  if (p.gone || s.dead || s.polite || (s.shared && s.others_hold())) return false;
  // A child that has the other end of what was between us alone: nobody would tell it where this one goes.
  if (p.twin != nullptr && !s.followed && (s.theirs == nullptr || s.others_hold(*s.theirs))) return false;
  if (p.pass != nullptr && !p.pass->is_usable()) p.pass = nullptr;  // its memory stays for those in it
  if (p.pass == nullptr) p.pass = PassRegion::create(p);
  return p.pass != nullptr && s.move_to(*p.pass);
}

// The connection goes under the name of this socket pair. False: it cannot.
bool deposit(TcpSocket& s, const int* ends, bool watched, uint32_t& ticket) {
  Guard sending(s.send_lock), receiving(s.receive_lock), guard(control_lock);
  if (s.state != TcpState::kConnected || s.closed || !coordinator.ensure()) return false;
  s.attach();
  DomainId stand_in = kNobody;
  if (!is_passable(s)) return false;
  if (coordinator.deposit(s.passed, s.slot, s.generation, ends, watched, ticket, stand_in) != 0) return false;
  // Before the message is sent: from now on the connection lives as long as the ticket does.
  if (!s.add_holder(stand_in)) s.mine->holders_overflow.store(1, std::memory_order_release);
  uint64_t mark = kTicketMark;
  return libc.setsockopt(ends[0], SOL_SOCKET, SO_MAX_PACING_RATE, &mark, sizeof mark) == 0;
}

// A connection and what travels in its place.
bool provide(Leaving& l, Takers takers) {
  int ends[2];
  RaisedLimit raised;
  if (!create_ends(*l.socket, ends)) return false;
  l.substitute = ends[0];
  l.far_end = ends[1];
  if (takers == Takers::kStrangers || !deposit(*l.socket, ends, takers == Takers::kUnknown, l.ticket)) return true;
  if (takers == Takers::kUnknown) return true;  // guarded
  kernel::close(ends[1]);
  l.far_end = -1;
  return true;
}

}  // namespace

bool may_pass(const msghdr* m) {
  if (m == nullptr || m->msg_control == nullptr || m->msg_controllen == 0) return false;
  if (descriptors.high_water() == 0 && !any_pipes && !any_pairs) return false;
  Entrance entrance;
  bool any = false;
  each_descriptor(m, [&](int& fd) {
    any |= is_socket_of_ours(fd);
    pass_on_pipe(fd);
    leave_pair_to_kernel(fd);
  });
  return any;
}

namespace {
// Who has taken what was passed before, and who has accepted what we connected.
void hear() {
  Guard guard(control_lock);
  peers.drain();
}
}  // namespace

Parcel::Parcel(int channel, const msghdr* m) : message_(m) {
  if (!may_pass(m)) return;
  hear();
  fill(channel, takers_behind(channel), m);
}

Parcel::Parcel(Takers takers, const msghdr* m) : message_(m) {
  hear();
  fill(-1, takers, m);
}

Parcel::~Parcel() {
  close_substitutes(list_, count_);
  for (uint32_t i = 0; i < count_; ++i) list_[i].socket->release();
  free(list_);
  free(control_);
}

void Parcel::fill(int channel, Takers takers, const msghdr* m) {
  uint32_t room = 0;
  each_descriptor(m, [&](int&) { ++room; });
  list_ = static_cast<Leaving*>(malloc(room * sizeof *list_));
  control_ = malloc(m->msg_controllen);
  if (list_ == nullptr || control_ == nullptr) {
    error_ = -ENOBUFS;
    return;
  }
  memcpy(control_, m->msg_control, m->msg_controllen);
  copy_ = *m;
  copy_.msg_control = control_;
  message_ = &copy_;
  each_descriptor(&copy_, [&](int& fd) {
    int instead = replace(channel, takers, fd);
    if (instead >= 0) fd = instead;
  });
  if (error_ == 0) carry();
}

// What goes in the place of `fd`, if something has to.
int Parcel::replace(int channel, Takers takers, int fd) {
  FileReference f(fd);
  if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return -1;
  auto& s = static_cast<TcpSocket&>(*f.get());
  if (s.state != TcpState::kConnected) {
    Guard guard(control_lock);
    // The one that all placeholders share could be connected by whoever gets it.
    if (s.state == TcpState::kUnconnected) (void)make_real(fd, s);
    if (s.state == TcpState::kListening) s.no_longer_alone();
    if (s.state != TcpState::kConnected) return -1;
  }
  for (uint32_t i = 0; i < count_; ++i)
    if (list_[i].socket == &s) return list_[i].substitute;
  Leaving l{fd, &s, -1, -1, -1, true, 0};
  if (!provide(l, takers)) {
    error_ = -ENOBUFS;
    return -1;
  }
  if (l.ticket != 0 && takers == Takers::kUnknown) remember_question(channel, l.ticket);
  s.acquire();
  list_[count_++] = l;
  return l.substitute;
}

// For those for whom the receiver has to do nothing, or may not be able to.
void Parcel::carry() {
  bool any = false;
  for (uint32_t i = 0; i < count_; ++i) any |= list_[i].far_end >= 0;
  if (!any) return;
  Carrier carrier;
  // Without an id a carrier would lose the connections when we close them.
  if (!carrier.start(list_, count_)) error_ = -ENOBUFS;
  else if (coordinator.child_was_known()) carrier.depart();
  else {
    carrier.call_off();
    error_ = -ENOBUFS;
  }
}

// ---- receiving ----------------------------------------------------------------------------

namespace {

bool has_mark(int fd, bool& is_socket) {
  uint64_t mark = 0;
  socklen_t length = sizeof mark;
  is_socket = libc.getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &mark, &length) == 0;
  return is_socket && length == sizeof mark && mark == kTicketMark;
}

// The connection that a claim has found; null: it is over, or there is no memory.
TcpSocket* enter(const ReceivedPacket& r) {
  uint32_t slot = r.packet.value2, generation = r.packet.reserved;
  Pair* p = peers.find_passing(r.packet.value);
  if (p == nullptr) p = peers.adopt(r);
  if (p == nullptr || slot >= kSlots) return nullptr;
  TcpSocket* s = p->socket_at(slot);
  if (s != nullptr && s->generation != generation) {  // over, which we have not heard
    s->dead = true;
    if (s->closed) (void)s->wind_up();
    s = p->socket_at(slot);
  }
  if (s != nullptr) return s->generation == generation && s->passed == r.packet.value && !s->closed ? s : nullptr;
  s = create_socket(AF_INET);
  if (s == nullptr) return nullptr;
  s->take_over(*p, slot, generation);
  if (!s->add_holder(coordinator.self())) s->mine->holders_overflow.store(1, std::memory_order_release);
  peers.look_at(*p, *s);
  return s;
}

// The connection takes the place of the ticket.
void take_ticket(int fd) {
  int placeholder = create_placeholder(AF_INET, SOCK_STREAM, SOCK_CLOEXEC);
  if (placeholder < 0) return void(libc.shutdown(fd, SHUT_RDWR));  // an end, and no waiting for one
  int flags = libc.fcntl(fd, F_GETFD);
  {
    Guard guard(control_lock);
    ReceivedPacket r;
    TcpSocket* s = nullptr;
    r.fd_count = 0;
    int error = coordinator.ensure() ? coordinator.claim(fd, r) : -ENOENT;
    if (error == 0) s = enter(r);
    for (int i = 0; i < r.fd_count; ++i) close_own(r.fds[i]);
    // Not a ticket any more: a carrier serves it, or its end is closed.
    bool stays = error == -ENOENT || error == -EPERM || (error != 0 && !coordinator.connected());
    // With the last descriptor of the ticket its stand-in goes: we hold the connection by now. If we
    // could not, this is a socket that is not connected: an error, and no end of waiting.
    if (s != nullptr) (void)descriptors.set(fd, s);
    if (!stays) libc.dup3(placeholder, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  }
  kernel::close(placeholder);
}

// One of ours that came back: the same open file description.
bool is_known_listener(int fd) {
  struct stat st, other;
  if (listeners == nullptr || libc.fstat(fd, &st) != 0) return false;
  Guard guard(control_lock);
  for (uint32_t i = 0; i < descriptors.high_water(); ++i) {
    File* f = descriptors.peek(int(i));
    if (f == nullptr || f->kind() != FileKind::kTcpSocket || static_cast<TcpSocket*>(f)->state != TcpState::kListening) continue;
    if (libc.fstat(int(i), &other) != 0 || other.st_ino != st.st_ino || other.st_dev != st.st_dev) continue;
    return descriptors.set(fd, f);
  }
  return false;
}

}  // namespace

void unpack(const msghdr* m) {
  if (!coordinator.enabled()) return;
  int error = errno;
  each_descriptor(m, [](int& fd) {
    bool is_socket;
    if (has_mark(fd, is_socket)) take_ticket(fd);
    else if (is_socket && !is_known_listener(fd)) inherit_listener(fd);
  });
  errno = error;
}

}  // namespace sluice::preload
