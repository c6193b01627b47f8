// epoll(7).
#include "preload/code_watch.h"
#include "preload/coordinator_link.h"
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

EpollSet* set_of(File* f) {
  return f != nullptr && f->kind() == FileKind::kEpollSet ? static_cast<EpollSet*>(f) : nullptr;
}

int control_ours(int epfd, int op, int fd, File& f, epoll_event* event) {
  FileReference reference(epfd);
  EpollSet* set = set_of(reference.get());
  if (set == nullptr && reference.get() != nullptr) return -EINVAL;  // a socket is not an epoll set
  if (set != nullptr) return set->control(op, fd, f, event);
  if (op != EPOLL_CTL_ADD) return libc.epoll_ctl(epfd, op, fd, event) == 0 ? 0 : -errno;
  {
    Guard guard(control_lock);
    int error;
    // Inherited over exec: how much is registered already is unknown.
    set = wrap_epoll(epfd, 1, error);
    if (set == nullptr) return error;
    set->acquire();
  }
  int r = set->control(op, fd, f, event);
  set->release();
  return r;
}

// For a set that has something of ours, or that a waker has woken. kNowTheKernels: it is none.
[[gnu::noinline]] int wait_ours(int epfd, epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask) {
  cancellation_point();
  int n;
  {
    Entrance entrance;
    FileReference f(epfd);
    EpollSet* set = set_of(f.get());
    if (set == nullptr) return kNowTheKernels;
    n = set->wait(events, max, deadline, mask);
  }
  if (n == -EINTR) cancellation_point();
  return finish(n);
}

template <class ToDeadline, class Kernel>
[[gnu::always_inline]] inline int wait(int epfd, epoll_event* events, int max, ToDeadline&& deadline,
                                       const sigset_t* mask, Kernel&& kernel) {
  // No reference yet: if the set is closed meanwhile, its memory is still a set's.
  EpollSet* plain = set_of(descriptors.peek(epfd));
  if (plain == nullptr) [[unlikely]] return be_ready(), kernel();
  if (plain->is_kernels()) {
    int n = kernel();
    if (n <= 0) return n;
    Entrance entrance;
    if (int kept = plain->drop_wakers(events, n); kept != 0) return kept;
    // Something of ours was added meanwhile, and woke this thread.
  }
  int n = wait_ours(epfd, events, max, deadline(), mask);
  return n == kNowTheKernels ? kernel() : n;
}

}  // namespace

INTERPOSE(int, epoll_create1, (int flags)) {
  be_ready();
  Entrance entrance;
  look_at_libraries();
  int epfd = libc.epoll_create1(flags);
  if (epfd < 0 || !coordinator.enabled()) return epfd;
  Guard guard(control_lock);
  int error;
  (void)wrap_epoll(epfd, 0, error);  // without it the set stays the kernel's until something of ours comes
  return epfd;
}

INTERPOSE(int, epoll_create, (int size)) {
  be_ready();
  return size <= 0 ? libc.epoll_create(size) : epoll_create1(0);
}

INTERPOSE(int, epoll_ctl, (int epfd, int op, int fd, epoll_event* event)) {
  be_ready();
  Entrance entrance;
  if (pipe_at(fd) != nullptr) (void)settle_polled(fd);
  if (pair_at(fd) != nullptr && op != EPOLL_CTL_DEL) note_pair_polled(fd, true);
  FileReference f(fd);
  if (f.get() != nullptr) return finish(control_ours(epfd, op, fd, *f.get(), event));
  int r = libc.epoll_ctl(epfd, op, fd, event);
  if (r == 0 && descriptors.peek(epfd) != nullptr) {
    FileReference reference(epfd);
    if (EpollSet* set = set_of(reference.get())) set->note_kernel(op);
  }
  return r;
}

INTERPOSE(int, epoll_wait, (int epfd, epoll_event* events, int max, int timeout)) {
  return wait(epfd, events, max, [=] { return Deadline::in_ms(timeout); }, nullptr,
              [=] { return libc.epoll_wait(epfd, events, max, timeout); });
}

INTERPOSE(int, epoll_pwait, (int epfd, epoll_event* events, int max, int timeout, const sigset_t* mask)) {
  return wait(epfd, events, max, [=] { return Deadline::in_ms(timeout); }, mask,
              [=] { return libc.epoll_pwait(epfd, events, max, timeout, mask); });
}

INTERPOSE(int, epoll_pwait2, (int epfd, epoll_event* events, int max, const timespec* timeout, const sigset_t* mask)) {
  if (timeout != nullptr && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000))
    return finish(-EINVAL);
  return wait(epfd, events, max, [=] { return Deadline::in(timeout); }, mask,
              [=] { return libc.epoll_pwait2(epfd, events, max, timeout, mask); });
}

}  // namespace sluice::preload
