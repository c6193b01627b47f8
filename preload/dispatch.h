// The one place where a wrapper decides: is the shim up, is the descriptor ours, what
// becomes of errno.
#pragma once

#include <errno.h>

#include "preload/cancellation.h"
#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pipes.h"
#include "preload/socket_pairs.h"

// A definition that takes the place of libc's.
#define INTERPOSE(result, name, params) \
  extern "C" __attribute__((visibility("default"))) result name params

// The same for a call with one argument more or less, which libc declares with an ellipsis. On Linux's ABIs
// it is in the same register either way, and a wrapper without a variable list keeps no frame.
#define INTERPOSE_VARIADIC(result, name, params)                                              \
  extern "C" __attribute__((visibility("default"))) result interposed_##name params __asm__(#name); \
  result interposed_##name params

namespace sluice::preload {

// Another library's constructor may come before ours.
inline void be_ready() {
  if (libc.read == nullptr) [[unlikely]] find_originals();
}

// -errno below this boundary becomes errno and -1 above it.
template <class T>
T finish(T result) {
  if (result >= 0) return result;
  errno = int(-result);
  return -1;
}

// Whether pthread_cancel ends a thread in the call; see cancellation.h.
enum class Cancellation : uint8_t { kPoint, kNoPoint };

// For a descriptor that may be ours: what ours() says, or kNowTheKernels if it is no socket of ours, or not one
// that is wanted().
template <class Wanted, class Ours>
inline ssize_t call_ours(int fd, Wanted&& wanted, Ours&& ours, Cancellation c) {
  if (c == Cancellation::kPoint) cancellation_point();
  ssize_t result = kNowTheKernels;
  {
    Entrance entrance;
    FileReference f(fd);
    if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return result;
    auto& s = static_cast<TcpSocket&>(*f.get());
    if (wanted(s)) result = ssize_t(ours(s));
  }
  if (result == kNowTheKernels) return result;
  if (c == Cancellation::kPoint && result == -EINTR) cancellation_point();
  return finish(result);
}

template <class Wanted, class Ours, class Theirs>
[[gnu::always_inline]] inline auto dispatch(int fd, Wanted&& wanted, Ours&& ours, Theirs&& theirs, Cancellation c) -> decltype(theirs()) {
  if (is_kernels(fd)) [[likely]] return theirs();
  be_ready();
  ssize_t result = descriptors.peek(fd) != nullptr ? call_ours(fd, wanted, ours, c) : kNowTheKernels;
  return result == kNowTheKernels ? theirs() : decltype(theirs())(result);
}

// ours(TcpSocket&) returns a result or -errno; theirs() is libc's call.
template <class Ours, class Theirs>
[[gnu::always_inline]] inline auto on_socket(int fd, Ours&& ours, Theirs&& theirs, Cancellation c = Cancellation::kNoPoint) -> decltype(theirs()) {
  return dispatch(fd, [](TcpSocket&) { return true; }, ours, theirs, c);
}

// As on_socket, but calls the kernel also for sockets that are not connected through shared
// memory: it knows what to answer.
template <class Ours, class Theirs>
[[gnu::always_inline]] inline auto on_connection(int fd, Ours&& ours, Theirs&& theirs, Cancellation c = Cancellation::kPoint) -> decltype(theirs()) {
  auto wanted = [c](TcpSocket& s) {
    bool reports = c == Cancellation::kPoint && s.error.load(std::memory_order_relaxed) != 0;  // told once
    return s.state == TcpState::kConnected || reports;
  };
  return dispatch(fd, wanted, ours, theirs, c);
}

// The same for the end of a pipe that has a channel: ours(PipeEnd&).
template <class Ours, class Theirs>
auto on_pipe(int fd, bool writes, Ours&& ours, Theirs&& theirs) -> decltype(theirs()) {
  if (pipe_at(fd) == nullptr) [[likely]] return theirs();
  ssize_t n = kNowTheKernels;
  {
    Entrance entrance;
    PipeReference p(fd);
    if (p.with_channel() != nullptr && p.get()->writes == writes) n = ours(*p.get());
  }
  return n == kNowTheKernels ? theirs() : decltype(theirs())(finish(n));
}

// And for the end of a socket pair that has a channel: ours(PairEnd&), which may leave it to the kernel.
template <class Ours, class Theirs>
auto on_pair(int fd, Ours&& ours, Theirs&& theirs) -> decltype(theirs()) {
  if (pair_at(fd) == nullptr) [[likely]] return theirs();
  ssize_t n = kNowTheKernels;
  {
    Entrance entrance;
    PairReference p(fd);
    if (p.with_channel() != nullptr) n = ours(*p.get());
  }
  return n == kNowTheKernels ? theirs() : decltype(theirs())(finish(n));
}

// Flags with which a call on a socket pair is one that blocks, and nothing besides.
constexpr int kPlainReceive = MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;
constexpr int kPlainSend = MSG_NOSIGNAL | MSG_DONTWAIT;

// The end of a socket pair, or the kernel's call.
template <class Kernel>
auto receive_on_pair(int fd, const iovec* iov, int count, int flags, Kernel&& kernel) {
  return on_pair(fd,
                 [&](PairEnd& p) -> ssize_t {
                   if ((flags & ~kPlainReceive) != 0) return kNowTheKernels;
                   auto at_once = [&](size_t) -> ssize_t {
                     msghdr m{};
                     m.msg_iov = const_cast<iovec*>(iov);
                     m.msg_iovlen = size_t(count);
                     ssize_t n = outside([&] { return kernel::recvmsg(fd, &m, MSG_DONTWAIT); });
                     return n < 0 ? -errno : n;
                   };
                   return p.receive(iov, count, KernelCall(at_once));
                 },
                 kernel);
}

template <class Kernel>
auto send_on_pair(int fd, const iovec* iov, int count, int flags, Kernel&& kernel) {
  return on_pair(fd,
                 [&](PairEnd& p) -> ssize_t {
                   auto rest = [&](size_t done) -> ssize_t {
                     ssize_t n = done == 0 ? ssize_t(outside(kernel)) : send_rest(fd, iov, count, done, flags);
                     return n < 0 ? -errno : n;
                   };
                   bool wait = (flags & MSG_DONTWAIT) == 0 && !p.nonblocking;
                   if ((flags & ~kPlainSend) == 0) return p.send(fd, iov, count, wait, KernelCall(rest));
                   PairEnd::Bypass bypass(p, fd);
                   return rest(0);
                 },
                 kernel);
}

// Around a call that writes to a socket pair in another way than these.
template <class Kernel>
auto bypass_pair(int fd, Kernel&& kernel) {
  return on_pair(fd,
                 [&](PairEnd& p) -> ssize_t {
                   PairEnd::Bypass bypass(p, fd);
                   auto n = outside(kernel);
                   return n < 0 ? -errno : n;
                 },
                 kernel);
}

}  // namespace sluice::preload
