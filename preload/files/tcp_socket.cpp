// The data path: bytes in, bytes out, and what a connection reports about itself.
#include "preload/files/tcp_socket.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "preload/coordinator_link.h"
#include "preload/direction_lock.h"
#include "preload/files/ancillary.h"
#include "preload/iov_cursor.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/signals.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

namespace {

constexpr int64_t kUnwokenMs = 5000;


// Sleeps until the peer's doorbell or the coordinator's changes. 0, -EINTR, -ETIMEDOUT.
struct Word {
  const Shared<uint32_t>& at;
  uint32_t value;
};

long wait_on_words(const Word& peers, const Word& own, const Deadline& deadline, uint32_t seen) {
  const ReplyRegion* replies = coordinator.replies();
  const Directory* directory = coordinator.directory();  // of that coordinator, or of the next one
  DoorbellWait wait;
  futex_waitv words[4] = {};
  words[0] = {peers.value, uint64_t(&peers.at), FUTEX_32, 0};
  words[1] = {own.value, uint64_t(&own.at), FUTEX_32, 0};
  uint32_t owner = directory != nullptr ? directory->owner.load(std::memory_order_acquire) : Directory::kOwnerDied;
  bool there = replies != nullptr && (owner & Directory::kOwnerDied) == 0;
  if (there) {
    words[2] = {replies->doorbell.load(std::memory_order_acquire), uint64_t(&replies->doorbell), FUTEX_32, 0};
    words[3] = {owner, uint64_t(&directory->owner), FUTEX_32, 0};
    if (coordinator.has_packets() || replies != coordinator.replies()) return 0;
  }
  // The kernel wakes one sleeper, who may be dead or stopped before it has woken the others.
  Deadline until = deadline.or_earlier(Deadline::in_ms(there ? kUnwokenMs : kAwayMs));
  long r = interruptible_syscall(seen, SYS_futex_waitv, long(words), there ? 4 : 2, 0, long(until.absolute()), CLOCK_MONOTONIC);
  if (there && !directory->has_owner()) futex_wake(directory->owner);
  if (r == -ENOSYS) {  // before Linux 5.16
    until = deadline.or_earlier(Deadline::in_ms(kAwayMs));
    r = interruptible_syscall(seen, SYS_futex, long(&peers.at), FUTEX_WAIT_BITSET, peers.value, long(until.absolute()), 0);
  }
  return r >= 0 || r == -EAGAIN ? 0 : r;
}

}  // namespace

// ---- what the other side says -------------------------------------------------------------

uint32_t TcpSocket::remote_state() const {
  const Slot* theirs = this->theirs;  // another thread may move what nobody has accepted
  uint32_t s = theirs != nullptr ? theirs->state.load(std::memory_order_acquire) : 0;
  if (is_abandoned()) return kFin | kClosed | kReset;
  // Sent away. What is shared cannot move.
  if ((s & kRedirect) != 0 && !dead) return initiator && !shared ? kRedirect : kFin | kClosed | kReset;
  // Closed with bytes unread is a reset; the peer itself may not have seen that there were any.
  if ((s & kClosed) != 0 && theirs->head.load(std::memory_order_acquire) != mine->tail.load(std::memory_order_relaxed))
    s |= kReset;
  if (!dead) return orphaned ? s | kRedirect : s;
  if ((s & (kFin | kReset)) != 0) return s | kClosed;
  // As the kernel does for a killed process: reset if it left bytes unread, else the end.
  bool unread = theirs == nullptr ||
                theirs->head.load(std::memory_order_acquire) != mine->tail.load(std::memory_order_relaxed);
  return s | kClosed | kFin | (unread && mine->tail.load(std::memory_order_relaxed) != 0 ? kReset : 0u);
}

void TcpSocket::note_reset(uint32_t remote) {
  if ((remote & kReset) == 0 || reset_noted.exchange(true, std::memory_order_relaxed)) return;
  // tcp_reset(): EPIPE after the peer's FIN, nothing after both sides', else ECONNRESET.
  bool finished = !is_unix() && (remote & kFinished) != 0;
  if (finished && shut_write()) return;
  error.store(finished ? EPIPE : ECONNRESET, std::memory_order_relaxed);  // told once, to whoever asks first
}

int TcpSocket::take_error() {
  note_reset(state == TcpState::kConnected ? remote_state() : 0);
  return error.exchange(0, std::memory_order_relaxed);  // told once
}

int64_t TcpSocket::readable_bytes() const {
  Slot* theirs = this->theirs;
  if (theirs == nullptr || is_broken()) return 0;
  int64_t n = ByteConsumer(region_of(theirs), *theirs, *mine).available();
  return n < 0 ? 0 : n;
}

// ---- urgent bytes: tcp(7), and RFC 6093 for what is left of them -----------------------------

// How far the urgent byte is ahead; negative: there is none ahead.
int64_t TcpSocket::bytes_to_mark() const {
  if (theirs == nullptr || (theirs->state.load(std::memory_order_acquire) & kUrgent) == 0 || is_broken()) return -1;
  uint64_t end = theirs->urgent.load(std::memory_order_acquire);
  return end == 0 ? -1 : int64_t(end - 1 - mine->head.load(std::memory_order_relaxed));  // ours
}

// Whether it is there (it may be announced before), and recv(MSG_OOB) has not taken it.
bool TcpSocket::has_urgent_byte() const {
  int64_t mark = bytes_to_mark();
  return mark >= 0 && mark < readable_bytes() && urgent_taken != theirs->urgent.load(std::memory_order_acquire);
}

int64_t TcpSocket::readable_to_mark() const {
  int64_t n = readable_bytes(), mark = bytes_to_mark();
  return mark >= 0 && mark < n && !urgent_inline ? mark : n;
}

// Whether there are at least so many bytes besides an urgent one that comes first.
bool TcpSocket::has_bytes(int64_t at_least) const {
  int64_t n = readable_bytes();
  return n >= at_least + (n > 0 && !urgent_inline && bytes_to_mark() == 0 ? 1 : 0);
}

ssize_t TcpSocket::receive_urgent(const iovec* iov, int count, int flags) {
  if (theirs == nullptr) reach_peer();
  int64_t mark = bytes_to_mark();
  bool taken = mark >= 0 && urgent_taken == theirs->urgent.load(std::memory_order_acquire);
  if (urgent_inline || mark < 0 || taken) return -EINVAL;
  if (!has_urgent_byte()) return (remote_state() & kFin) != 0 || shut_read() ? 0 : -EAGAIN;
  Pieces<const std::byte> p;
  ByteConsumer in(region_of(theirs), *theirs, *mine);
  if (in.observe(p, uint64_t(mark)) != 0 || p.bytes() == 0) return -EAGAIN;
  if (total_bytes(iov, count) == 0) return 0;
  if (int e = IovCursor(iov, count, 0).scatter(p.first, 1); e != 0) return e;
  if ((flags & MSG_PEEK) == 0) urgent_taken = theirs->urgent.load(std::memory_order_acquire);
  return 1;
}

void TcpSocket::mark_urgent(uint64_t end) {
  mine->urgent.store(end, std::memory_order_release);
  mine->state.fetch_or(kUrgent, std::memory_order_release);
}

// The last byte of a send with MSG_OOB. Announced before it is published: nobody reads past it.
ssize_t TcpSocket::send_urgent(const iovec* iov, int count, size_t skip) {
  if (make_space(1) == 0) return 0;
  std::byte byte;  // readable, before it is announced
  if (int error = IovCursor(iov, count, skip).gather(&byte, 1); error != 0) return error;
  mark_urgent(mine->tail.load(std::memory_order_relaxed) + 1);  // ours
  return send_now(iov, count, skip, 1);
}

int64_t TcpSocket::outstanding_bytes() {
  // What fits a receive buffer of ordinary size has arrived: the kernel would have its ACK.
  constexpr int64_t kReceived = 128 * 1024;
  int64_t unread = int64_t(producer().unread());
  return unread > kReceived ? unread - kReceived : 0;
}

int64_t TcpSocket::unread_bytes() { return int64_t(ByteProducer(pair->out(), *mine, theirs, head_seen).unread()); }

void TcpSocket::reach_peer() {
  Guard guard(control_lock);
  peers.drain();
  attach();
}

uint32_t TcpSocket::peer_cpu() const { return pair != nullptr ? pair->peer_cpu() : Spinner::kAnyCpu; }

uint32_t TcpSocket::poll_events() {
  if (state == TcpState::kListening) return backlog.first != nullptr ? EPOLLIN | EPOLLRDNORM : 0;
  uint32_t can_write = EPOLLOUT | EPOLLWRNORM | (is_unix() ? EPOLLWRBAND : 0u);  // tcp_poll(), unix_poll()
  if (state == TcpState::kUnconnected) return can_write | EPOLLHUP;
  if (theirs == nullptr || is_left_behind_by_peer()) attach();
  uint32_t remote = remote_state();
  note_reset(remote);
  uint32_t events = 0;
  bool ended = (remote & (kFin | kReset)) != 0 || shut_read();
  if (polite && others_hold()) ended = false;
  else if (ended || has_enough()) events |= EPOLLIN | EPOLLRDNORM;
  if (has_urgent_byte()) events |= EPOLLPRI;
  if (ended) events |= EPOLLRDHUP;
  bool refused = is_refused(remote);
  if (reset_noted || (ended && (shut_write() || refused))) events |= EPOLLHUP;
  if (error.load(std::memory_order_relaxed) != 0) events |= EPOLLERR;  // a report, looked at again
  if (!shut_write() && !reset_noted && !refused && !writable()) {
    mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // ordered by the fence
    sleep_wake_fence();
    if (!writable()) return events;
  }
  if ((mine->wants.load(std::memory_order_relaxed) & kWantsSpaceEvent) != 0)             // our own
    mine->wants.fetch_and(~uint32_t{kWantsSpaceEvent}, std::memory_order_relaxed);  // a hint
  return events | can_write;
}

// Its lines are in the writer's cache, and they all come at the same time here, not one by one as they are read: 1 to 3 % of redis.
void TcpSocket::prefetch_input() const {
  constexpr size_t kFirst = 2 * kCacheLine;
  Pieces<const std::byte> p;
  if (state != TcpState::kConnected || theirs == nullptr || ByteConsumer(region_of(theirs), *theirs, *mine).observe(p) != 0) return;
  for (size_t at = 0; at < p.first_bytes && at < kFirst; at += kCacheLine) __builtin_prefetch(p.first + at);
}

// A third of the ring is free, as sk_stream_is_writeable() has it, or a bigger one can be had.
bool TcpSocket::writable() {
  if (records) return record_writable();
  ByteProducer out = producer();
  if (!out.has_ring() || out.space(true) * 3 >= out.size()) return true;
  return out.size() < size_t{1} << largest_ring_log2() && !pair->inherited && passed == 0 && out.can_switch();
}

// ---- waiting ------------------------------------------------------------------------------

bool TcpSocket::was_accepted() const {
  const Slot* peer = theirs;
  return !initiator || shared || (peer != nullptr && (peer->state.load(std::memory_order_acquire) & kAccepted) != 0);
}

namespace {
constexpr int64_t kMuchBytes = 1024;
}  // namespace

template <class Ready>
int TcpSocket::wait_on_doorbell(uint32_t wants, std::atomic<uint32_t>& waiting, const Deadline& deadline,
                                uint32_t seen_unrestarted, uint32_t seen, Ready&& ready_connected) {
  Looking looking;
  // The kernel's by now: its slots may be gone.
  auto ready = [&] { return state != TcpState::kConnected || ready_connected(); };
  auto is_much = [&] { return (wants & kWantsBytes) == 0 || readable_bytes() >= kMuchBytes; };
  auto news = [&] { return ready() || coordinator.has_packets() || peers.is_unfinished(); };
  if (state == TcpState::kConnected && !news() && !Spinner::until_or_let_run(news, peer_cpu(), is_much)) {
    if (signal_counts.unrestarted != seen_unrestarted) return -EINTR;
    Slot* peer = theirs;
    if (peer == nullptr || !pair->peer_attached() || !was_accepted() || is_left_behind_by_peer() || followed) {
      // One side does not see the other's slot yet, or it may move: then it is the bell that wakes. So
      // it is for one that is being passed: its end may depend on the coordinator's.
      pollfd p[1];
      if ((wants & kWantsSpace) != 0) mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // ordered by the fence
      peers.begin_sleep();
      sleep_wake_fence();
      Deadline until = deadline;
      {
        Guard guard(control_lock);
        peers.drain();
        attach();
        until = deadline.or_earlier(preload::waiting.look(0));
      }
      bool any = news();
      looking.pause();
      if (!any) (void)sleep_in_poll(p, 0, until, nullptr, seen);
      looking.resume();
      peers.end_sleep();
    } else {
      Slot* own = mine;
      waiting.fetch_add(1, std::memory_order_relaxed);     // ordered by the fence
      own->wants.fetch_or(wants, std::memory_order_relaxed);  // likewise
      uint32_t value = peer->doorbell.load(std::memory_order_acquire);
      uint32_t own_value = own_doorbell.load(std::memory_order_acquire);
      sleep_wake_fence();
      Deadline until = deadline;
      if (preload::waiting.any_new() || coordinator.has_unsent()) {  // other connections of this process
        Guard guard(control_lock);
        peers.drain();
        until = deadline.or_earlier(preload::waiting.look(0));
      }
      // Either side may have moved meanwhile: then look for it first.
      bool sleeps = state == TcpState::kConnected && theirs == peer && mine == own && !is_left_behind_by_peer() && !news();
      looking.pause();
      if (sleeps) (void)wait_on_words({peer->doorbell, value}, {own_doorbell, own_value}, until, seen);
      looking.resume();
      bool here = state == TcpState::kConnected && theirs == peer && mine == own;  // else those slots are nobody's
      if (waiting.fetch_sub(1, std::memory_order_acq_rel) == 1 && !shared && here) {
        own->wants.fetch_and(~wants, std::memory_order_acq_rel);
        if (waiting.load(std::memory_order_acquire) != 0) {  // somebody came in between
          own->wants.fetch_or(wants, std::memory_order_acq_rel);
          futex_wake(peer->doorbell);
        }
      }
    }
  }
  if (state == TcpState::kConnected && (coordinator.has_packets() || theirs == nullptr || is_left_behind_by_peer() ||
                                        coordinator.is_away() || peers.is_unfinished() || peers.is_unswept())) {
    looking.pause();  // or nobody could sweep
    {
      Guard guard(control_lock);
      if (!ready() && coordinator.is_called()) coordinator.try_again();
      else if (!ready() && coordinator.is_away()) (void)coordinator.ensure();
      peers.drain();
      attach();
    }
    looking.resume();
  }
  bool interrupted = signal_counts.unrestarted != seen_unrestarted ||
                     (!deadline.is_never() && signal_counts.any != seen);
  if (interrupted && !ready()) return -EINTR;
  return deadline.passed() && !ready() ? -EAGAIN : 0;
}

void TcpSocket::look_away() {
  {
    Looking looking;
    if (state != TcpState::kConnected || !Spinner::is_elsewhere(peer_cpu())) return;
  }
  pace.look_away([this]() -> uint64_t {
    Looking looking;
    int64_t n = state == TcpState::kConnected ? readable_bytes() : 0;
    return n > 0 ? uint64_t(n) : 0;
  });
}

int TcpSocket::wait_for_bytes(size_t at_least, const Deadline& deadline, uint32_t seen_unrestarted) {
  if (pace.is_due()) look_away();
  auto ready = [this, at_least] {
    return has_bytes(int64_t(at_least)) || (remote_state() & (kFin | kReset | kRedirect)) != 0 || dead || shut_read() || closed;
  };
  return wait_on_doorbell(kWantsBytes, waiting_bytes, deadline, seen_unrestarted, signal_counts.any, ready);
}

int TcpSocket::wait_for_input(const Deadline& deadline, uint32_t seen) {
  auto ready = [this] {
    return has_input() || (remote_state() & (kFin | kReset | kRedirect)) != 0 || dead || shut_read() || closed;
  };
  int r = wait_on_doorbell(kWantsBytes, waiting_bytes, deadline, signal_counts.unrestarted, seen, ready);
  // No handler lets poll(2) go on.
  Looking looking;
  return signal_counts.any != seen && state == TcpState::kConnected && !ready() ? -EINTR : r;
}

int TcpSocket::wait_for_space(const Deadline& deadline, uint32_t seen_unrestarted, const size_t* record) {
  auto ready = [this, record] {
    uint32_t remote = remote_state();
    return (record != nullptr ? record_fits(*record) : writable()) || (remote & (kClosed | kReset | kRedirect)) != 0 || is_refused(remote) || shut_write() || closed;
  };
  return wait_on_doorbell(kWantsSpace, waiting_space, deadline, seen_unrestarted, signal_counts.any, ready);
}

void TcpSocket::wake_own_threads(const Slot* peer) {
  own_doorbell.fetch_add(1, std::memory_order_acq_rel);
  futex_wake(own_doorbell);
  if (peer != nullptr) futex_wake(peer->doorbell);
}

void TcpSocket::wake_peer(uint32_t wants) {
  // After a full fence (the caller's). A forked child may not see yet what the peer wants, though the
  // peer has met its parent and sleeps on the doorbell.
  if (theirs == nullptr || (theirs->wants.load(std::memory_order_relaxed) & wants) != 0) {  // ordered by it
    mine->doorbell.fetch_add(1, std::memory_order_release);
    futex_wake(mine->doorbell);
  }
}

// ---- receiving ----------------------------------------------------------------------------

ssize_t TcpSocket::receive(const iovec* iov, int count, int flags, msghdr* control) {
  if (state != TcpState::kConnected) {
    int e = take_error();  // of a connection that was dissolved
    return e != 0 ? -e : -ENOTCONN;
  }
  if (records) [[unlikely]] {
    RecordInfo info;
    return receive_record(iov, count, flags, control, info);
  }
  if (is_unix()) flags &= ~int{MSG_ERRQUEUE | MSG_TRUNC};
  if ((flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
  if ((flags & MSG_OOB) != 0) {
    DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
    return state != TcpState::kConnected ? kNowTheKernels : receive_urgent(iov, count, flags);
  }
  size_t total = total_bytes(iov, count);
  bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  bool all = (flags & MSG_WAITALL) != 0;
  size_t enough = all ? total : size_t(low_water()) < total ? size_t(low_water()) : total;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = wait ? Deadline::in_us(receive_timeout_us) : Deadline::never();
  size_t done = 0;
  bool ends_here = false;  // with ancillary data
  for (;;) {
    ssize_t n;
    {
      DirectionGuard guard(receive_lock, *this, &Slot::receive_lock);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      n = receive_now(iov, count, (flags & MSG_PEEK) != 0 ? 0 : done, flags, control, ends_here);
    }
    look_behind();
    if (state != TcpState::kConnected) return kNowTheKernels;
    if (n > 0) done = (flags & MSG_PEEK) != 0 ? size_t(n) : done + size_t(n);
    if (n > 0 && (done >= enough || ends_here || at_mark())) return ssize_t(done);
    if (n == -ECONNRESET && done > 0 && !is_unix()) error.store(ECONNRESET, std::memory_order_relaxed);  // for the next call
    if (n != -EAGAIN && n <= 0) return done > 0 ? ssize_t(done) : n;
    if (!wait && done > 0 && is_unix()) (void)take_error();  // looked at, and lost (unix_stream_read_generic())
    if (!wait) return done > 0 ? ssize_t(done) : -EAGAIN;
    int error = wait_for_bytes((flags & MSG_PEEK) != 0 ? done + 1 : 1, deadline, unrestarted);
    if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
    if (error != 0) return done > 0 ? ssize_t(done) : error;
  }
}

// Takes what is there. -EAGAIN: nothing, and no end either. 0: the end. -EFAULT: nothing was taken.
ssize_t TcpSocket::receive_now(const iovec* iov, int count, size_t skip, int flags, msghdr* control, bool& ends_here) {
  if (theirs == nullptr || is_left_behind_by_peer()) reach_peer();
  uint32_t remote = remote_state();  // before the bytes: what it announces comes after them
  if (is_broken()) return end_of(remote);
  if (theirs == nullptr) return (remote & kFin) != 0 ? end_of(remote) : -EAGAIN;
  ByteConsumer in(region_of(theirs), *theirs, *mine);
  IovCursor cursor(iov, count, skip);
  size_t left = total_bytes(iov, count) - skip;
  bool peek = (flags & MSG_PEEK) != 0;
  size_t done = 0;
  int64_t available = in.available();
  if (available > 0 && left == 0) return 0;
  if (available > 0) pace.received(uint64_t(available));
  // A read that begins at the urgent byte begins after it; any other ends there.
  bool at_urgent = available > 0 && bytes_to_mark() == 0;
  size_t passed = at_urgent && !urgent_inline ? 1 : 0;
  if (passed != 0 && !peek) {
    in.retire(1);
    at_urgent = false;
    passed = 0;
  }
  while (left > 0 && available >= 0) {
    Pieces<const std::byte> p;
    if (in.observe(p, peek ? done + passed : 0) != 0) {
      available = -EPROTO;
      break;
    }
    size_t n = p.bytes();
    // Looked at after the bytes: a mark among them has been announced by now.
    if (int64_t mark = at_urgent ? -1 : bytes_to_mark(); mark >= 0) {
      uint64_t ahead = uint64_t(mark) - (peek ? done : 0);
      if (n > ahead) n = ahead;
    }
    if (n == 0) break;
    if (n > left) n = left;
    if (n > kPieceBytes) n = kPieceBytes;
    // Likewise: a read takes the ancillary data of one message, and ends with its bytes.
    AncillaryHeader header;
    int channel = ends_here ? -1 : next_ancillary(header);
    uint64_t at = mine->head.load(std::memory_order_relaxed) + (peek ? done : 0);  // ours
    if (channel == -EPROTO) {
      available = -EPROTO;
      break;
    }
    if (channel >= 0 && header.position >= at + n) channel = -1;  // not yet
    if (channel >= 0 && (flags & MSG_TRUNC) == 0 && probe_vectors(iov, count, skip + done + n, true) != 0)
      return done > 0 ? ssize_t(done) : -EFAULT;
    if (channel >= 0) {
      uint64_t end = header.position + header.bytes;
      if (end - at < n) n = size_t(end - at);
      if (end <= at || end - at > (uint64_t{2} << kLargestRingLog2) || !take_ancillary(channel, control, flags)) {
        available = -EPROTO;
        break;
      }
      left = left < end - at ? left : size_t(end - at);
      ends_here = true;
    }
    size_t first = n < p.first_bytes ? n : p.first_bytes;
    if ((flags & MSG_TRUNC) != 0) {
      cursor.skip(n);
    } else if (cursor.scatter(p.first, first) != 0 || (n > first && cursor.scatter(p.second, n - first) != 0)) {
      return done > 0 ? ssize_t(done) : -EFAULT;
    }
    done += n;
    left -= n;
    if (!peek) {
      at_urgent = false;
      in.retire(n);
      available = in.available();  // of now, and after that: the writer may have filled the ring since we began
      after_retire(uint64_t(available) + n);
    }
  }
  if (available < 0) {
    break_off();
    return done > 0 ? ssize_t(done) : -error.exchange(0, std::memory_order_relaxed);  // told once
  }
  if (done > 0) return ssize_t(done);
  if ((remote & kRedirect) != 0 && !dead) {
    Guard guard(control_lock);
    redirect(false, true);
    return -EAGAIN;
  }
  return end_of(remote);
}

// Nothing is there to be read: whether it is the end, or a reset that was not told yet. -EAGAIN: neither.
int TcpSocket::end_of(uint32_t remote) {
  note_reset(remote);
  if (!reset_noted && (remote & kFin) != 0) return 0;
  int e = error.load(std::memory_order_relaxed);  // told once
  if (e == EPIPE) return 0;                       // that is for who sends
  if (e != 0) return -error.exchange(0, std::memory_order_relaxed);
  return (remote & (kFin | kReset)) != 0 || shut_read() ? 0 : -EAGAIN;
}

void TcpSocket::after_retire(uint64_t available_before) {
  if (available_before < kQuietBytes) return;
  sleep_wake_fence();
  uint32_t wants = theirs->wants.load(std::memory_order_relaxed);  // ordered by the fence
  if ((wants & (kWantsSpace | kWantsSpaceEvent)) == 0) return;
  wake_peer(kWantsSpace);
  if ((wants & kWantsSpaceEvent) != 0) push_news();
}

// ---- sending ------------------------------------------------------------------------------

int TcpSocket::send_error(int flags, bool waited) {
  // On AF_UNIX a reset is for who reads, or was waiting to write (sock_alloc_send_pskb).
  int e = is_unix() && !waited ? EPIPE : error.exchange(0, std::memory_order_relaxed);  // told once
  if (e == 0) e = EPIPE;
  if (e == EPIPE && (flags & MSG_NOSIGNAL) == 0) pthread_kill(pthread_self(), SIGPIPE);
  return -e;
}

ssize_t TcpSocket::send(const iovec* iov, int count, int flags, size_t done) {
  if (records) [[unlikely]] return state != TcpState::kConnected ? ssize_t{kNowTheKernels} : send_record(iov, count, flags);
  if (state != TcpState::kConnected) return send_error(flags);
  bool urgent = (flags & MSG_OOB) != 0;
  size_t total = total_bytes(iov, count);
  if (urgent && total == 0 && is_unix()) return -EOPNOTSUPP;  // unix_stream_sendmsg()
  bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = wait ? Deadline::in_us(send_timeout_us) : Deadline::never();
  for (bool waited = false;; waited = true) {
    {
      DirectionGuard guard(send_lock, *this, &Slot::send_lock);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      uint32_t remote = remote_state();
      note_reset(remote);
      if (shut_write() || reset_noted) return done > 0 ? ssize_t(done) : send_error(flags, waited);
      if ((remote & kRedirect) != 0 && !dead) {
        Guard control(control_lock);
        redirect(true, false);
        if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
        continue;
      }
      if (is_refused(remote)) return done > 0 ? ssize_t(done) : send_error(flags, waited);
      if (nobody_reads(remote)) return sent_in_vain(total);
      size_t plain = urgent && total > 0 ? total - 1 : total;
      ssize_t n = send_now(iov, count, done, plain - done);
      if (n > 0) done += size_t(n);
      if (n >= 0 && done < total && done == plain) {
        n = send_urgent(iov, count, done);
        if (n > 0) done += size_t(n);
      }
      if (n < 0) return done > 0 ? ssize_t(done) : n;
    }
    look_behind();
    if (done == total) return ssize_t(done);
    if (!wait) {
      Looking looking;
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      // Whoever waits for an edge is told when there is space again; perhaps there is by now.
      mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // ordered by the fence
      sleep_wake_fence();
      if (writable()) continue;
      return done > 0 ? ssize_t(done) : -EAGAIN;
    }
    int e = wait_for_space(deadline, unrestarted);
    if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
    if (e != 0) return done > 0 ? ssize_t(done) : e;
  }
}

// The next call is told that nobody reads; but if there was nothing to send.
ssize_t TcpSocket::sent_in_vain(size_t bytes) {
  if (bytes == 0) return 0;
  reset_noted = true;
  error.store(EPIPE, std::memory_order_relaxed);  // told once
  return ssize_t(bytes);
}

// Puts as much into the ring as fits. -EFAULT: nothing could be read.
ssize_t TcpSocket::send_now(const iovec* iov, int count, size_t skip, size_t at_most) {
  ByteProducer out = producer();
  IovCursor cursor(iov, count, skip);
  size_t left = total_bytes(iov, count) - skip;
  if (left > at_most) left = at_most;
  size_t done = 0;
  while (left > 0) {
    size_t n = make_space(left);
    if (n == 0) break;
    if (n > left) n = left;
    if (n > kPieceBytes) n = kPieceBytes;
    Pieces<std::byte> p = out.reserve(n);
    if (cursor.gather(p.first, p.first_bytes) != 0 || (p.second_bytes > 0 && cursor.gather(p.second, p.second_bytes) != 0))
      return done > 0 ? ssize_t(done) : -EFAULT;
    out.publish(n);
    if (pace.runs_ahead()) fetch_ahead(p.first + p.first_bytes);
    after_publish();
    done += n;
    left -= n;
  }
  return ssize_t(done);
}

// Free bytes for a write of `wanted`, after growing the ring if that helps. 0: full.
size_t TcpSocket::make_space(size_t wanted) {
  ByteProducer out = producer();
  size_t enough = wanted < kPieceBytes ? wanted : kPieceBytes;
  size_t n = out.space(false);
  if (n >= enough) return n;
  if (out.has_ring()) pace.run_ahead();  // not with the first message: what is short is not slowed
  n = out.space(true);
  if (n >= wanted || !grow(wanted)) return n;
  return out.space(false);
}

namespace {
constexpr uint32_t kSizes[] = {12, 16, 18, 20};
}

// SO_SNDBUF bounds what is under way, up to the next size: who asks for little wants to be told
// early that nobody reads. Twice the value, as the kernel has it.
uint32_t TcpSocket::largest_ring_log2() const {
  if (send_buffer <= 0) return kLargestRingLog2;
  for (uint32_t log2 : kSizes)
    if (log2 > kSmallestRingLog2 && size_t{1} << log2 >= size_t(send_buffer) * 2) return log2;
  return kLargestRingLog2;
}

bool TcpSocket::grow(size_t wanted) {
  ByteProducer out = producer();
  // Ring memory is the parent's to give; what was passed has all that it gets.
  if (pair->inherited || passed != 0 || !out.can_switch()) return false;
  uint32_t switches = mine->switches.load(std::memory_order_relaxed);  // our own
  uint32_t largest = largest_ring_log2();
  // A reader that has not begun to read may not do so for long: the next handover would have to
  // wait for it, so this one takes all there is to take.
  if (switches == 1 && head_seen == 0) wanted = size_t{1} << largest;
  for (uint32_t log2 : kSizes) {
    if (log2 > largest) return false;
    bool bigger = size_t{1} << log2 > out.size();
    bool last = log2 == largest;
    if (!bigger || (size_t{1} << log2 < wanted && !last)) continue;
    return switch_ring(log2);
  }
  return false;
}

// Only after can_switch().
bool TcpSocket::switch_ring(uint32_t size_log2) {
  uint32_t switches = mine->switches.load(std::memory_order_relaxed);  // our own
  RingRef oldest = mine->rings[(switches + 1) & 1];
  uint32_t page;
  if (!pair->take_ring(size_log2, page)) return false;
  if (switches >= 2) pair->give_ring(oldest, mine->rings[switches & 1].from);
  producer().switch_to(page, size_log2);
  return true;
}

void TcpSocket::push_news() {
  constexpr uint32_t kNoNews = kAccepted | kUrgent | kDeaf | kPolite;
  bool only_bytes = !followed && (my_state() & ~kNoNews) == 0;
  pair->push_news(slot, last_push, only_bytes ? theirs : nullptr);
  if (followed) pair->ring_takers();
}

void TcpSocket::after_publish() {
  pace.sent();
  sleep_wake_fence();
  if (theirs == nullptr) attach();
  wake_peer(kWantsBytes);
  push_news();
}

ssize_t TcpSocket::send_file(int from, off_t* offset, size_t n) {
  // One copy: from the page cache into the ring. Falls out of the loop when the ring is full.
  if (state != TcpState::kConnected) return -ENOTCONN;
  if (records) return send_file_in_records(from, offset, n);
  uint32_t unrestarted = signal_counts.unrestarted;
  Deadline deadline = Deadline::in_us(send_timeout_us);
  size_t done = 0;
  while (done < n) {
    ssize_t k = 0;
    bool full;
    {
      DirectionGuard guard(send_lock, *this, &Slot::send_lock);
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      uint32_t remote = remote_state();
      note_reset(remote);
      if (shut_write() || reset_noted || is_refused(remote))
        return done > 0 ? ssize_t(done) : send_error(MSG_NOSIGNAL * (shut_write() ? 0 : 1));
      if (nobody_reads(remote)) {
        char in_vain[kInVainBytes];
        iovec iov{in_vain, n - done < sizeof in_vain ? n - done : sizeof in_vain};
        k = offset != nullptr ? kernel::preadv(from, &iov, 1, *offset) : kernel::readv(from, &iov, 1);
        if (k > 0 && offset != nullptr) *offset += k;
        if (k >= 0) return ssize_t(done) + sent_in_vain(size_t(k));
        return done > 0 ? ssize_t(done) : -errno;
      }
      size_t space = make_space(n - done);
      full = space == 0;
      if (!full) {
        ByteProducer out = producer();
        size_t want = n - done < 4 * kPieceBytes ? n - done : 4 * kPieceBytes;
        Pieces<std::byte> p = out.reserve(want);
        iovec iov[2] = {{p.first, p.first_bytes}, {p.second, p.second_bytes}};
        k = offset != nullptr ? kernel::preadv(from, iov, 2, *offset) : kernel::readv(from, iov, 2);
        if (k > 0) {
          out.publish(size_t(k));
          after_publish();
        }
      }
    }
    int failed = k < 0 ? errno : 0;
    look_behind();
    if (k < 0) return done > 0 ? ssize_t(done) : -failed;
    if (k == 0 && !full) return ssize_t(done);  // the end of the file
    done += size_t(k);
    if (offset != nullptr) *offset += k;
    if (!full) continue;
    if (nonblocking) {
      Looking looking;
      if (state != TcpState::kConnected) return done > 0 ? ssize_t(done) : kNowTheKernels;
      mine->wants.fetch_or(kWantsSpaceEvent, std::memory_order_relaxed);  // as in send()
      sleep_wake_fence();
      if (writable()) continue;
      return done > 0 ? ssize_t(done) : -EAGAIN;
    }
    int e = wait_for_space(deadline, unrestarted);
    if (e != 0) return done > 0 ? ssize_t(done) : e;
  }
  return ssize_t(done);
}

// ---- ending -------------------------------------------------------------------------------

int TcpSocket::shut_down(int how) {
  if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
  if (state != TcpState::kConnected || (has_ended() && !is_unix())) return -ENOTCONN;
  if (how != SHUT_WR) mine->state.fetch_or(kDeaf, std::memory_order_release);
  if (how != SHUT_RD && !shut_write()) {
    DirectionGuard guard(send_lock, *this, &Slot::send_lock);
    if (state != TcpState::kConnected) return -ENOTCONN;
    mine->state.fetch_or(kFin | kFinished, std::memory_order_release);
    after_publish();
  }
  if (is_unix() && how != SHUT_WR) {  // the peer can send no more
    sleep_wake_fence();
    wake_peer(kWantsBytes | kWantsSpace);
    pair->push_news(slot, last_push);
  }
  look_behind();
  wake_own_threads();
  Guard guard(control_lock);
  announce();
  peers.wake_sleepers();
  return 0;
}

// The peer broke the protocol.
void TcpSocket::break_off() {
  abandon(kReset);
  wake_own_threads();
  Guard guard(control_lock);
  announce();
}

// The connection ends here and now: the peer broke the protocol, or nobody wants it.
void TcpSocket::abandon(uint32_t state_bits) {
  if (theirs != nullptr && !dead) coordinator.count(kResets);
  mine->state.fetch_or(kFin | state_bits, std::memory_order_release);
  dead = true;
  if (!reset_noted.exchange(true, std::memory_order_relaxed)) error.store(ECONNRESET, std::memory_order_relaxed);  // told once
  after_publish();
  if (shared) ring_family_bells();
}

}  // namespace sluice::preload
