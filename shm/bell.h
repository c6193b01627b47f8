// The bell: what wakes a process that sleeps in the kernel for many things at once.
//
//   owner                                      everybody who has news for it
//   +-------------+   a pair of sockets,      +-------------+
//   |  hearing end|<== AF_UNIX, SEQPACKET ====| ringing end |   one open file, in many hands
//   +-------------+                           +-------------+
//   in its epoll sets, edge-triggered          shutdown(SHUT_WR), as often as there is news
//
// Nothing is ever sent. shutdown(2) on one end tells whoever waits at the other that its state may have changed,
// also when it was shut long ago (unix_shutdown() in the kernel's net/unix/af_unix.c), and that is an edge for epoll(7).
// So nobody resets a bell, several threads and processes may listen to one, and each hears every ring.
//
// Why not an eventfd: its counter and its O_NONBLOCK belong to all who have it. One of them fills the counter, and
// whoever rings next waits, or rings without a sound; pwritev2(RWF_NOWAIT) does not work there. shutdown(2) has no
// counter, no queue and no flag: it takes a spin lock and returns.
//
// Trust:  whoever has the ringing end can ring it, and can do nothing to those who ring it, or so that they are not
//         heard: an end that is shut, closed at the other side or read from still rings. What has been given
//         as a bell is one if it is such a socket; on others shutdown(2) could wait for their owner.
#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>

#include "shm/kernel_call.h"

namespace sluice::shm {

inline constexpr int kBellType = SOCK_SEQPACKET;

// Rings; errno stays the caller's. Of a bell that is not there any more nobody hears.
inline void ring_bell(int ringing_end) {
  kernel_call(SYS_shutdown, ringing_end, SHUT_WR);
}

// A bell begins rung: from the first moment on nothing can be sent through it.
inline void init_bell(const int (&ends)[2]) { ring_bell(ends[1]); }

// Whether somebody else's descriptor may be rung.
[[nodiscard]] inline bool is_bell(int fd) {
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || domain != AF_UNIX) return false;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == kBellType;
}

}  // namespace sluice::shm
