// Placeholders and the way back to the kernel.
//
// A socket of ours occupies a descriptor that is a duplicate of one unconnected kernel socket:
// that costs a tenth of a new socket and looks like a socket to fstat and /proc. It gets a
// kernel socket of its own as soon as the kernel has something to say about it.
#pragma once

#include <sys/stat.h>

#include "preload/files/tcp_socket.h"

namespace sluice::preload {

// A new placeholder at the lowest free number, or -errno. `type`: SOCK_STREAM, or on AF_UNIX also SOCK_SEQPACKET;
// `flags`: SOCK_CLOEXEC or 0.
[[nodiscard]] int create_placeholder(int family, int type, int flags);

// What SO_SNDBUF says of a socket of AF_UNIX that nobody has set it for.
size_t default_send_buffer();

// Puts a real, unconnected kernel socket in the place of the placeholder, with the options
// set so far. The socket stays ours. Under control_lock. 0 or -errno.
[[nodiscard]] int make_real(int fd, TcpSocket& s);

// Whether this is the kernel socket that all placeholders share.
[[nodiscard]] bool is_placeholder(const struct stat& st);

// From now on the kernel serves all descriptors of `s`: they leave the table, and the epoll
// sets that watch them watch them in the kernel. `kernel_fd`: what takes their place, or -1
// if they are real already. Under control_lock; the references of the table are
// returned in `released`: the caller releases as many after unlocking.
void hand_to_kernel(TcpSocket& s, int kernel_fd, uint32_t& released);

}  // namespace sluice::preload
