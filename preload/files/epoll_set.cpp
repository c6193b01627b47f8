#include "preload/files/epoll_set.h"

#include <errno.h>
#include <sys/syscall.h>

#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/pipes.h"
#include "preload/socket_pairs.h"
#include "preload/pool.h"
#include "preload/signals.h"
#include "preload/user_memory.h"
#include "preload/waiting.h"
#include "shm/wake.h"

namespace sluice::preload {

constinit std::atomic<uint32_t> forks{0};

namespace {

constinit Pool<Interest> interest_pool;
constinit Pool<EpollSet> set_pool;

// While connections of ours keep a set busy, its kernel descriptors are looked at this often.
constexpr uint32_t kKernelEvery = 8;
constexpr int kKernelSpins = 48;

uint32_t events_of(File& f) {
  return f.kind() == FileKind::kTcpSocket ? static_cast<TcpSocket&>(f).poll_events()
                                          : static_cast<EpollSet&>(f).has_ready() ? uint32_t{EPOLLIN | EPOLLRDNORM} : 0;
}

bool both_worlds(const File& f) {
  return f.kind() == FileKind::kEpollSet || static_cast<const TcpSocket&>(f).state == TcpState::kListening;
}

}  // namespace

// ---- File: what epoll has to do with it ----------------------------------------------------

void File::announce() {
  for (Interest* i = interests_; i != nullptr; i = i->next_of_file) i->set->queue(*i);
}

void File::hand_interests_to(File& other) {
  for (Interest* i = interests_; i != nullptr; i = i->next_of_file) i->file = &other;
  other.interests_ = interests_;
  interests_ = nullptr;
}

void File::vanish() {
  while (interests_ != nullptr) interests_->set->forget(*interests_);
  if (kind_ == FileKind::kPipeEnd) return give_up_pipe_end(static_cast<PipeEnd&>(*this));
  if (kind_ == FileKind::kPairEnd) return give_up_pair_end(static_cast<PairEnd&>(*this));
  if (kind_ == FileKind::kTcpSocket) {
    static_cast<TcpSocket&>(*this).let_go();
  } else {
    EpollSet& set = static_cast<EpollSet&>(*this);
    set.forget_all();
    close_own(set.kernel_fd());
    set_pool.destroy(&set);
  }
}

// ---- the interest list ----------------------------------------------------------------------

EpollSet* wrap_epoll(int epfd, int registered, int& error) {
  // The kernel knows whether it is one: an absent registration is ENOENT.
  error = -ENOMEM;
  if (bell().hear < 0) return nullptr;
  error = libc.epoll_ctl(epfd, EPOLL_CTL_DEL, bell().hear, nullptr) == 0 ? 0 : -errno;
  if (error != -ENOENT) return nullptr;
  int own = move_high(libc.fcntl(epfd, F_DUPFD_CLOEXEC, 0));
  error = -ENOMEM;
  EpollSet* set = own >= 0 ? set_pool.create(own, registered) : nullptr;
  if (set != nullptr && descriptors.set(epfd, set)) return set;
  if (set != nullptr) set_pool.destroy(set);
  close_own(own);
  return nullptr;
}

Interest* EpollSet::find(const File& f, int fd) const {
  for (Interest* i = f.interests_; i != nullptr; i = i->next_of_file)
    if (i->set == this && i->fd == fd) return i;
  return nullptr;
}

int EpollSet::control(int op, int fd, File& f, const epoll_event* event) {
  if (&f == this) return -EINVAL;
  epoll_event copied{};  // before the lock: a bad pointer ends here
  if (op != EPOLL_CTL_DEL && event != nullptr) {
    if (int error = get_user(copied, event); error != 0) return error;
    event = &copied;
  }
  Guard guard(control_lock);
  Interest* i = find(f, fd);
  if (op == EPOLL_CTL_ADD && i != nullptr) return -EEXIST;
  if (op != EPOLL_CTL_ADD && i == nullptr) return op == EPOLL_CTL_MOD || op == EPOLL_CTL_DEL ? -ENOENT : -EINVAL;
  if (op != EPOLL_CTL_DEL && event == nullptr) return -EFAULT;
  bool exclusive = op != EPOLL_CTL_DEL && (event->events & EPOLLEXCLUSIVE) != 0;
  if (op == EPOLL_CTL_MOD && (exclusive || (i->wanted.events & EPOLLEXCLUSIVE) != 0)) return -EINVAL;
  if (exclusive && (event->events & ~uint32_t(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET |
                                              EPOLLEXCLUSIVE)) != 0)
    return -EINVAL;
  if (op == EPOLL_CTL_ADD && (i = interest_pool.create()) == nullptr) return -ENOMEM;
  if (both_worlds(f)) {
    if (f.kind() == FileKind::kEpollSet) static_cast<EpollSet&>(f).be_watched();
    epoll_event copy = event != nullptr ? *event : epoll_event{};
    if (libc.epoll_ctl(kernel_fd_, op, fd, &copy) != 0) {
      int error = -errno;
      if (op == EPOLL_CTL_ADD) interest_pool.destroy(i);
      return error;
    }
    note_kernel(op);
  }
  if (op == EPOLL_CTL_DEL) {
    forget(*i);
    return 0;
  }
  if (op == EPOLL_CTL_ADD) {
    i->file = &f;
    i->set = this;
    i->fd = fd;
    i->in_kernel = both_worlds(f);
    i->next_of_file = f.interests_;
    f.interests_ = i;
    i->next_of_set = interests_;
    interests_ = i;
    bool first = interest_count_.fetch_add(1, std::memory_order_release) == 0;
    if (int error = first ? admit_wakers() : 0; error != 0) {  // a wait that has begun would not hear of it
      if (i->in_kernel && libc.epoll_ctl(kernel_fd_, EPOLL_CTL_DEL, fd, nullptr) == 0) note_kernel(EPOLL_CTL_DEL);
      forget(*i);
      return error;
    }
    if (f.kind() == FileKind::kTcpSocket && both_worlds(f)) static_cast<TcpSocket&>(f).note_interest(fd);
  }
  change(*i, *event);
  return 0;
}

void EpollSet::change(Interest& i, const epoll_event& wanted) {
  i.wanted = wanted;
  i.disabled = false;
  if (both_worlds(*i.file)) ++listener_changes;
  if ((events_of(*i.file) & (wanted.events | EPOLLERR | EPOLLHUP)) == 0) return;
  queue(i);
  peers.wake_sleepers();  // another thread may be waiting on this set
}

void EpollSet::queue(Interest& i) {
  if (i.disabled) return;
  if (!i.queued) {
    i.queued = true;
    i.next_ready = nullptr;
    (ready_last_ != nullptr ? ready_last_->next_ready : ready_first_) = &i;
    ready_last_ = &i;
    ready_count_.fetch_add(1, std::memory_order_release);
  }
  announce();  // sets that hold this one; they may have looked at it and found nothing
}

void EpollSet::forget(Interest& i) {
  if (i.in_kernel) ++listener_changes;
  for (Interest** p = &i.file->interests_; *p != nullptr; p = &(*p)->next_of_file) {
    if (*p != &i) continue;
    *p = i.next_of_file;
    break;
  }
  for (Interest** p = &interests_; *p != nullptr; p = &(*p)->next_of_set) {
    if (*p != &i) continue;
    *p = i.next_of_set;
    break;
  }
  if (i.queued) {
    Interest* before = nullptr;
    for (Interest* r = ready_first_; r != &i; r = r->next_ready) before = r;
    (before != nullptr ? before->next_ready : ready_first_) = i.next_ready;
    if (ready_last_ == &i) ready_last_ = before;
    ready_count_.fetch_sub(1, std::memory_order_release);
  }
  interest_count_.fetch_sub(1, std::memory_order_release);
  interest_pool.destroy(&i);
}

// From the first interest on, waits must end when peers have news: also those that began before.
int EpollSet::admit_wakers() {
  if (watched_) return 0;
  if (int error = add_wakers(kernel_fd_, wakers_epoch_); error != 0) return error;
  if (!__libc_single_threaded) ring_own_bell();
  return 0;
}

void EpollSet::forget_all() {
  while (interests_ != nullptr) forget(*interests_);
}

bool EpollSet::has_ready() {
  for (Interest* i = ready_first_; i != nullptr; i = i->next_ready)
    if ((events_of(*i->file) & (i->wanted.events | EPOLLERR | EPOLLHUP)) != 0) return true;
  return false;
}

void EpollSet::adopt_kernel(const Interest& i) {
  epoll_event e = i.wanted;
  if (i.disabled) e.events = 0;
  if (libc.epoll_ctl(kernel_fd_, EPOLL_CTL_ADD, i.fd, &e) == 0) note_kernel(EPOLL_CTL_ADD);
  peers.wake_sleepers();
}

void move_interests_to_kernel(File& f, int fd) {
  for (Interest* i = f.interests(); i != nullptr;) {
    Interest* next = i->next_of_file;
    if (i->fd == fd) {
      i->set->adopt_kernel(*i);
      i->set->forget(*i);
    }
    i = next;
  }
}

void move_interests_to_both(File& f, int fd) {
  for (Interest* i = f.interests(); i != nullptr; i = i->next_of_file) {
    if (i->fd != fd || i->in_kernel) continue;
    i->set->adopt_kernel(*i);
    i->in_kernel = true;
  }
}

// A forked child that waits on a set with listeners accepts on them: registering was its parent's.
void EpollSet::renew_interest() {
  Guard guard(control_lock);
  forks_seen_ = forks.load(std::memory_order_relaxed);  // changes only in fork
  for (Interest* i = interests_; i != nullptr; i = i->next_of_set)
    if (i->file->kind() == FileKind::kTcpSocket && both_worlds(*i->file)) static_cast<TcpSocket*>(i->file)->note_interest(i->fd);
}

void EpollSet::be_watched() {
  if (watched_) return;
  watched_ = true;
  // Bells in the kernel's part would make it look ready to whoever polls it.
  if (wakers_epoch_ != 0) remove_wakers(kernel_fd_);
  wakers_epoch_ = 0;
}

uint32_t EpollSet::accepting() {
  if (listener_changes_seen_ == listener_changes) return accepting_;
  listener_changes_seen_ = listener_changes;
  accepting_ = 0;
  for (Interest* i = interests_; i != nullptr; i = i->next_of_set) {
    if (i->disabled || (i->wanted.events & EPOLLIN) == 0 || !both_worlds(*i->file)) continue;
    uint32_t at = i->file->kind() == FileKind::kTcpSocket ? static_cast<TcpSocket*>(i->file)->listener_id
                                                          : static_cast<EpollSet*>(i->file)->accepting();
    if (at != 0) accepting_ = accepting_ == 0 || accepting_ == at ? at : shm::kEveryListener;
  }
  return accepting_;
}

// ---- waiting --------------------------------------------------------------------------------

// Reports what is ready of ours, in the order in which it became so.
int EpollSet::collect(epoll_event* events, int max) {
  Guard guard(control_lock);
  peers.drain();
  uint32_t at = accepting();
  if (const TcpSocket* l = at != 0 ? find_listener(at) : nullptr; l != nullptr && l->only_holder && !l->reuses_port) at = 0;  // there is nobody to choose among
  looks_at_.store(at, std::memory_order_relaxed);  // a hint
  int n = 0;
  for (uint32_t left = ready_count_.load(std::memory_order_relaxed); left > 0 && n < max; --left) {  // under the lock
    Interest& i = *ready_first_;
    ready_first_ = i.next_ready;
    if (ready_first_ == nullptr) ready_last_ = nullptr;
    i.queued = false;
    ready_count_.fetch_sub(1, std::memory_order_relaxed);  // likewise
    uint32_t now = events_of(*i.file) & (i.wanted.events | EPOLLERR | EPOLLHUP);
    if (now == 0) continue;
    events[n].events = now;
    events[n].data = i.wanted.data;
    ++n;
    if ((now & EPOLLIN) != 0 && i.file->kind() == FileKind::kTcpSocket) static_cast<TcpSocket*>(i.file)->prefetch_input();
    if ((i.wanted.events & EPOLLONESHOT) != 0) {
      i.disabled = true;
      if (i.in_kernel) ++listener_changes;
    }
    else if ((i.wanted.events & EPOLLET) == 0) queue(i);
  }
  return n;
}

int EpollSet::drop_wakers(epoll_event* events, int n) const {
  if (n <= 0) return n;
  int kept = 0;
  for (int i = 0; i < n; ++i)
    if (!is_waker(events[i])) events[kept++] = events[i];
  return kept;
}

int EpollSet::kernel_events(epoll_event* events, int max) {
  int n = kernel::epoll_wait_now(kernel_fd_, events, max);
  if (n < 0) return errno == EINTR ? 0 : -errno;
  return drop_wakers(events, n);
}

// The first `kernels` of `n` events came from the kernel. A listener with connections of both
// kinds is reported once.
int EpollSet::merge(epoll_event* events, int kernels, int n) const {
  int kept = kernels;
  for (int i = kernels; i < n; ++i) {
    int twin = 0;
    while (twin < kernels && (events[twin].data.u64 != events[i].data.u64 || events[twin].events != events[i].events)) ++twin;
    if (twin == kernels) events[kept++] = events[i];
  }
  return kept;
}

int EpollSet::kernel_wait(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask, uint32_t seen) {
  timespec left = deadline.is_never() ? timespec{} : deadline.left();
  long n = interruptible_syscall(seen, SYS_epoll_pwait2, kernel_fd_, long(events), max,
                                 deadline.is_never() ? 0 : long(&left), long(mask));
  return n > 0 ? drop_wakers(events, int(n)) : int(n);
}

int EpollSet::wait(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask) {
  if (max <= 0) return -EINVAL;
  // Before a lock, and before an event counts as told: as a copy onto itself, for want of another's memory.
  if (int error = copy_to_user(events, events, sizeof *events); error != 0) return error;
  constexpr int kProbed = 1024;  // `max` may say more than there is room for
  if (is_guarded(events, size_t(max < kProbed ? max : kProbed) * sizeof *events)) return -EFAULT;
  if (forks_seen_ != forks.load(std::memory_order_relaxed)) renew_interest();  // changes only in fork
  uint32_t seen = signal_counts.any;
  for (;;) {
    if (is_kernels()) {
      int n = kernel_wait(events, max, deadline, mask, seen);
      if (n != 0 || deadline.passed()) return n;
      continue;
    }
    bool kernel_too = kernel_count_.load(std::memory_order_relaxed) > 0;  // a hint
    int k = 0;
    if (kernel_too && ++rounds_ % (full_ ? 2 : kKernelEvery) == 0) {  // neither kind starves the other
      k = kernel_events(events, (max + 1) / 2);
      if (k < 0) return k;
    }
    int n = k + collect(events + k, max - k);
    full_ = n == max;
    if (n > 0) {
      // A thread that sleeps on this very set was not woken if we were: there is more for it.
      if (waiters_.load(std::memory_order_acquire) > 0 && ready_count_.load(std::memory_order_acquire) > 0) ring_own_bell();
      return merge(events, k, n);
    }
    bool again = false;
    int found = 0;
    if (!deadline.passed()) {
      uint32_t at = looks_at_.load(std::memory_order_relaxed);  // a hint
      peers.begin_look(at);
      int looks = 0;
      auto ready = [&] {
        if (ready_count_.load(std::memory_order_acquire) != 0 || peers.has_news()) return true;
        if (!kernel_too || ++looks % kKernelSpins != 0) return false;
        found = kernel_events(events, max);
        return found != 0;
      };
      again = peers.worth_spinning() && Spinner::until_or_let_run(ready, peers.a_remote_cpu(), Spinner::never_much);
      peers.end_look(at);
      if (found > 0) return found;
      if (again) continue;
    }
    n = sleep(events, max, deadline, mask, seen);
    if (n != 0) return n;
    if (deadline.passed()) return collect(events, max);
  }
}

// Number of kernel events, 0 to look again, or -errno.
int EpollSet::sleep(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask, uint32_t seen) {
  long n = 0;
  if (deadline.passed()) return kernel_count_.load(std::memory_order_relaxed) > 0 ? kernel_events(events, max) : 0;  // a hint
  uint32_t at;
  {
    Guard guard(control_lock);
    at = accepting();
  }
  peers.begin_sleep(at);
  shm::sleep_wake_fence();
  Deadline until = deadline;
  {
    Guard guard(control_lock);
    peers.drain();
    if (ready_count_.load(std::memory_order_relaxed) == 0) until = deadline.or_earlier(waiting.look(at));  // under the lock
  }
  bool news = ready_count_.load(std::memory_order_acquire) != 0 || peers.is_unfinished();
  waiters_.fetch_add(1, std::memory_order_acq_rel);
  if (!news && watched_) {
    pollfd p[2] = {{kernel_fd_, POLLIN, 0}, {}};
    n = sleep_in_poll(p, 1, until, mask, seen);
    if (n >= 0) n = kernel_events(events, max);
  } else if (!news) {
    if (add_wakers(kernel_fd_, wakers_epoch_) != 0) until = no_bell_to_hear(until);
    n = kernel_wait(events, max, until, mask, seen);
  }
  waiters_.fetch_sub(1, std::memory_order_acq_rel);
  peers.end_sleep(at);
  return int(n);
}

}  // namespace sluice::preload
