#include "preload/signal_watch.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"

namespace sluice::preload {

namespace {

// One of this process; a forked child's has its own, as only the parent has the thread.
EpollSet* set = nullptr;
pid_t set_of = 0;

// What fcntl(2) knows of the socket, from the kernel socket behind it.
struct Wanted {
  bool async = false;
  f_owner_ex owner{};
  int signal = 0;  // F_SETSIG; 0: SIGIO without information
};

void send(const Wanted& w, int number, siginfo_t* info) {
  pid_t to = w.owner.pid;
  if (to == 0) return;
  if (w.owner.type == F_OWNER_TID) {
    libc.syscall(SYS_tkill, to, number);
  } else if (info == nullptr || to != getpid() || libc.syscall(SYS_rt_sigqueueinfo, to, number, info) != 0) {
    kill(w.owner.type == F_OWNER_PGRP ? -to : to, number);
  }
}

// send_sigio() and send_sigurg() of the kernel.
void notify(const Wanted& w, int fd, uint32_t events) {
  if ((events & EPOLLPRI) != 0) send(w, SIGURG, nullptr);
  if (!w.async) return;
  siginfo_t info{};
  info.si_signo = w.signal;
  info.si_code = SI_SIGIO;  // only the kernel may say POLL_IN; signals.cpp says it to the handler
  info.si_band = long(events);
  info.si_fd = fd;
  send(w, w.signal == 0 ? SIGIO : w.signal, w.signal == 0 ? nullptr : &info);
}

// False: it is no connection any more, or this is only the report that it can be written to. Without EPOLLPRI afterwards if
// the urgent byte has been told.
bool ask(int fd, uint32_t& events, Wanted& w) {
  Guard guard(control_lock);
  File* f = descriptors.peek(fd);
  if (f == nullptr || f->kind() != FileKind::kTcpSocket) return false;
  auto& s = static_cast<TcpSocket&>(*f);
  bool first = !s.signals_begun;
  s.signals_begun = true;
  if (first && (events & ~uint32_t{EPOLLOUT}) == 0) return false;
  if ((events & EPOLLPRI) != 0 && !s.is_news_of_urgent_byte()) events &= ~uint32_t{EPOLLPRI};
  w.async = (s.status_flags & O_ASYNC) != 0;
  w.signal = libc.fcntl(fd, F_GETSIG);
  return libc.fcntl(fd, F_GETOWN_EX, &w.owner) == 0;
}

void* run(void*) {
  for (;;) {
    epoll_event events[16];
    int n = set->wait(events, 16, Deadline::never(), nullptr);
    for (int i = 0; i < n; ++i) {
      Wanted w;
      uint32_t what = events[i].events;
      if (int fd = events[i].data.fd; ask(fd, what, w)) notify(w, fd, what);
    }
  }
}

// Without signals: they are for the program's threads.
int start() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, run, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return -error;
}

int create() {
  static constinit Mutex creating;
  Guard once(creating);
  if (set != nullptr && set_of == getpid()) return 0;
  int epfd = move_high(libc.epoll_create1(EPOLL_CLOEXEC));
  if (epfd < 0) return -errno;
  {
    Guard guard(control_lock);
    int error;
    EpollSet* made = wrap_epoll(epfd, 0, error);
    if (made == nullptr) {
      close_own(epfd);
      return error;
    }
    set = made;
    set_of = getpid();
  }
  return start();
}

}  // namespace

int watch_for_signals(TcpSocket& s, int fd) {
  if (int error = create(); error != 0) return error;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.fd = fd;
  int r = set->control(EPOLL_CTL_ADD, fd, s, &event);
  return r == -EEXIST ? 0 : r;
}

}  // namespace sluice::preload
