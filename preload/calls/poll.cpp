// poll(2), select(2): descriptors of ours from shared memory, the others from the kernel, one wait.
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "preload/dispatch.h"
#include "preload/kernel.h"
#include "preload/peers.h"
#include "preload/signals.h"
#include "preload/user_memory.h"
#include "preload/waiting.h"

namespace sluice::preload {

namespace {

// poll's bits and epoll's are the same numbers.
static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR && POLLHUP == EPOLLHUP &&
              POLLRDHUP == EPOLLRDHUP && POLLRDNORM == EPOLLRDNORM && POLLWRNORM == EPOLLWRNORM);

constexpr int kKernelSpins = 48;

// Whether the shim has anything at all that could be polled.
bool has_something() { return descriptors.high_water() != 0 || any_pipes || any_pairs; }

// Whether there is something of ours to look at in it. What cannot be read is for the kernel to refuse.
bool is_readable(const pollfd* fds, nfds_t count) { return has_something() && probe_user(fds, count) == 0; }

bool any_ours(const pollfd* fds, nfds_t count) {
  for (nfds_t i = 0; i < count; ++i)
    if (fds[i].fd >= 0 && descriptors.peek(fds[i].fd) != nullptr) return true;
  return false;
}

// One call of poll: the program's array, and beside it what the kernel is asked.
class PollCall {
 public:
  PollCall(pollfd* fds, nfds_t count) : fds_(fds), count_(count) {
    if (count + 1 > kInline) kernel_ = static_cast<pollfd*>(malloc((count + 1) * sizeof *kernel_));
  }
  ~PollCall() {
    if (kernel_ != inline_) free(kernel_);
  }

  int run(const Deadline& deadline, const sigset_t* mask) {
    if (kernel_ == nullptr) return -ENOMEM;
    if (rlimit limit; count_ > kInline && getrlimit(RLIMIT_NOFILE, &limit) == 0 && count_ > limit.rlim_cur) return -EINVAL;
    uint32_t seen = signal_counts.any;
    for (;;) {
      prepare();
      int n = look();
      if (n != 0 || deadline.passed()) return n;
      if (mask == nullptr && is_for_input()) {
        int r = 0;
        if (wait_for_input(deadline, seen, r)) {
          if (r == -EINTR) return r;
          continue;
        }
      }
      if (spin()) continue;
      peers.begin_sleep(accepting_);
      shm::sleep_wake_fence();
      Deadline until = deadline;
      long r = ours_ready(until) ? 0 : sleep_in_poll(kernel_, count_, until, mask, seen);
      peers.end_sleep(accepting_);
      if (r < 0) return int(r);
    }
  }

 private:
  // The kernel looks at what is its own, and at a listener or epoll set too.
  void prepare() {
    Guard guard(control_lock);
    has_kernel_ = false;
    accepting_ = 0;
    for (nfds_t i = 0; i < count_; ++i) {
      kernel_[i] = {fds_[i].fd, fds_[i].events, 0};
      File* f = fds_[i].fd >= 0 ? descriptors.peek(fds_[i].fd) : nullptr;
      if (f == nullptr) {
        has_kernel_ |= fds_[i].fd >= 0;
        continue;
      }
      if (f->kind() == FileKind::kEpollSet) {
        static_cast<EpollSet*>(f)->be_watched();
        accept_at(static_cast<EpollSet*>(f)->accepting());
      } else if (auto* s = static_cast<TcpSocket*>(f); s->state == TcpState::kListening) {
        s->note_interest(fds_[i].fd);
        if ((fds_[i].events & (POLLIN | POLLRDNORM)) != 0) accept_at(s->listener_id);
      } else {
        kernel_[i].fd = -1;
        continue;
      }
      has_kernel_ = true;
    }
  }
  // One connection of ours that is to have something to read: how most threads with a connection each wait.
  bool is_for_input() const {
    constexpr short kInput = POLLIN | POLLRDNORM;
    constexpr short kOthers = POLLPRI | POLLRDBAND | POLLRDHUP | POLLERR | POLLHUP | POLLNVAL;
    if (count_ != 1 || fds_->fd < 0 || kernel_[0].fd >= 0) return false;
    return (fds_->events & kInput) != 0 && (fds_->events & ~(kInput | kOthers)) == 0;
  }
  // False: it is no such connection.
  bool wait_for_input(const Deadline& deadline, uint32_t seen, int& result) {
    FileReference f(fds_->fd);
    if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return false;
    auto& s = static_cast<TcpSocket&>(*f.get());
    if (s.state != TcpState::kConnected) return false;
    result = s.wait_for_input(deadline, seen);
    return true;
  }
  void accept_at(uint32_t listener) {
    if (listener != 0) accepting_ = accepting_ == 0 || accepting_ == listener ? listener : shm::kEveryListener;
  }
  // Under control_lock.
  short events_at(nfds_t i) {
    File* f = fds_[i].fd >= 0 ? descriptors.peek(fds_[i].fd) : nullptr;
    if (f == nullptr) return 0;
    uint32_t events = f->kind() == FileKind::kTcpSocket ? static_cast<TcpSocket*>(f)->poll_events()
                      : static_cast<EpollSet*>(f)->has_ready() ? uint32_t{EPOLLIN | EPOLLRDNORM} : 0;
    return short(events & (uint32_t(uint16_t(fds_[i].events)) | POLLERR | POLLHUP));
  }
  // If not, `until` becomes the time at which to look again.
  bool ours_ready(Deadline& until) {
    Guard guard(control_lock);
    peers.drain();
    for (nfds_t i = 0; i < count_; ++i)
      if (events_at(i) != 0 || (fds_[i].fd >= 0 && kernel_[i].fd < 0 && descriptors.peek(fds_[i].fd) == nullptr)) return true;
    until = until.or_earlier(waiting.look(accepting_));
    return false;
  }
  int look() {
    if (has_kernel_) {
      int r = kernel::poll_now(kernel_, count_);
      if (r < 0) return -errno;
    }
    Guard guard(control_lock);
    peers.drain();
    int n = 0;
    for (nfds_t i = 0; i < count_; ++i) {
      fds_[i].revents = short((has_kernel_ && kernel_[i].fd >= 0 ? kernel_[i].revents : 0) | events_at(i));
      n += fds_[i].revents != 0;
    }
    return n;
  }
  bool spin() {
    if (!peers.worth_spinning()) return false;
    int looks = 0;
    uint32_t at = accepting_;
    peers.begin_look(at);
    auto ready = [&] {
      if (peers.has_news()) return true;
      return has_kernel_ && ++looks % kKernelSpins == 0 && kernel::poll_now(kernel_, count_) > 0;
    };
    bool found = Spinner::until_or_let_run(ready, peers.a_remote_cpu(), Spinner::never_much);
    peers.end_look(at);
    return found;
  }

  static constexpr nfds_t kInline = 33;
  pollfd* fds_;
  nfds_t count_;
  bool has_kernel_ = false;
  uint32_t accepting_ = 0;  // the listener that is asked for; see Peers::begin_sleep
  pollfd inline_[kInline];
  pollfd* kernel_ = inline_;
};

int poll_files(pollfd* fds, nfds_t count, const Deadline& deadline, const sigset_t* mask) {
  cancellation_point();
  if (is_guarded(fds, count * sizeof *fds)) return finish(-EFAULT);
  Entrance entrance;
  int n = PollCall(fds, count).run(deadline, mask);
  if (n == -EINTR) cancellation_point();
  return finish(n);
}

// ---- select ---------------------------------------------------------------------------------

constexpr short kReadBits = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
constexpr short kWriteBits = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;

bool has(const fd_set* s, int fd) {
  return s != nullptr && (reinterpret_cast<const unsigned char*>(s)[fd / 8] >> (fd % 8) & 1) != 0;
}
void put(fd_set* s, int fd) { reinterpret_cast<unsigned char*>(s)[fd / 8] |= uint8_t(1u << (fd % 8)); }
size_t bytes_of_set(int count) { return size_t((count + 63) / 64 * 8); }
void clear(fd_set* s, int count) {
  if (s != nullptr) memset(s, 0, bytes_of_set(count));
}

bool is_readable(int count, const fd_set* r, const fd_set* w, const fd_set* e) {
  if (count <= 0 || !has_something()) return false;
  for (const fd_set* s : {r, w, e})
    if (s != nullptr && probe_user(reinterpret_cast<const char*>(s), size_t(count + 7) / 8) != 0) return false;
  return true;
}

bool any_ours(int count, const fd_set* r, const fd_set* w, const fd_set* e) {
  for (int fd = 0; fd < count && fd < int(descriptors.high_water()); ++fd)
    if (descriptors.peek(fd) != nullptr && (has(r, fd) || has(w, fd) || has(e, fd))) return true;
  return false;
}

int select_files(int count, fd_set* r, fd_set* w, fd_set* e, const Deadline& deadline, const sigset_t* mask) {
  cancellation_point();
  for (fd_set* s : {r, w, e})
    if (s != nullptr && is_guarded(s, bytes_of_set(count))) return -EFAULT;
  Entrance entrance;
  pollfd few[FD_SETSIZE];  // select is for signal handlers too, where memory is not to be had
  auto* fds = count <= FD_SETSIZE ? few : static_cast<pollfd*>(malloc(size_t(count) * sizeof(pollfd)));
  if (fds == nullptr) return -ENOMEM;
  nfds_t n = 0;
  for (int fd = 0; fd < count; ++fd) {
    short events = short((has(r, fd) ? POLLIN | POLLRDNORM : 0) | (has(w, fd) ? POLLOUT | POLLWRNORM : 0) |
                         (has(e, fd) ? POLLPRI : 0));
    if (events != 0) fds[n++] = {fd, events, 0};
  }
  int result = PollCall(fds, n).run(deadline, mask);
  if (result >= 0) {
    clear(r, count);
    clear(w, count);
    clear(e, count);
    result = 0;
  }
  for (nfds_t i = 0; i < n && result >= 0; ++i) {
    const pollfd& p = fds[i];
    if ((p.revents & POLLNVAL) != 0) {
      result = -EBADF;
      break;
    }
    auto report = [&](fd_set* s, short asked, short bits) {
      if ((p.events & asked) == 0 || (p.revents & bits) == 0) return;
      put(s, p.fd);
      ++result;
    };
    report(r, POLLIN, kReadBits);
    report(w, POLLOUT, kWriteBits);
    report(e, POLLPRI, POLLPRI);
  }
  if (fds != few) free(fds);
  return result;
}

// Pipes are polled in the kernel.
bool settle_pipes(const pollfd* fds, nfds_t count) {
  Entrance entrance;
  bool all = true;
  for (nfds_t i = 0; i < count; ++i)
    if (pipe_at(fds[i].fd) != nullptr && (fds[i].events & (POLLIN | POLLRDNORM)) != 0) all &= settle_polled(fds[i].fd);
  return all;
}
void note_pairs(const pollfd* fds, nfds_t count) {
  Entrance entrance;
  for (nfds_t i = 0; i < count; ++i)
    if (pair_at(fds[i].fd) != nullptr && (fds[i].events & (POLLIN | POLLRDNORM)) != 0) note_pair_polled(fds[i].fd, false);
}
void note_pairs(int count, const fd_set* r) {
  Entrance entrance;
  for (int fd = 0; fd < count && fd < int(pair_ends.high_water()); ++fd)
    if (has(r, fd) && pair_at(fd) != nullptr) note_pair_polled(fd, false);
}
// Some have bytes that could not be moved into the kernel's pipe: these are readable now.
int poll_unsettled(pollfd* fds, nfds_t count) {
  Entrance entrance;
  int n = poll_files(fds, count, Deadline::in_ms(0), nullptr);
  if (n < 0) return n;
  for (nfds_t i = 0; i < count; ++i) {
    PipeReference p(fds[i].fd);
    if (p.get() == nullptr || p.get()->writes || p.get()->in_ring() == 0) continue;
    n += fds[i].revents == 0 && (fds[i].events & (POLLIN | POLLRDNORM)) != 0;
    fds[i].revents |= short(fds[i].events & (POLLIN | POLLRDNORM));
  }
  return n;
}
void settle_pipes(int count, const fd_set* r) {
  Entrance entrance;
  for (int fd = 0; fd < count && fd < int(pipe_ends.high_water()); ++fd)
    if (has(r, fd) && pipe_at(fd) != nullptr) (void)settle_polled(fd);
}

}  // namespace

INTERPOSE(int, poll, (pollfd* fds, nfds_t count, int timeout)) {
  be_ready();
  if (!is_readable(fds, count)) return libc.poll(fds, count, timeout);
  if (any_pairs) note_pairs(fds, count);
  if (any_pipes && !settle_pipes(fds, count)) return poll_unsettled(fds, count);
  if (!any_ours(fds, count)) return libc.poll(fds, count, timeout);
  return poll_files(fds, count, Deadline::in_ms(timeout), nullptr);
}

INTERPOSE(int, ppoll, (pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask)) {
  be_ready();
  if (!is_readable(fds, count)) return libc.ppoll(fds, count, timeout, mask);
  if (any_pairs) note_pairs(fds, count);
  if (any_pipes && !settle_pipes(fds, count)) return poll_unsettled(fds, count);
  if (!any_ours(fds, count)) return libc.ppoll(fds, count, timeout, mask);
  return poll_files(fds, count, Deadline::in(timeout), mask);
}

INTERPOSE(int, select, (int count, fd_set* r, fd_set* w, fd_set* e, timeval* timeout)) {
  be_ready();
  if (!is_readable(count, r, w, e)) return libc.select(count, r, w, e, timeout);
  if (any_pairs) note_pairs(count, r);
  if (any_pipes) settle_pipes(count, r);
  if (!any_ours(count, r, w, e)) return libc.select(count, r, w, e, timeout);
  timespec t{};
  if (timeout != nullptr) {
    if (timeout->tv_sec < 0 || timeout->tv_usec < 0) return finish(-EINVAL);
    t = {timeout->tv_sec, timeout->tv_usec * 1000};
  }
  Deadline deadline = Deadline::in(timeout != nullptr ? &t : nullptr);
  int n = select_files(count, r, w, e, deadline, nullptr);
  if (n == -EINTR) cancellation_point();
  if (timeout != nullptr && !deadline.is_never()) {
    timespec left = deadline.left();
    *timeout = {left.tv_sec, left.tv_nsec / 1000};  // as Linux does
  }
  return finish(n);
}

INTERPOSE(int, pselect, (int count, fd_set* r, fd_set* w, fd_set* e, const timespec* timeout, const sigset_t* mask)) {
  be_ready();
  if (!is_readable(count, r, w, e)) return libc.pselect(count, r, w, e, timeout, mask);
  if (any_pairs) note_pairs(count, r);
  if (any_pipes) settle_pipes(count, r);
  if (!any_ours(count, r, w, e)) return libc.pselect(count, r, w, e, timeout, mask);
  int n = select_files(count, r, w, e, Deadline::in(timeout), mask);
  if (n == -EINTR) cancellation_point();
  return finish(n);
}

}  // namespace sluice::preload
