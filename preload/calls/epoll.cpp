// epoll(7). epoll_create is the kernel's: a set becomes ours with the first descriptor of ours.
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
    set = wrap_epoll(epfd, error);
    if (set == nullptr) return error;
    set->acquire();
  }
  int r = set->control(op, fd, f, event);
  set->release();
  return r;
}

template <class Kernel>
int wait(int epfd, epoll_event* events, int max, Deadline (*deadline)(const void*), const void* timeout,
         const sigset_t* mask, Kernel&& kernel) {
  be_ready();
  if (descriptors.peek(epfd) == nullptr) return kernel();
  FileReference f(epfd);
  EpollSet* set = set_of(f.get());
  return set == nullptr ? kernel() : finish(set->wait(events, max, deadline(timeout), mask));
}

Deadline from_ms(const void* ms) { return Deadline::in_ms(*static_cast<const int*>(ms)); }
Deadline from_timespec(const void* t) { return Deadline::in(static_cast<const timespec*>(t)); }

}  // namespace

INTERPOSE(int, epoll_ctl, (int epfd, int op, int fd, epoll_event* event)) {
  be_ready();
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
  return wait(epfd, events, max, from_ms, &timeout, nullptr,
              [&] { return libc.epoll_wait(epfd, events, max, timeout); });
}

INTERPOSE(int, epoll_pwait, (int epfd, epoll_event* events, int max, int timeout, const sigset_t* mask)) {
  return wait(epfd, events, max, from_ms, &timeout, mask,
              [&] { return libc.epoll_pwait(epfd, events, max, timeout, mask); });
}

INTERPOSE(int, epoll_pwait2, (int epfd, epoll_event* events, int max, const timespec* timeout, const sigset_t* mask)) {
  return wait(epfd, events, max, from_timespec, timeout, mask,
              [&] { return libc.epoll_pwait2(epfd, events, max, timeout, mask); });
}

}  // namespace sluice::preload
