#include "preload/escape.h"

#include <errno.h>
#include <sched.h>
#include <sys/wait.h>

#include <iterator>

#include "preload/carrier_loop.h"
#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/fork.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/peers.h"

namespace sluice::preload {

// ---- vfork children -----------------------------------------------------------------------

constinit std::atomic<uint32_t> vfork_copies{0};

namespace {

// What vfork children have made of their descriptors: the table is their parent's. There may be
// several at once, of different threads; what is left of one that is gone is never read.
struct Note {
  std::atomic<pid_t> of;
  int fd;
  File* file;
};
constinit Note notes[64];

const Note* note_of(int fd) {
  pid_t self = getpid();
  const Note* newest = nullptr;
  for (uint32_t end = vfork_copies.load(std::memory_order_acquire), i = end > std::size(notes) ? end - uint32_t(std::size(notes)) : 0; i < end; ++i) {
    const Note& n = notes[i % std::size(notes)];
    if (n.of.load(std::memory_order_acquire) == self && n.fd == fd) newest = &n;
  }
  return newest;
}

}  // namespace

void note_vfork_copy(int fd, File* f) {
  Note& n = notes[vfork_copies.fetch_add(1, std::memory_order_acq_rel) % std::size(notes)];
  n.of.store(0, std::memory_order_relaxed);  // until it is whole
  n.fd = fd;
  n.file = f;
  n.of.store(getpid(), std::memory_order_release);
}

File* file_at(int fd) {
  const Note* n = in_vfork_child() ? note_of(fd) : nullptr;
  return n != nullptr ? n->file : descriptors.peek(fd);
}

bool create_ends(const TcpSocket& s, int* ends) {
  if (libc.socketpair(AF_UNIX, s.type() | SOCK_CLOEXEC, 0, ends) != 0) return false;
  if (s.nonblocking) libc.fcntl(ends[0], F_SETFL, O_RDWR | O_NONBLOCK);
  if (s.is_unix() && s.send_buffer > 0) libc.setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &s.send_buffer, sizeof s.send_buffer);
  return true;
}

// ---- the carrier --------------------------------------------------------------------------

struct Carrier::Launch {
  Leaving* list;
  uint32_t count;
  int go;  // the carrier's end
  sigset_t mask;
  bool started;
};

namespace {

// The number of a descriptor that the carrier keeps and that is not below `from`; or INT_MAX.
int next_kept(const Leaving* list, uint32_t count, int go, int from) {
  int next = go >= from ? go : INT32_MAX;
  for (uint32_t i = 0; i < count; ++i) {
    if (list[i].far_end < 0) continue;
    for (int fd : {list[i].fd, list[i].far_end})
      if (fd >= from && fd < next) next = fd;
  }
  return next;
}

// A vfork child's carrier has the table of a process with other descriptors: at `fd` there is
// this, or nothing of ours.
void correct_table(int fd, TcpSocket* s) {
  Guard guard(control_lock);
  if (descriptors.peek(fd) == s) return;
  File* other = descriptors.clear(fd);
  if (s != nullptr) (void)descriptors.set(fd, s);
  if (other == nullptr) return;
  (void)other->remove_descriptor();
  other->release_locked();
}

bool is_meant(const Leaving* list, uint32_t count, const TcpSocket& s) {
  for (uint32_t i = 0; i < count; ++i)
    if (list[i].socket == &s && list[i].meant) return true;
  return false;
}

// What is in its place goes with the rest of the list.
void close_far_ends(Leaving* list, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (list[i].far_end >= 0) kernel::close(list[i].far_end);
    list[i].far_end = -1;
  }
}

// A socket pair for each connection; its duplicates share it. False: there is nothing to carry, or not what it takes.
bool provide_ends(Leaving* list, uint32_t count) {
  RaisedLimit raised;
  bool any = false;
  for (uint32_t i = 0; i < count; ++i) {
    any |= list[i].far_end >= 0;
    if (list[i].socket->state != TcpState::kConnected || list[i].substitute >= 0) continue;
    int ends[2];
    if (!create_ends(*list[i].socket, ends)) return false;
    list[i].far_end = ends[1];
    for (uint32_t k = i; k < count; ++k)
      if (list[k].socket == list[i].socket) list[k].substitute = ends[0];
    any = true;
  }
  return any;
}

}  // namespace

namespace {

// How long a ticket may wait to be taken before it is carried: a receiver without the shim would
// wait for its bytes for ever.
constexpr int64_t kPatienceMs = 50;

bool is_watched(const Leaving& l) { return l.far_end >= 0 && l.ticket != 0; }

void leave_one(Leaving& l) {
  ::close(l.fd);
  ::close(l.far_end);
  l.far_end = -1;
}

// Whoever has the shim takes the connection at once, and lets go of the ticket. A program without it
// writes to it, or waits.
bool may_carry(const Leaving& l) {
  Guard guard(control_lock);
  return !coordinator.ensure() || coordinator.carry(l.ticket) == 0;
}

// Whoever has the shim takes the connection at once, and lets go of the ticket. A program without it
// writes to it, or waits.
void leave_what_is_taken(Leaving* list, uint32_t count) {
  auto* fds = static_cast<pollfd*>(malloc(count * sizeof(pollfd)));
  if (fds == nullptr) _exit(1);
  for (uint32_t i = 0; i < count; ++i) fds[i] = {is_watched(list[i]) ? list[i].far_end : -1, POLLIN, 0};
  Deadline deadline = Deadline::in_ms(kPatienceMs);
  for (bool undecided = true; undecided && !deadline.passed();) {
    timespec left = deadline.left();
    if (libc.ppoll(fds, count, &left, nullptr) < 0 && errno != EINTR) break;
    undecided = false;
    for (uint32_t i = 0; i < count; ++i) {
      if (fds[i].fd < 0) continue;
      if (fds[i].revents == POLLHUP) leave_one(list[i]);
      if (fds[i].revents != 0) fds[i].fd = -1;
      undecided |= fds[i].fd >= 0;
    }
  }
  free(fds);
  for (uint32_t i = 0; i < count; ++i)
    if (is_watched(list[i]) && !may_carry(list[i])) leave_one(list[i]);
}

}  // namespace

void close_substitutes(Leaving* list, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    int fd = list[i].substitute;
    if (fd >= 0) kernel::close(fd);
    for (uint32_t k = i; k < count; ++k)
      if (list[k].substitute == fd) list[k].substitute = -1;
  }
}

// The carrier itself: it has nothing open but the connections and their ends.
void Carrier::run(const Launch& l) {
  setsid();
  (void)!chdir("/");
  // All connections first: one that is let go of at its last number is gone.
  for (uint32_t i = 0; i < l.count; ++i)
    if (l.list[i].far_end >= 0) correct_table(l.list[i].fd, l.list[i].socket);
  for (uint32_t i = 0; i < l.count; ++i)
    if (l.list[i].far_end >= 0) correct_table(l.list[i].far_end, nullptr);
  correct_table(l.go, nullptr);
  for (int from = 0;;) {
    int kept = next_kept(l.list, l.count, l.go, from);
    if (kept > from) ::close_range(unsigned(from), kept == INT32_MAX ? ~0u : unsigned(kept) - 1, 0);
    if (kept == INT32_MAX) break;
    from = kept + 1;
  }
  {
    Guard guard(control_lock);  // deaths are announced to those who are registered
    (void)coordinator.ensure();
  }
  sigprocmask(SIG_SETMASK, &l.mask, nullptr);
  char verdict = 'g';
  while (kernel::read(l.go, &verdict, 1) < 0 && errno == EINTR) {
  }
  if (verdict == 'x') _exit(0);
  kernel::close(l.go);
  leave_what_is_taken(l.list, l.count);
  CarrierLoop loop;
  for (uint32_t i = 0; i < l.count; ++i) {
    if (l.list[i].far_end < 0) continue;
    if (!is_meant(l.list, l.count, *l.list[i].socket)) l.list[i].socket->be_polite();
    loop.add(l.list[i].fd, l.list[i].far_end);
  }
  loop.run();
  _exit(0);
}

// In a process between us and the carrier, which thereby is nobody's child: the new program does
// not wait for it.
int Carrier::launch(void* argument) {
  auto& l = *static_cast<Launch*>(argument);
  pid_t pid = fork();
  if (pid == 0) run(l);
  l.started = pid > 0;
  _exit(0);
}

bool Carrier::start(Leaving* list, uint32_t count) {
  int ends[2];
  if (!provide_ends(list, count)) {
    close_far_ends(list, count);
    return false;
  }
  if (!in_vfork_child() && coordinator.connected()) {
    // The process between us and the carrier speaks for us, and cannot find another coordinator.
    Guard guard(control_lock);
    coordinator.check_lost();
    if (!coordinator.connected()) (void)coordinator.ensure();
  }
  Launch l{list, count, -1, {}, false};
  if (pipe2(ends, O_CLOEXEC) == 0) {
    l.go = ends[0];
    go_ = ends[1];
    // Like vfork, and without a signal at the end: no wait() of the program sees this process, and
    // no handler of it runs there.
    alignas(16) char stack[64 * 1024];
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &l.mask);
    pid_t between = clone(launch, stack + sizeof stack, CLONE_VM | CLONE_VFORK, &l);
    while (between > 0 && kernel::waitpid(between, __WALL) < 0 && errno == EINTR) {
    }
    sigprocmask(SIG_SETMASK, &l.mask, nullptr);
    kernel::close(l.go);
  }
  close_far_ends(list, count);
  if (l.started) return true;
  finish('x');
  close_substitutes(list, count);
  return false;
}

bool Carrier::has_failed(const Leaving* list, uint32_t count) const {
  bool any = false;
  for (uint32_t i = 0; i < count; ++i) any |= list[i].socket->state == TcpState::kConnected;
  // Who is not known to the coordinator does not hold what it carries.
  return any && (go_ < 0 || (coordinator.connected() && !coordinator.child_was_known()));
}

void Carrier::finish(char verdict) {
  if (go_ < 0) return;
  (void)!kernel::write(go_, &verdict, 1);
  kernel::close(go_);
  go_ = -1;
}

// ---- exec ---------------------------------------------------------------------------------

namespace {

// A vfork child may have put something else where the table shows a socket without a kernel
// socket of its own.
bool is_still(int fd, const TcpSocket& s) {
  struct stat st;
  if (libc.fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode)) return false;
  return s.real || is_placeholder(st);
}

bool stays_open(int fd, const File* f, bool vforked) {
  if (f == nullptr || f->kind() != FileKind::kTcpSocket) return false;
  int flags = libc.fcntl(fd, F_GETFD);
  if (flags < 0 || (flags & FD_CLOEXEC) != 0) return false;
  return !vforked || is_still(fd, *static_cast<const TcpSocket*>(f));
}

template <class F>
void each_staying(F&& f) {
  bool vforked = in_vfork_child();
  uint32_t limit = descriptors.high_water();
  for (uint32_t fd = 0; fd < limit; ++fd)
    if (File* file = file_at(int(fd)); stays_open(int(fd), file, vforked)) f(int(fd), *static_cast<TcpSocket*>(file));
  if (!vforked) return;
  for (uint32_t i = 0; i < std::size(notes); ++i)  // what is beyond the table
    if (uint32_t(notes[i].fd) >= limit && note_of(notes[i].fd) == &notes[i] && stays_open(notes[i].fd, notes[i].file, true))
      f(notes[i].fd, *static_cast<TcpSocket*>(notes[i].file));
}

// A listener lives on in the kernel: what waits for accept() here has to wait there.
void leave_backlogs() {
  Guard guard(control_lock);
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) l->no_longer_here();
  if (listeners != nullptr) settle_before_fork();
}

// This process accepts on, where it did so by waiting for events.
void return_to_backlogs() {
  Guard guard(control_lock);
  for (uint32_t fd = 0; listeners != nullptr && fd < descriptors.high_water(); ++fd) {
    File* f = descriptors.peek(int(fd));
    if (f == nullptr || f->kind() != FileKind::kTcpSocket || f->interests() == nullptr) continue;
    auto* s = static_cast<TcpSocket*>(f);
    if (s->state == TcpState::kListening) s->note_interest(int(fd));
  }
}

}  // namespace

uint32_t Departure::room() {
  uint32_t n = 0;
  if (descriptors.high_water() != 0) each_staying([&](int, TcpSocket&) { ++n; });
  return n;
}

Departure::Departure(Leaving* list, uint32_t room) : list_(list) {
  if (!in_vfork_child() && listeners != nullptr) leave_backlogs();
  if (room == 0) return;
  if (!in_vfork_child()) {  // what came for these connections leaves with them
    Guard guard(control_lock);
    peers.take_packets();
  }
  collect(room);
  carrier_.start(list_, count_);
  impossible_ = carrier_.has_failed(list_, count_);
  for (uint32_t i = 0; i < count_ && !impossible_; ++i) {
    replace(list_[i]);
    impossible_ = list_[i].substitute >= 0 && list_[i].original < 0 && file_at(list_[i].fd) == list_[i].socket;
  }
}

void Departure::collect(uint32_t room) {
  bool vforked = in_vfork_child();
  each_staying([&](int fd, TcpSocket& s) {
    if (s.state == TcpState::kListening || count_ == room) return;
    if (s.state == TcpState::kUnconnected && !vforked) {
      Guard guard(control_lock);
      (void)make_real(fd, s);
      return;
    }
    if (s.state == TcpState::kUnconnected && s.real) return;
    Leaving& l = list_[count_++] = {fd, &s, -1, -1, -1, fd <= STDERR_FILENO, 0};
    // A vfork child gives the new program a socket of its own, and its parent keeps none.
    if (s.state == TcpState::kUnconnected)
      l.substitute = libc.socket(s.family, s.type() | SOCK_CLOEXEC | (s.nonblocking ? SOCK_NONBLOCK : 0), 0);
  });
}

// Only the kernel's descriptors change. Other threads may close or reuse the number, unless this
// is a vfork child, whose descriptors are nobody else's.
void Departure::replace(Leaving& l) {
  if (l.substitute < 0) return;
  RaisedLimit raised;
  Guard guard(control_lock);
  if (file_at(l.fd) != l.socket) return;
  l.original = libc.fcntl(l.fd, F_DUPFD_CLOEXEC, 0);
  if (l.original >= 0) libc.dup2(l.substitute, l.fd);
}

void Departure::restore(Leaving& l) {
  if (l.original < 0) return;
  Guard guard(control_lock);
  if (file_at(l.fd) == l.socket) libc.dup2(l.original, l.fd);
  kernel::close(l.original);
}

void Departure::call_off() {
  int error = errno;
  carrier_.call_off();
  for (uint32_t i = 0; i < count_; ++i) restore(list_[i]);
  close_substitutes(list_, count_);
  if (!in_vfork_child()) return_to_backlogs();
  errno = error;
}

}  // namespace sluice::preload
