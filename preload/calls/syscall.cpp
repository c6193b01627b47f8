// syscall(2): programs that make system calls by number (libuv closes so) get the same
// treatment. Everything else goes to libc with its six arguments.
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "preload/dispatch.h"
#include "preload/restrictions.h"
#include "preload/signals.h"

namespace sluice::preload {

namespace {

struct Arguments {
  long a[6];
  int fd(int i) const { return int(a[i]); }
  template <class T>
  T* pointer(int i) const { return reinterpret_cast<T*>(a[i]); }
  size_t size(int i) const { return size_t(a[i]); }
};

constexpr unsigned long kRestorer = 0x04000000;  // libc brings its own

long signal_action(int number, const KernelAction* action, KernelAction* old) {
  struct sigaction wanted {}, before {};
  if (action != nullptr) {
    wanted.sa_handler = reinterpret_cast<sighandler_t>(action->handler);
    wanted.sa_flags = int(action->flags & ~kRestorer);
    memcpy(&wanted.sa_mask, &action->mask, sizeof action->mask);
  }
  if (sigaction(number, action != nullptr ? &wanted : nullptr, &before) != 0) return -1;
  if (old != nullptr) {
    *old = {reinterpret_cast<void*>(before.sa_handler), unsigned(before.sa_flags), nullptr, 0};
    memcpy(&old->mask, &before.sa_mask, sizeof old->mask);
  }
  return 0;
}

// True if `number` is a call that the shim knows; then `result` is what it returned.
bool known(long number, const Arguments& x, long& result) {
  switch (number) {
    case SYS_read: result = read(x.fd(0), x.pointer<void>(1), x.size(2)); return true;
    case SYS_write: result = write(x.fd(0), x.pointer<void>(1), x.size(2)); return true;
    case SYS_readv: result = readv(x.fd(0), x.pointer<iovec>(1), x.fd(2)); return true;
    case SYS_writev: result = writev(x.fd(0), x.pointer<iovec>(1), x.fd(2)); return true;
    // The kernel takes the offset in two words, the upper one of which is empty on 64 bits.
    case SYS_preadv2: result = preadv2(x.fd(0), x.pointer<iovec>(1), x.fd(2), off_t(x.a[3]), x.fd(5)); return true;
    case SYS_pwritev2: result = pwritev2(x.fd(0), x.pointer<iovec>(1), x.fd(2), off_t(x.a[3]), x.fd(5)); return true;
    case SYS_close: result = close(x.fd(0)); return true;
    case SYS_pipe2: result = pipe2(x.pointer<int>(0), x.fd(1)); return true;
    case SYS_dup: result = dup(x.fd(0)); return true;
    case SYS_dup3: result = dup3(x.fd(0), x.fd(1), x.fd(2)); return true;
    case SYS_fcntl: result = fcntl(x.fd(0), x.fd(1), x.pointer<void>(2)); return true;
    case SYS_ioctl: result = ioctl(x.fd(0), x.size(1), x.pointer<void>(2)); return true;
    case SYS_close_range: result = close_range(unsigned(x.a[0]), unsigned(x.a[1]), x.fd(2)); return true;
    case SYS_socket: result = socket(x.fd(0), x.fd(1), x.fd(2)); return true;
    case SYS_bind: result = bind(x.fd(0), x.pointer<sockaddr>(1), socklen_t(x.a[2])); return true;
    case SYS_listen: result = listen(x.fd(0), x.fd(1)); return true;
    case SYS_accept4: result = accept4(x.fd(0), x.pointer<sockaddr>(1), x.pointer<socklen_t>(2), x.fd(3)); return true;
    case SYS_connect: result = connect(x.fd(0), x.pointer<sockaddr>(1), socklen_t(x.a[2])); return true;
    case SYS_shutdown: result = shutdown(x.fd(0), x.fd(1)); return true;
    case SYS_getsockname: result = getsockname(x.fd(0), x.pointer<sockaddr>(1), x.pointer<socklen_t>(2)); return true;
    case SYS_getpeername: result = getpeername(x.fd(0), x.pointer<sockaddr>(1), x.pointer<socklen_t>(2)); return true;
    case SYS_getsockopt:
      result = getsockopt(x.fd(0), x.fd(1), x.fd(2), x.pointer<void>(3), x.pointer<socklen_t>(4));
      return true;
    case SYS_setsockopt:
      result = setsockopt(x.fd(0), x.fd(1), x.fd(2), x.pointer<void>(3), socklen_t(x.a[4]));
      return true;
    case SYS_recvfrom:
      result = recvfrom(x.fd(0), x.pointer<void>(1), x.size(2), x.fd(3), x.pointer<sockaddr>(4), x.pointer<socklen_t>(5));
      return true;
    case SYS_sendto:
      result = sendto(x.fd(0), x.pointer<void>(1), x.size(2), x.fd(3), x.pointer<sockaddr>(4), socklen_t(x.a[5]));
      return true;
    case SYS_recvmsg: result = recvmsg(x.fd(0), x.pointer<msghdr>(1), x.fd(2)); return true;
    case SYS_sendmsg: result = sendmsg(x.fd(0), x.pointer<msghdr>(1), x.fd(2)); return true;
    case SYS_recvmmsg:
      result = recvmmsg(x.fd(0), x.pointer<mmsghdr>(1), unsigned(x.a[2]), x.fd(3), x.pointer<timespec>(4));
      return true;
    case SYS_sendmmsg: result = sendmmsg(x.fd(0), x.pointer<mmsghdr>(1), unsigned(x.a[2]), x.fd(3)); return true;
    case SYS_tee: result = tee(x.fd(0), x.fd(1), x.size(2), unsigned(x.a[3])); return true;
    case SYS_vmsplice: result = vmsplice(x.fd(0), x.pointer<iovec>(1), x.size(2), unsigned(x.a[3])); return true;
    case SYS_splice:
      result = splice(x.fd(0), x.pointer<off64_t>(1), x.fd(2), x.pointer<off64_t>(3), x.size(4), unsigned(x.a[5]));
      return true;
    case SYS_fstat: result = fstat(x.fd(0), x.pointer<struct stat>(1)); return true;
    case SYS_newfstatat:
      result = fstatat(x.fd(0), x.pointer<char>(1), x.pointer<struct stat>(2), x.fd(3));
      return true;
    case SYS_statx:
      result = statx(x.fd(0), x.pointer<char>(1), x.fd(2), unsigned(x.a[3]), x.pointer<struct statx>(4));
      return true;
    case SYS_sendfile: result = sendfile(x.fd(0), x.fd(1), x.pointer<off_t>(2), x.size(3)); return true;
    case SYS_epoll_create1: result = epoll_create1(x.fd(0)); return true;
    case SYS_epoll_ctl: result = epoll_ctl(x.fd(0), x.fd(1), x.fd(2), x.pointer<epoll_event>(3)); return true;
    case SYS_epoll_pwait:
      result = epoll_pwait(x.fd(0), x.pointer<epoll_event>(1), x.fd(2), x.fd(3), x.pointer<sigset_t>(4));
      return true;
    case SYS_epoll_pwait2:
      result = epoll_pwait2(x.fd(0), x.pointer<epoll_event>(1), x.fd(2), x.pointer<timespec>(3), x.pointer<sigset_t>(4));
      return true;
    case SYS_ppoll:
      result = ppoll(x.pointer<pollfd>(0), nfds_t(x.a[1]), x.pointer<timespec>(2), x.pointer<sigset_t>(3));
      return true;
    case SYS_pselect6: {
      struct Mask {
        const sigset_t* set;
        size_t bytes;
      };
      auto* m = x.pointer<Mask>(5);
      result = pselect(x.fd(0), x.pointer<fd_set>(1), x.pointer<fd_set>(2), x.pointer<fd_set>(3), x.pointer<timespec>(4),
                       m != nullptr ? m->set : nullptr);
      return true;
    }
    case SYS_mmap: result = long(mmap(x.pointer<void>(0), x.size(1), x.fd(2), x.fd(3), x.fd(4), off_t(x.a[5]))); return true;
    case SYS_mprotect: result = mprotect(x.pointer<void>(0), x.size(1), x.fd(2)); return true;
    case SYS_pkey_mprotect: result = pkey_mprotect(x.pointer<void>(0), x.size(1), x.fd(2), x.fd(3)); return true;
    case SYS_rt_sigaction: result = signal_action(x.fd(0), x.pointer<KernelAction>(1), x.pointer<KernelAction>(2)); return true;
    case SYS_seccomp: return before_restriction(), false;
    case SYS_prctl: result = prctl(x.fd(0), x.a[1], x.a[2], x.a[3], x.a[4]); return true;
    case SYS_unshare: result = unshare(x.fd(0)); return true;
    case SYS_setns: result = setns(x.fd(0), x.fd(1)); return true;
    case SYS_execve:
      result = execve(x.pointer<char>(0), x.pointer<char*>(1), x.pointer<char*>(2));
      return true;
    case SYS_execveat:
      result = execveat(x.fd(0), x.pointer<char>(1), x.pointer<char*>(2), x.pointer<char*>(3), x.fd(4));
      return true;
#ifdef SYS_accept
    case SYS_accept: result = accept(x.fd(0), x.pointer<sockaddr>(1), x.pointer<socklen_t>(2)); return true;
#endif
#ifdef SYS_pipe
    case SYS_pipe: result = pipe(x.pointer<int>(0)); return true;
#endif
#ifdef SYS_dup2
    case SYS_dup2: result = dup2(x.fd(0), x.fd(1)); return true;
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait: result = epoll_wait(x.fd(0), x.pointer<epoll_event>(1), x.fd(2), x.fd(3)); return true;
#endif
#ifdef SYS_epoll_create
    case SYS_epoll_create: result = epoll_create(x.fd(0)); return true;
#endif
#ifdef SYS_select
    case SYS_select:
      result = select(x.fd(0), x.pointer<fd_set>(1), x.pointer<fd_set>(2), x.pointer<fd_set>(3), x.pointer<timeval>(4));
      return true;
#endif
#ifdef SYS_poll
    case SYS_poll: result = poll(x.pointer<pollfd>(0), nfds_t(x.a[1]), x.fd(2)); return true;
#endif
    default: return false;
  }
}

}  // namespace

INTERPOSE(long, syscall, (long number, ...)) {
  Arguments x;
  va_list list;
  va_start(list, number);
  for (long& a : x.a) a = va_arg(list, long);
  va_end(list);
  be_ready();
  long result;
  if (known(number, x, result)) return result;
  return libc.syscall(number, x.a[0], x.a[1], x.a[2], x.a[3], x.a[4], x.a[5]);
}

}  // namespace sluice::preload
