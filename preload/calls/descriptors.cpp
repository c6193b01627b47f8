// close(2), dup(2), fcntl(2), ioctl(2).
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "preload/closing.h"
#include "preload/dispatch.h"
#include "preload/escape.h"
#include "preload/fork.h"
#include "preload/kernel.h"
#include "preload/materialize.h"
#include "preload/peers.h"
#include "preload/pipes.h"
#include "preload/signal_watch.h"
#include "preload/user_memory.h"

namespace sluice::preload {

namespace {

// Takes `fd` out of the table. The caller closes the kernel's descriptor, then releases.
File* take_out(int fd) {
  Guard guard(control_lock);
  File* f = descriptors.clear(fd);
  if (f != nullptr && f->remove_descriptor() && f->kind() == FileKind::kTcpSocket) {
    auto& s = static_cast<TcpSocket&>(*f);
    if (s.state == TcpState::kConnected && (s.theirs == nullptr || s.is_left_behind_by_peer())) {  // what has arrived decides how it ends
      peers.drain();
      s.attach();
    }
  }
  return f;
}

// Perhaps it was the last connection with one who has died.
void release(File* f) {
  f->release();
  if (!peers.has_dead()) return;
  Guard guard(control_lock);
  peers.drain();
}

void drop(int fd) {
  if (File* f = take_out(fd)) release(f);
}

int close_one(int fd) {
  if (is_own_descriptor(fd)) return -EBADF;  // a loop over all numbers does not end the shim
  if (in_vfork_child()) return libc.close(fd) == 0 ? 0 : -errno;
  cancellation_point();
  drop_pipe_end(fd);
  drop_pair_end(fd);
  File* f = descriptors.peek(fd) != nullptr ? take_out(fd) : nullptr;
  int r = kernel::close(fd) == 0 ? 0 : -errno;  // a kernel listener goes before its connections are sent away
  if (f != nullptr) release(f);
  return r;
}

// `copy` is a new kernel descriptor for what `from` is.
int share(int from, int copy) {
  if (copy < 0) return -errno;
  if (in_vfork_child()) {
    if (File* f = file_at(from); f != file_at(copy)) note_vfork_copy(copy, f);
    return copy;
  }
  share_pipe_end(from, copy);
  share_pair_end(from, copy);
  FileReference f(from);
  if (f.get() == nullptr) return copy;
  Guard guard(control_lock);
  (void)descriptors.set(copy, f.get());
  return copy;
}

template <class Dup>
int dup_onto(int from, int to, Dup&& kernel_dup) {
  if (is_own_descriptor(to)) return -EBADF;
  bool concerned = descriptors.peek(from) != nullptr || descriptors.peek(to) != nullptr || any_vfork_copies() ||
                   pipe_at(from) != nullptr || pipe_at(to) != nullptr || pair_at(from) != nullptr || pair_at(to) != nullptr;
  if (from == to || !concerned) {
    int r = kernel_dup();
    return r < 0 ? -errno : r;
  }
  if (libc.fcntl(from, F_GETFD) < 0) return -errno;  // then `to` stays open
  if (descriptors.peek(to) != nullptr && !in_vfork_child()) drop(to);
  drop_pipe_end(to);
  drop_pair_end(to);
  return share(from, kernel_dup());
}

int status_flags(TcpSocket& s, int fd) {
  int flags = libc.fcntl(fd, F_GETFL);
  return flags < 0 ? -errno : (flags & ~(O_NONBLOCK | O_APPEND | O_ASYNC)) | s.status_flags | (s.nonblocking ? O_NONBLOCK : 0);
}

// Who wants signals from a socket without connection keeps it on the kernel, which has them to give.
int leave_for_signals(TcpSocket& s, int fd) {
  uint32_t released = 0;
  {
    Guard guard(control_lock);
    if (int error = make_real(fd, s); error != 0) return error;
    if (s.state == TcpState::kListening) s.stop_listening();
    hand_to_kernel(s, -1, released);
  }
  while (released-- > 0) s.release();
  return 0;
}

int set_status_flags(TcpSocket& s, int fd, int flags) {
  bool connected = s.state == TcpState::kConnected, async = (flags & O_ASYNC) != 0;
  if (async && !connected) {
    int error = leave_for_signals(s, fd);
    return error != 0 ? error : libc.fcntl(fd, F_SETFL, flags) == 0 ? 0 : -errno;
  }
  s.nonblocking = (flags & O_NONBLOCK) != 0;
  s.status_flags = flags & (O_APPEND | O_ASYNC);
  if (async)
    if (int error = watch_for_signals(s, fd); error != 0) return error;
  if (!s.real) return 0;  // the placeholder's flags are everybody's
  return libc.fcntl(fd, F_SETFL, flags & ~O_ASYNC) == 0 ? 0 : -errno;
}

// The kernel is about to change, or hand out, what it has here: no longer what others share.
int part_from_others(TcpSocket& s, int fd) {
  Guard guard(control_lock);
  return make_real(fd, s);
}

bool changes_description(int command) {
  return command == F_SETOWN || command == F_SETOWN_EX || command == F_SETSIG || command == F_SETLEASE;
}

// Before the kernel notes who is to get the signals.
int prepare_for_signals(TcpSocket& s, int fd) {
  if (s.state != TcpState::kConnected) return leave_for_signals(s, fd);
  int error = part_from_others(s, fd);
  return error != 0 ? error : watch_for_signals(s, fd);
}

void note_pipe_change(PipeEnd& p, int command, int argument, int result) {
  if (command == F_SETFL) p.note_nonblocking((argument & O_NONBLOCK) != 0);
  if (!p.has_channel()) return;
  shm::ChannelHeader& h = p.mapping->channel.header();
  if (command == F_SETFL && (argument & O_DIRECT) != 0) h.kernel_only.store(1, std::memory_order_release);
  if (command == F_SETPIPE_SZ) h.limit.store(uint32_t(result), std::memory_order_relaxed);  // a bound
}

void note_pair_flags(int fd, bool nonblocking, bool async) {
  if (PairReference p(fd); p.get() != nullptr) p.get()->note_nonblocking(nonblocking);
  if (async) leave_pair_to_kernel(fd);
}

int do_fcntl(int fd, int command, void* argument) {
  FileReference f(fd);
  bool socket = f.get() != nullptr && f.get()->kind() == FileKind::kTcpSocket;
  if (socket && command == F_GETFL) return status_flags(static_cast<TcpSocket&>(*f.get()), fd);
  if (socket && command == F_SETFL) return set_status_flags(static_cast<TcpSocket&>(*f.get()), fd, int(long(argument)));
  if (socket && changes_description(command))
    if (int error = prepare_for_signals(static_cast<TcpSocket&>(*f.get()), fd); error != 0) return error;
  PipeReference p(fd);
  if (p.with_channel() != nullptr && command == F_SETPIPE_SZ && p.get()->in_ring() > size_t(long(argument))) return -EBUSY;
  int r = outside([&] { return libc.fcntl(fd, command, argument); });
  if (r < 0) return -errno;
  if (p.get() != nullptr) note_pipe_change(*p.get(), command, int(long(argument)), r);
  if (pair_at(fd) != nullptr && command == F_SETFL) note_pair_flags(fd, (long(argument) & O_NONBLOCK) != 0, (long(argument) & O_ASYNC) != 0);
  if ((f.get() != nullptr || p.get() != nullptr || pair_at(fd) != nullptr || any_vfork_copies()) && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) return share(fd, r);
  return r;
}

// Apart from the wrapper, which then keeps no frame for calls on other descriptors.
[[gnu::noinline]] int fcntl_ours(int fd, int command, void* argument) {
  be_ready();
  Entrance entrance;
  return finish(do_fcntl(fd, command, argument));
}

inline int call_fcntl(int fd, int command, void* argument) {
  return is_kernels(fd) && !any_vfork_copies() ? libc.fcntl(fd, command, argument) : fcntl_ours(fd, command, argument);
}

// What a connection is asked for. It may go to the kernel when its peer is looked for: kNowTheKernels.
template <class Number>
int tell_number(TcpSocket& s, void* to, Number&& number) {
  if (s.theirs == nullptr) s.reach_peer();
  int n;
  {
    Looking looking;
    if (s.state != TcpState::kConnected) return kNowTheKernels;
    n = number();
  }
  return put_user(static_cast<int*>(to), n);
}

int do_ioctl(TcpSocket& s, int fd, unsigned long request, void* argument) {
  bool connected = s.state == TcpState::kConnected;
  switch (request) {
    case FIONBIO: {
      int on;
      if (int error = get_user(on, static_cast<int*>(argument)); error != 0) return error;
      return set_status_flags(s, fd, O_RDWR | s.status_flags | (on ? O_NONBLOCK : 0));
    }
    case FIOASYNC: {
      int on;
      if (int error = get_user(on, static_cast<int*>(argument)); error != 0) return error;
      return set_status_flags(s, fd, O_RDWR | (s.status_flags & ~O_ASYNC) | (on ? O_ASYNC : 0) | (s.nonblocking ? O_NONBLOCK : 0));
    }
    case FIOSETOWN:
    case SIOCSPGRP:
      if (int error = prepare_for_signals(s, fd); error != 0) return error;
      return outside([&] { return libc.ioctl(fd, request, argument); }) == 0 ? 0 : -errno;
    case FIONREAD:
      if (!connected) break;
      return tell_number(s, argument, [&] { return int(s.records ? s.bytes_of_records() : s.readable_to_mark()); });
    case SIOCATMARK:
      if (!connected || s.records) break;  // some kernels know no mark among records
      return tell_number(s, argument, [&] { return int{s.at_mark()}; });
    case SIOCOUTQ:
    case SIOCOUTQNSD:
      if (!connected) break;
      return tell_number(s, argument, [&] { return int(s.is_unix() ? s.unread_bytes() : s.outstanding_bytes()); });
    default:
      break;
  }
  if (int error = part_from_others(s, fd); error != 0) return error;
  int r = outside([&] { return libc.ioctl(fd, request, argument); });
  return r < 0 ? -errno : r;
}

void note_pipe_ioctl(int fd, unsigned long request, int* argument) {
  PipeReference p(fd);
  if (p.get() == nullptr) return;
  if (request == FIONBIO) p.get()->note_nonblocking(*argument != 0);
  if (request == FIONREAD) *argument += int(p.get()->in_ring());
}

// With an empty path these calls are fstat.
void part_if_named(int fd, const char* path, int flags) {
  if ((flags & AT_EMPTY_PATH) == 0 || descriptors.peek(fd) == nullptr || path == nullptr || *path != 0) return;
  Entrance entrance;
  FileReference f(fd);
  if (f.get() != nullptr && f.get()->kind() == FileKind::kTcpSocket) (void)part_from_others(static_cast<TcpSocket&>(*f.get()), fd);
}

// Calls `f(first, last)` for the stretches of [first, last] without descriptors of the shim's.
template <class F>
int around_own(unsigned first, unsigned last, F&& f) {
  unsigned begin = first;
  for (unsigned fd = first; fd <= last && fd < 16384; ++fd) {
    if (!is_own_descriptor(int(fd))) continue;
    if (fd > begin && f(begin, fd - 1) != 0) return -errno;
    begin = fd + 1;
  }
  return begin <= last && f(begin, last) != 0 ? -errno : 0;
}

int do_close_range(unsigned first, unsigned last, int flags) {
  if (first > last || (flags & ~int{CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE}) != 0) return -EINVAL;
  if ((flags & CLOSE_RANGE_CLOEXEC) == 0 && any_pipes) drop_pipe_ends(first, last);
  if ((flags & CLOSE_RANGE_CLOEXEC) == 0 && any_pairs) drop_pair_ends(first, last);
  if ((flags & CLOSE_RANGE_CLOEXEC) == 0 && descriptors.high_water() > first && !in_vfork_child())
    for (unsigned fd = first; fd <= last && fd < descriptors.high_water(); ++fd)
      if (descriptors.peek(int(fd)) != nullptr) drop(int(fd));
  return around_own(first, last, [&](unsigned a, unsigned b) { return libc.close_range(a, b, flags); });
}

}  // namespace

void let_go_of(int fd) {
  Entrance entrance;
  if (!in_vfork_child()) drop(fd);
}

INTERPOSE(int, close, (int fd)) {
  if (is_kernels(fd)) [[likely]] return libc.close(fd);
  be_ready();
  Entrance entrance;
  return finish(close_one(fd));
}

INTERPOSE(int, dup, (int fd)) {
  be_ready();
  Entrance entrance;
  return finish(share(fd, libc.dup(fd)));
}

INTERPOSE(int, dup2, (int from, int to)) {
  be_ready();
  Entrance entrance;
  return finish(dup_onto(from, to, [&] { return libc.dup2(from, to); }));
}

INTERPOSE(int, dup3, (int from, int to, int flags)) {
  be_ready();
  Entrance entrance;
  return finish(dup_onto(from, to, [&] { return libc.dup3(from, to, flags); }));
}

INTERPOSE_VARIADIC(int, fcntl, (int fd, int command, void* argument)) { return call_fcntl(fd, command, argument); }
INTERPOSE_VARIADIC(int, fcntl64, (int fd, int command, void* argument)) { return call_fcntl(fd, command, argument); }

INTERPOSE_VARIADIC(int, ioctl, (int fd, unsigned long request, void* argument)) {
  return on_socket(fd, [&](TcpSocket& s) { return do_ioctl(s, fd, request, argument); },
                   [&] {
                     int r = libc.ioctl(fd, request, argument);
                     Entrance entrance;
                     if (r == 0 && pipe_at(fd) != nullptr) note_pipe_ioctl(fd, request, static_cast<int*>(argument));
                     if (r == 0 && pair_at(fd) != nullptr && request == FIONBIO) note_pair_flags(fd, *static_cast<int*>(argument) != 0, false);
                     if (r == 0 && pair_at(fd) != nullptr && request == FIOASYNC) leave_pair_to_kernel(fd);
                     return r;
                   });
}

// An inode is each socket's own: from now on this one has a kernel socket to itself.
INTERPOSE(int, fstat, (int fd, struct stat* out)) {
  return on_socket(fd,
                   [&](TcpSocket& s) {
                     Guard guard(control_lock);
                     (void)make_real(fd, s);
                     return outside([&] { return libc.fstat(fd, out); }) == 0 ? 0 : -errno;
                   },
                   [&] { return libc.fstat(fd, out); });
}

INTERPOSE(int, fstat64, (int fd, struct stat64* out)) {
  static_assert(sizeof(struct stat) == sizeof(struct stat64));
  return fstat(fd, reinterpret_cast<struct stat*>(out));
}

// What programs call that were built for an older libc.
INTERPOSE(int, __fxstat, (int, int fd, struct stat* out)) { return fstat(fd, out); }
INTERPOSE(int, __fxstat64, (int, int fd, struct stat64* out)) { return fstat64(fd, out); }

INTERPOSE(int, fstatat, (int directory, const char* path, struct stat* out, int flags)) {
  be_ready();
  part_if_named(directory, path, flags);
  return libc.fstatat(directory, path, out, flags);
}

INTERPOSE(int, fstatat64, (int directory, const char* path, struct stat64* out, int flags)) {
  return fstatat(directory, path, reinterpret_cast<struct stat*>(out), flags);
}

INTERPOSE(int, statx, (int directory, const char* path, int flags, unsigned mask, struct statx* out)) {
  be_ready();
  part_if_named(directory, path, flags);
  return libc.statx(directory, path, flags, mask, out);
}

INTERPOSE(int, close_range, (unsigned first, unsigned last, int flags)) {
  be_ready();
  Entrance entrance;
  return finish(do_close_range(first, last, flags));
}

INTERPOSE(void, closefrom, (int first)) {
  be_ready();
  Entrance entrance;
  (void)do_close_range(first < 0 ? 0u : unsigned(first), ~0u, 0);
}

}  // namespace sluice::preload
