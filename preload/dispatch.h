// The one place where a wrapper decides: is the shim up, is the descriptor ours, what
// becomes of errno.
#pragma once

#include <errno.h>

#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"
#include "preload/pipes.h"

// A definition that takes the place of libc's.
#define INTERPOSE(result, name, params) \
  extern "C" __attribute__((visibility("default"))) result name params

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

// ours(TcpSocket&) returns a result or -errno; theirs() is libc's call.
template <class Ours, class Theirs>
auto on_socket(int fd, Ours&& ours, Theirs&& theirs) -> decltype(theirs()) {
  be_ready();
  if (descriptors.peek(fd) == nullptr) [[likely]] return theirs();
  FileReference f(fd);
  if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return theirs();
  return decltype(theirs())(finish(ours(static_cast<TcpSocket&>(*f.get()))));
}

// As on_socket, but calls the kernel also for sockets that are not connected through shared
// memory: it knows what to answer.
template <class Ours, class Theirs>
auto on_connection(int fd, Ours&& ours, Theirs&& theirs) -> decltype(theirs()) {
  be_ready();
  if (descriptors.peek(fd) == nullptr) [[likely]] return theirs();
  FileReference f(fd);
  if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return theirs();
  auto& s = static_cast<TcpSocket&>(*f.get());
  if (s.state != TcpState::kConnected) return theirs();
  auto result = ours(s);
  return result == kNowTheKernels ? theirs() : decltype(theirs())(finish(result));
}

// The same for the end of a pipe that has a channel: ours(PipeEnd&).
template <class Ours, class Theirs>
auto on_pipe(int fd, bool writes, Ours&& ours, Theirs&& theirs) -> decltype(theirs()) {
  if (pipe_at(fd) == nullptr) [[likely]] return theirs();
  PipeReference p(fd);
  if (p.with_channel() == nullptr || p.get()->writes != writes) return theirs();
  return decltype(theirs())(finish(ours(*p.get())));
}

}  // namespace sluice::preload
