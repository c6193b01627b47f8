#include "preload/files/ancillary.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/direction_lock.h"
#include "preload/files/tcp_socket.h"
#include "preload/iov_cursor.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/pool.h"
#include "preload/signals.h"
#include "preload/user_memory.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

constinit Pool<Channels> pool;
// The kernel's limit is 253 descriptors in a message.
constexpr size_t kControlBytes = CMSG_SPACE(253 * sizeof(int)) + CMSG_SPACE(sizeof(ucred));

int int_option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return libc.getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

// The kernel vouches for the sender when it is named; it does not by itself, because the channel's far
// end shows only when it is read whether anybody wants to know.
void add_credentials(msghdr& m, char* room, size_t size) {
  ucred self{getpid(), getuid(), getgid()};
  size_t used = m.msg_controllen;
  if (used + CMSG_SPACE(sizeof self) > size) return;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) return;
  memcpy(room, m.msg_control, used);
  used = CMSG_ALIGN(used);
  auto* c = reinterpret_cast<cmsghdr*>(room + used);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_CREDENTIALS;
  c->cmsg_len = CMSG_LEN(sizeof self);
  memcpy(CMSG_DATA(c), &self, sizeof self);
  m.msg_control = room;
  m.msg_controllen = used + CMSG_SPACE(sizeof self);
}

bool is_same(int a, int b) {
  struct stat first, second;
  return libc.fstat(a, &first) == 0 && libc.fstat(b, &second) == 0 && first.st_ino == second.st_ino;
}

}  // namespace

Channels* create_channels() { return pool.create(); }

void close_sending(Channels& c) {
  close_own(c.out);
  close_own(c.far);
  c.out = c.far = -1;
}

void destroy_channels(Channels* c) {
  close_sending(*c);
  for (int fd : c->in) close_own(fd);
  pool.destroy(c);
}

bool is_channel(int fd) { return int_option(fd, SO_DOMAIN) == AF_UNIX && int_option(fd, SO_TYPE) == SOCK_SEQPACKET; }

// ---- sending --------------------------------------------------------------------------------

// Every process that holds the peer's side gets the same end. 0 or -errno.
int TcpSocket::hand_out_channel(int end) {
  if (!pair->in()) attach();
  uint32_t where = pair->twin != nullptr ? pair->twin->generation() : pair->generation();
  if (theirs == nullptr) return coordinator.pass_channel(pair->peer(), where, slot, generation, end);
  // Who has died meanwhile, by exec say, may have handed the connection on to one whose entry we had passed.
  int passed = -ESRCH;
  for (int tries = 0; passed == -ESRCH && tries < 3; ++tries) passed = hand_to_holders(where, end);
  return passed;
}

int TcpSocket::hand_to_holders(uint32_t where, int end) {
  const Directory* d = coordinator.directory();
  int passed = -ESRCH;
  for (Shared<DomainId>& h : theirs->holders) {
    DomainId holder = h.load(std::memory_order_acquire);
    if (holder == kNobody || !d->is_alive(holder)) continue;
    if (holder == coordinator.self()) {
      int copy = move_high(libc.fcntl(end, F_DUPFD_CLOEXEC, 0));
      if (peers.take_channel(holder, where, slot, generation, copy)) passed = 0;
      else close_own(copy);
      continue;
    }
    int error = coordinator.pass_channel(holder, where, slot, generation, end);
    if (passed != 0) passed = error;
  }
  return passed;
}

// In our slot, where the peer looks whether the channel comes from who has a right to it.
bool TcpSocket::say_maker() {
  for (Shared<DomainId>& m : mine->channel_makers) {
    DomainId maker = m.load(std::memory_order_relaxed);  // ours, under send_lock
    if (maker != kNobody && maker != coordinator.self()) continue;
    m.store(coordinator.self(), std::memory_order_release);
    return true;
  }
  return false;
}

int TcpSocket::open_channel() {
  Guard guard(control_lock);
  if (channels != nullptr && channels->out >= 0) return 0;
  if (theirs == nullptr) {
    peers.drain();
    attach();
    if (state != TcpState::kConnected) return 0;
  }
  if (channels == nullptr) channels = create_channels();
  RaisedLimit raised;
  int ends[2];
  if (channels == nullptr) return -ENOMEM;
  if (!say_maker()) return -ETOOMANYREFS;
  if (libc.syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return errno == EMFILE || errno == ENFILE ? -ENOBUFS : -errno;  // sendmsg(2) has none of these
  if (int error = hand_out_channel(ends[1]); error != 0) {
    kernel::close(ends[0]);
    kernel::close(ends[1]);
    return error == -ESRCH ? -EPIPE : error == -ENOTCONN || error == -ETIMEDOUT ? -EOPNOTSUPP : error;
  }
  channels->out = move_high(ends[0]);
  channels->far = move_high(ends[1]);
  let_go_of_far_end();
  return 0;
}

// What it has is the reader's alone, and ends with the reader, unless all may have to be sent again elsewhere.
void TcpSocket::let_go_of_far_end() {
  if (channels == nullptr || channels->far < 0) return;
  bool asked_back = (my_state() & kWithdrawn) != 0;  // kRedirect may follow
  bool may_move = initiator && !dead &&
                  (theirs == nullptr || asked_back || (theirs->state.load(std::memory_order_acquire) & kAccepted) == 0);
  if (may_move) return;
  close_own(channels->far);
  channels->far = -1;
}

// Sends what fits at once, with its control message. Bytes or -errno; -EAGAIN: no space; -EBUSY: none
// in the channel. Under send_lock.
ssize_t TcpSocket::send_with_control_now(const msghdr& m) {
  size_t total = total_bytes(m.msg_iov, int(m.msg_iovlen));
  size_t n = make_space(total);
  if (n == 0) return -EAGAIN;
  if (n > total) n = total;
  if (n > kMostAtOnce) n = kMostAtOnce;
  if (int error = probe_vectors(m.msg_iov, int(m.msg_iovlen), n, false); error != 0) return error;  // before it is announced
  if (int error = announce_ancillary(m, uint32_t(n)); error != 0) return error;
  return send_now(m.msg_iov, int(m.msg_iovlen), 0, n);
}

// Puts the control message into the channel, for the next `bytes` bytes. 0 or -errno; -EBUSY as above.
int TcpSocket::announce_ancillary(const msghdr& m, uint32_t bytes) {
  AncillaryHeader header{mine->tail.load(std::memory_order_relaxed), bytes,
                         mine->ancillaries.load(std::memory_order_relaxed)};  // ours, both
  iovec iov{&header, sizeof header};
  msghdr out{};
  out.msg_iov = &iov;
  out.msg_iovlen = 1;
  out.msg_control = m.msg_control;
  out.msg_controllen = m.msg_controllen;
  alignas(cmsghdr) char control[2 * kControlBytes];
  add_credentials(out, control, sizeof control);
  ssize_t n;
  do n = kernel::sendmsg(channels->out, &out, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN ? -EBUSY : -errno;
  mine->ancillaries.fetch_add(1, std::memory_order_release);
  return 0;
}

// The peer knows who connected. The acceptor need not be who listened.
bool TcpSocket::is_told_anyway(const msghdr& m) const {
  if (m.msg_control == nullptr || m.msg_controllen < sizeof(cmsghdr)) return true;
  ucred self{getpid(), geteuid(), getegid()};
  return initiator && !shared && self.uid == getuid() && self.gid == getgid() && has_only_credentials(m, self);
}

// Until the reader has taken some, or there is none.
int TcpSocket::wait_for_channel(const Deadline& deadline, uint32_t seen_unrestarted) {
  uint32_t seen = signal_counts.any;
  if (signal_counts.unrestarted != seen_unrestarted) return -EINTR;
  pollfd p[2] = {{channels->out, POLLOUT, 0}, {}};
  peers.enter();
  peers.begin_sleep();
  sleep_wake_fence();
  Deadline until = deadline;
  {
    Guard guard(control_lock);
    peers.drain();
    attach();
    until = deadline.or_earlier(preload::waiting.look(0));
  }
  uint32_t remote = remote_state();
  bool over = (remote & (kClosed | kReset | kRedirect)) != 0 || is_refused(remote) || shut_write() || closed || dead;
  peers.leave();  // a sleeper looks at nothing, and keeps no memory of the dead
  long r = over ? 0 : sleep_in_poll(p, 1, until, nullptr, seen);
  peers.end_sleep();
  bool interrupted = signal_counts.unrestarted != seen_unrestarted || (!deadline.is_never() && signal_counts.any != seen);
  if (r == -EINTR && interrupted) return -EINTR;
  return deadline.passed() ? -EAGAIN : 0;
}

ssize_t TcpSocket::send_with_control(const msghdr& m, int flags) {
  if (records) return send_record(m.msg_iov, int(m.msg_iovlen), flags, is_told_anyway(m) ? nullptr : &m);
  size_t total = total_bytes(m.msg_iov, int(m.msg_iovlen));
  if (total == 0 || is_told_anyway(m)) return send(m.msg_iov, int(m.msg_iovlen), flags);
  bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = wait ? Deadline::in_us(send_timeout_us) : Deadline::never();
  for (bool waited = false;; waited = true) {
    ssize_t n = 0;
    {
      DirectionGuard guard(send_lock, *this, &Slot::send_lock);
      if (state != TcpState::kConnected) return kNowTheKernels;
      uint32_t remote = remote_state();
      note_reset(remote);
      if (shut_write() || reset_noted || is_refused(remote)) return send_error(flags, waited);
      if ((remote & kRedirect) != 0 && !dead) {
        Guard control(control_lock);
        redirect(true, false);
        if (state != TcpState::kConnected) return kNowTheKernels;
        continue;
      }
      n = open_channel();
      if (state != TcpState::kConnected) return kNowTheKernels;
      if (n == 0) n = send_with_control_now(m);
    }
    if (n == -EPIPE) return send_error(flags);
    if (n > 0 && size_t(n) == total) return n;
    if (n > 0) {
      ssize_t rest = send(m.msg_iov, int(m.msg_iovlen), flags, size_t(n));
      return rest > 0 ? rest : n;
    }
    if (n != -EAGAIN && n != -EBUSY) return n;
    if (!wait) return -EAGAIN;
    int e = n == -EBUSY ? wait_for_channel(deadline, unrestarted) : wait_for_space(deadline, unrestarted);
    if (e != 0) return e;
  }
}

// ---- receiving ------------------------------------------------------------------------------

bool TcpSocket::takes_channel(DomainId from, int fd) {
  if (state != TcpState::kConnected || closed || !is_unix()) return false;
  attach();
  if (theirs == nullptr) return false;
  bool may = false;
  for (Shared<DomainId>& m : theirs->channel_makers) may |= m.load(std::memory_order_acquire) == from;
  if (!may) return false;
  if (channels == nullptr) channels = create_channels();
  for (int i = 0; channels != nullptr && i < Channels::kIn; ++i) {
    if (channels->in[i] < 0) {
      channels->in[i] = fd;
      return true;
    }
    if (!is_same(channels->in[i], fd)) continue;
    close_own(fd);  // given to our parent, and so to us; and to us
    return true;
  }
  return false;
}

// The next one that was not taken, if its bytes may be here: after they have been observed. Its
// channel; -1: there is none; -EPROTO: it was counted, and is not to be found.
int TcpSocket::next_ancillary(AncillaryHeader& header) {
  uint32_t number = mine->ancillaries_taken.load(std::memory_order_relaxed);  // ours
  if (theirs->ancillaries.load(std::memory_order_acquire) == number) return -1;
  for (int tries = 0; tries < 3; ++tries) {
    for (int i = 0; channels != nullptr && i < Channels::kIn; ++i) {
      int fd = channels->in[i];
      if (fd < 0) continue;
      ssize_t n;
      do n = kernel::recv(fd, &header, sizeof header, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
      while (n < 0 && errno == EINTR);
      if (n == ssize_t(sizeof header) && header.number == number) return fd;
    }
    Guard guard(control_lock);
    (void)coordinator.ensure();  // a forked child may not have needed it so far
    if (tries == 1) (void)coordinator.sync();
    peers.take_packets();  // the channel was passed before it was used
  }
  return -EPROTO;
}

// `into`: null, and what was sent is thrown away. Returns false if the sender broke the protocol.
bool TcpSocket::take_ancillary(int fd, msghdr* into, int flags) {
  AncillaryHeader header;
  iovec iov{&header, sizeof header};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  if (into != nullptr) {
    m.msg_control = into->msg_control;
    m.msg_controllen = into->msg_controllen;
  }
  int on = pass_credentials;
  libc.setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  bool peek = (flags & MSG_PEEK) != 0;
  ssize_t n;
  do n = kernel::recvmsg(fd, &m, MSG_DONTWAIT | (flags & MSG_CMSG_CLOEXEC) | (peek ? int{MSG_PEEK} : 0));
  while (n < 0 && errno == EINTR);
  if (n != ssize_t(sizeof header)) return false;
  if (!peek) mine->ancillaries_taken.fetch_add(1, std::memory_order_release);
  if (into == nullptr) return true;
  into->msg_controllen = m.msg_controllen;
  into->msg_flags = m.msg_flags & MSG_CTRUNC;
  return true;
}

// ---- elsewhere ------------------------------------------------------------------------------

bool SentAncillary::take(int far) {
  close_descriptors();
  iovec iov{&header_, sizeof header_};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control_;
  m.msg_controllen = sizeof control_;
  if (far < 0 || kernel::recvmsg(far, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != ssize_t(sizeof header_)) return false;
  control_bytes_ = m.msg_controllen;
  return true;
}

ssize_t SentAncillary::send(int to, const std::byte* bytes, size_t n, bool with, const Deadline& deadline) const {
  iovec iov{const_cast<std::byte*>(bytes), n};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  if (with) {
    m.msg_control = const_cast<char*>(control_);
    m.msg_controllen = control_bytes_;
  }
  for (;;) {
    ssize_t sent = kernel::sendmsg(to, &m, MSG_NOSIGNAL);
    if (sent >= 0 || (errno != EINTR && (errno != EAGAIN || !wait_writable(to, deadline)))) return sent;
  }
}

void SentAncillary::close_descriptors() {
  msghdr m{};
  m.msg_control = control_;
  m.msg_controllen = control_bytes_;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      kernel::close(fd);
    }
  }
  control_bytes_ = 0;
}

bool repeat_in_kernel(int far, int to, const std::byte* bytes, uint64_t n, const Deadline& deadline) {
  SentAncillary ancillary;
  for (uint64_t at = 0;;) {
    bool any = ancillary.take(far);
    const AncillaryHeader& header = ancillary.header();
    uint64_t end = any ? header.position : n;
    if (end > n || (any && header.position + header.bytes > n)) return false;
    if (!send_all(to, bytes + at, end - at, deadline)) return false;
    if (!any) return true;
    ssize_t sent = ancillary.send(to, bytes + end, header.bytes, true, deadline);
    if (sent <= 0) return false;
    at = end + uint64_t(sent);
  }
}

// As put_cmsg() in the kernel: what there is no room for is cut off, and without room for a header there is nothing.
void put_credentials(msghdr& m, const ucred& sender) {
  size_t room = m.msg_control != nullptr ? m.msg_controllen : 0, length = CMSG_LEN(sizeof sender), space = CMSG_SPACE(sizeof sender);
  m.msg_controllen = 0;
  if (room < length) m.msg_flags |= MSG_CTRUNC;
  if (room < sizeof(cmsghdr)) return;
  if (room < length) length = room;
  auto* c = static_cast<cmsghdr*>(m.msg_control);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_CREDENTIALS;
  c->cmsg_len = length;
  memcpy(CMSG_DATA(c), &sender, length - CMSG_LEN(0));
  m.msg_controllen = space < room ? space : room;
}

bool has_only_credentials(const msghdr& m, const ucred& sender) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&m), c)) {
    ucred who;
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS || c->cmsg_len != CMSG_LEN(sizeof who)) return false;
    memcpy(&who, CMSG_DATA(c), sizeof who);
    if (memcmp(&who, &sender, sizeof who) != 0) return false;
  }
  return true;
}

}  // namespace sluice::preload
