// socket(2) to setsockopt(2).
#include "preload/code_watch.h"
#include "preload/coordinator_link.h"
#include "preload/dispatch.h"
#include "preload/files/socket_options.h"
#include "preload/kernel.h"
#include "preload/materialize.h"
#include "preload/namespaces.h"
#include "preload/peers.h"
#include "preload/signals.h"
#include "preload/user_memory.h"
#include "preload/waiting.h"

namespace sluice::preload {

namespace {

constexpr int kTypeFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;

bool is_records(int type) { return (type & ~kTypeFlags) == SOCK_SEQPACKET; }

bool is_ours(int family, int type, int protocol) {
  bool inet = family == AF_INET || family == AF_INET6;
  bool stream = (type & ~kTypeFlags) == SOCK_STREAM;
  if (family == AF_UNIX) {
    bool connects = stream || is_records(type);
    if (!connects && coordinator.enabled()) coordinator.count_fallback(shm::Fallback::kType);
    return connects && (protocol == 0 || protocol == AF_UNIX) && coordinator.enabled();
  }
  return inet && stream && (protocol == 0 || protocol == IPPROTO_TCP) &&
         coordinator.enabled();
}

// The last connect went to the kernel, so the next one may: its socket is the kernel's at once,
// which saves putting one in the place of a placeholder. A guess; either can become either.
std::atomic<bool> expected[3];
std::atomic<bool>& kernel_expected(const TcpSocket& s) { return expected[!s.is_unix() ? 0 : s.records ? 2 : 1]; }

// Puts `s` behind a new placeholder, or a kernel socket of its own. The descriptor or -errno, and
// then `s` is untouched.
int install(TcpSocket& s, int flags) {
  bool real = kernel_expected(s).load(std::memory_order_relaxed);  // a guess
  int fd = real ? libc.socket(s.family, s.type() | flags, 0) : create_placeholder(s.family, s.type(), flags & SOCK_CLOEXEC);
  if (fd < 0) return real ? -errno : fd;
  s.real = real;
  Guard guard(control_lock);
  if (descriptors.set(fd, &s)) return fd;
  kernel::close(fd);
  return -EMFILE;
}

// Of a namespace that is not the one in which we are known: the kernel's alone.
bool is_foreign(int fd) {
  Guard guard(control_lock);
  return !coordinator.ensure() || coordinator.network_namespace() != namespace_of(fd);
}

// The socket is made first: it tells where it belongs.
int create_after_change(int family, int type, int protocol) {
  int fd = libc.socket(family, type, protocol);
  if (fd < 0) return -errno;
  if (is_foreign(fd)) return fd;
  Guard guard(control_lock);
  TcpSocket* s = create_socket(family, is_records(type));
  if (s == nullptr) return fd;
  s->real = true;
  s->nonblocking = (type & SOCK_NONBLOCK) != 0;
  if (!descriptors.set(fd, s)) destroy_socket(s);
  return fd;
}

int create(int family, int type) {
  TcpSocket* s;
  {
    Guard guard(control_lock);
    s = create_socket(family, is_records(type));
  }
  if (s == nullptr) return -ENOBUFS;
  s->nonblocking = (type & SOCK_NONBLOCK) != 0;
  int fd = install(*s, type & (SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd < 0) {
    Guard guard(control_lock);
    destroy_socket(s);
  }
  return fd;
}

// The kernel takes the socket over, descriptor and all.
int connect_in_kernel(TcpSocket& s, int fd, const sockaddr* addr, socklen_t length) {
  uint32_t released = 0;
  kernel_expected(s).store(true, std::memory_order_relaxed);
  {
    Guard guard(control_lock);
    if (int error = make_real(fd, s); error != 0) return error;
    hand_to_kernel(s, -1, released);
    if (peers.has_dead()) peers.drain();  // perhaps it does nothing else with us from here on
  }
  while (released-- > 0) s.release();
  return outside([&] { return libc.connect(fd, addr, length); }) == 0 ? 0 : -errno;
}

// connect(2) with AF_UNSPEC.
int dissolve(TcpSocket& s, int fd, const sockaddr* addr, socklen_t length) {
  if (s.real && kernel::connect(fd, addr, length) != 0) return -errno;
  uint32_t released = 0;
  int r = 0;
  {
    Guard guard(control_lock);
    if (s.state == TcpState::kListening) s.stop_listening();
    else if (s.state == TcpState::kConnected) r = s.dissolve(released);
  }
  while (released-- > 0) s.release();
  return r;
}

// On AF_UNIX it need not be connected; what is shut down then is the kernel's.
int shut_down_in_kernel(TcpSocket& s, int fd, int how) {
  uint32_t released = 0;
  {
    Guard guard(control_lock);
    if (int error = make_real(fd, s); error != 0) return error;
    hand_to_kernel(s, -1, released);
  }
  while (released-- > 0) s.release();
  return libc.shutdown(fd, how) == 0 ? 0 : -errno;
}

// Options that say nothing of what a call on a socket pair returns. The kernel has the time-outs and sizes.
bool is_harmless_on_pair(int level, int name) {
  if (level != SOL_SOCKET) return false;
  switch (name) {
    case SO_SNDBUF: case SO_RCVBUF: case SO_SNDBUFFORCE: case SO_RCVBUFFORCE: case SO_SNDTIMEO: case SO_RCVTIMEO:
    case SO_LINGER: case SO_KEEPALIVE: case SO_REUSEADDR: case SO_REUSEPORT: case SO_PRIORITY: case SO_NO_CHECK:
      return true;
    default:
      return false;
  }
}

int report_name(const TcpSocket& s, bool of_peer, sockaddr* addr, socklen_t* length) {
  if (addr == nullptr || length == nullptr) return -EFAULT;
  socklen_t room;
  if (int error = get_user(room, length); error != 0) return error;
  if (int(room) < 0) return -EINVAL;
  Guard guard(control_lock);
  return (of_peer ? s.peer_name() : s.name()).format(addr, length);
}

int accept_ours(TcpSocket& listener, int fd, sockaddr* addr, socklen_t* length, int flags) {
  TcpSocket* s;
  {
    Guard guard(control_lock);
    listener.note_interest(fd);
    if (listener.backlog.first == nullptr) peers.drain();
    s = listener.backlog.first;
    if (s == nullptr && listener.nonblocking) waiting.found_nothing(listener.listener_id);
    if (s == nullptr) return -EAGAIN;
  }
  int placeholder = create_placeholder(listener.family, listener.type(), flags & SOCK_CLOEXEC);
  if (placeholder < 0) return placeholder;
  Guard guard(control_lock);
  s = listener.pop_backlog();
  if (s == nullptr || !descriptors.set(placeholder, s)) {  // another thread was faster
    kernel::close(placeholder);
    return -EAGAIN;
  }
  s->nonblocking = (flags & SOCK_NONBLOCK) != 0;
  if (addr != nullptr) (void)(s->is_unix() ? s->peer_name().format(addr, length) : format_name(s->remote, s->family, addr, length));
  return placeholder;
}

// The kernel's backlog is common to all who hold the listener: who sees a connection there must not
// wait in the kernel because a sibling was faster. One at a time looks and takes; the lock is the
// process's, on the listening socket, and nobody sleeps while he has it.
class KernelBacklog {
 public:
  KernelBacklog(TcpSocket& listener, int fd) : guard_(listener.accept_lock), fd_(fd) {
    locked_ = lock(F_WRLCK) == 0;
    bool busy = !locked_ && (errno == EAGAIN || errno == EACCES);
    pollfd p{fd, POLLIN, 0};
    ready_ = !busy && kernel::poll_now(&p, 1) != 0;
  }
  ~KernelBacklog() {
    if (locked_) (void)lock(F_UNLCK);
  }
  KernelBacklog(const KernelBacklog&) = delete;
  KernelBacklog& operator=(const KernelBacklog&) = delete;
  bool is_ready() const { return ready_; }

 private:
  long lock(short type) const {
    struct flock l{};
    l.l_type = type;
    l.l_whence = SEEK_SET;
    return libc.fcntl(fd_, F_SETLK, &l);
  }
  Guard guard_;  // the other one does not hold among threads
  int fd_;
  bool locked_;
  bool ready_;
};

int accept_kernel(TcpSocket& listener, int fd, sockaddr* addr, socklen_t* length, int flags) {
  int accepted;
  if (listener.nonblocking || (listener.only_holder && __libc_single_threaded)) {
    accepted = outside([&] { return kernel::accept4(fd, addr, length, flags); });
  } else {
    KernelBacklog backlog(listener, fd);
    if (!backlog.is_ready()) return -EAGAIN;
    accepted = outside([&] { return kernel::accept4(fd, addr, length, flags); });
  }
  if (accepted < 0) return -errno;
  coordinator.count(shm::kKernelAccepts);
  return accepted;
}

// A call of accept never waits in the kernel, where it would not see our connections: it goes
// there when the kernel has one (`kernel_ready`), or would not wait anyway.
int accept_now(TcpSocket& listener, int fd, sockaddr* addr, socklen_t* length, int flags, bool kernel_ready) {
  int n = accept_ours(listener, fd, addr, length, flags);
  if (n != -EAGAIN || !(listener.nonblocking || kernel_ready)) return n;
  return accept_kernel(listener, fd, addr, length, flags);
}

int do_accept(TcpSocket& listener, int fd, sockaddr* addr, socklen_t* length, int flags) {
  if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return -EINVAL;
  if (listener.state != TcpState::kListening) return -EINVAL;
  if (addr != nullptr && probe_user(length, 1) != 0) return -EFAULT;
  uint32_t seen_unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(listener.receive_timeout_us);
  bool kernel_ready = false;
  for (;;) {
    int n = accept_now(listener, fd, addr, length, flags, kernel_ready);
    if (n != -EAGAIN || listener.nonblocking) return n;
    if (deadline.passed()) return -EAGAIN;
    uint32_t seen = signal_counts.any;
    if (signal_counts.unrestarted != seen_unrestarted) return -EINTR;
    pollfd p[2] = {{fd, POLLIN, 0}, {}};
    long r = 0;
    auto ready = [&] { return peers.has_news(); };
    uint32_t looks_at = listener.only_holder && !listener.reuses_port ? 0 : listener.listener_id;  // there is nobody to choose among
    peers.begin_look(looks_at);
    bool spun = peers.worth_spinning() && Spinner::until_or_let_run(ready, peers.a_remote_cpu(), Spinner::never_much);
    peers.end_look(looks_at);
    if (!spun) {
      uint32_t at = listener.listener_id;
      Deadline until = deadline;
      peers.begin_sleep(at);
      shm::sleep_wake_fence();
      {
        Guard guard(control_lock);
        peers.drain();
        if (listener.backlog.first == nullptr) until = deadline.or_earlier(waiting.look(at));
      }
      if (listener.backlog.first == nullptr) r = sleep_in_poll(p, 1, until, nullptr, seen);
      peers.end_sleep(at);
    }
    kernel_ready = (p[0].revents & (POLLIN | POLLERR)) != 0;
    bool interrupted = signal_counts.unrestarted != seen_unrestarted || (!deadline.is_never() && signal_counts.any != seen);
    if (r == -EINTR && interrupted) return -EINTR;
    if ((p[0].revents & (POLLERR | POLLHUP)) != 0 && (p[0].revents & POLLIN) == 0) return -EINVAL;  // shut down
  }
}

}  // namespace

INTERPOSE(int, socket, (int family, int type, int protocol)) {
  be_ready();
  Entrance entrance;
  look_at_libraries();
  if (!is_ours(family, type, protocol)) return libc.socket(family, type, protocol);
  bool changed = namespaces_changed.load(std::memory_order_acquire);
  return finish(changed ? create_after_change(family, type, protocol) : create(family, type));
}

INTERPOSE(int, socketpair, (int family, int type, int protocol, int ends[2])) {
  be_ready();
  int r = libc.socketpair(family, type, protocol, ends);
  Entrance entrance;
  if (r == 0) note_pair(ends, type);
  return r;
}

INTERPOSE(int, bind, (int fd, const sockaddr* addr, socklen_t length)) {
  return on_socket(fd,
                   [&](TcpSocket& s) -> int {
                     if (s.state == TcpState::kConnected) return -EINVAL;
                     Guard guard(control_lock);
                     if (int error = make_real(fd, s); error != 0) return error;
                     if (libc.bind(fd, addr, length) != 0) return -errno;
                     s.bound = true;
                     return 0;
                   },
                   [&] { return libc.bind(fd, addr, length); });
}

INTERPOSE(int, listen, (int fd, int backlog)) {
  return on_socket(fd,
                   [&](TcpSocket& s) {
                     Guard guard(control_lock);
                     return s.listen(fd, backlog);
                   },
                   [&] { return libc.listen(fd, backlog); });
}

INTERPOSE(int, accept4, (int fd, sockaddr* addr, socklen_t* length, int flags)) {
  return on_socket(fd, [&](TcpSocket& s) { return do_accept(s, fd, addr, length, flags); },
                   [&] { return libc.accept4(fd, addr, length, flags); }, Cancellation::kPoint);
}

INTERPOSE(int, accept, (int fd, sockaddr* addr, socklen_t* length)) {
  return on_socket(fd, [&](TcpSocket& s) { return do_accept(s, fd, addr, length, 0); },
                   [&] { return libc.accept(fd, addr, length); }, Cancellation::kPoint);
}

INTERPOSE(int, connect, (int fd, const sockaddr* addr, socklen_t length)) {
  return on_socket(fd,
                   [&](TcpSocket& s) -> int {
                     shm::SocketName to;
                     if (!s.is_unix() && addr != nullptr && length >= sizeof addr->sa_family && addr->sa_family == AF_UNSPEC)
                       return dissolve(s, fd, addr, length);
                     int r = 1;
                     if (s.is_unix()) {
                       Guard guard(control_lock);
                       r = s.connect_name(UnixName::of(addr, length));
                     } else if (parse_name(addr, length, to) == 0) {
                       Guard guard(control_lock);
                       r = s.connect(fd, to);
                     } else if (s.state != TcpState::kUnconnected) {
                       return -EISCONN;
                     }
                     if (r == 1) return connect_in_kernel(s, fd, addr, length);
                     if (s.state == TcpState::kConnected) kernel_expected(s).store(false, std::memory_order_relaxed);
                     return r;
                   },
                   [&] { return libc.connect(fd, addr, length); });
}

INTERPOSE(int, shutdown, (int fd, int how)) {
  return on_socket(fd,
                   [&](TcpSocket& s) -> int {
                     if (s.is_unix() && s.state == TcpState::kUnconnected) return shut_down_in_kernel(s, fd, how);
                     if (s.state != TcpState::kListening) return s.shut_down(how);
                     if (libc.shutdown(fd, how) != 0) return -errno;
                     Guard guard(control_lock);
                     if (how != SHUT_WR) s.stop_listening();
                     return 0;
                   },
                   [&] {
                     Entrance entrance;
                     if (pair_at(fd) != nullptr) leave_pair_to_kernel(fd, how != SHUT_WR, how != SHUT_RD);
                     return libc.shutdown(fd, how);
                   });
}

INTERPOSE(int, getsockname, (int fd, sockaddr* addr, socklen_t* length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         if (s.is_unix()) return report_name(s, false, addr, length);
                         return format_name(s.local, s.family, addr, length);
                       },
                       [&] { return libc.getsockname(fd, addr, length); }, Cancellation::kNoPoint);
}

INTERPOSE(int, getpeername, (int fd, sockaddr* addr, socklen_t* length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) -> int {
                         if (s.is_unix()) return report_name(s, true, addr, length);
                         if (s.theirs == nullptr) s.reach_peer();
                         Looking looking;
                         if (s.state != TcpState::kConnected) return kNowTheKernels;  // by now
                         if (s.has_ended()) return -ENOTCONN;
                         return format_name(s.remote, s.family, addr, length);
                       },
                       [&] { return libc.getpeername(fd, addr, length); }, Cancellation::kNoPoint);
}

INTERPOSE(int, getsockopt, (int fd, int level, int name, void* value, socklen_t* length)) {
  return on_socket(fd, [&](TcpSocket& s) { return get_option(s, fd, level, name, value, length); },
                   [&] { return libc.getsockopt(fd, level, name, value, length); });
}

INTERPOSE(int, setsockopt, (int fd, int level, int name, const void* value, socklen_t length)) {
  return on_socket(fd, [&](TcpSocket& s) { return set_option(s, fd, level, name, value, length); },
                   [&] {
                     Entrance entrance;
                     if (pair_at(fd) != nullptr && !is_harmless_on_pair(level, name)) leave_pair_to_kernel(fd);
                     return libc.setsockopt(fd, level, name, value, length);
                   });
}

}  // namespace sluice::preload
