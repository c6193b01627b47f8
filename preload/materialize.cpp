#include "preload/materialize.h"

#include <errno.h>
#include <netinet/tcp.h>

#include "preload/descriptor_table.h"
#include "preload/files/epoll_set.h"
#include "preload/kernel.h"
#include "preload/libc.h"

namespace sluice::preload {
namespace {

// Never closed, never connected. Kept over fork; exec closes them.
std::atomic<int> prototypes[4] = {-1, -1, -1, -1};

int prototype(int family, int type) {
  std::atomic<int>& p = prototypes[family == AF_INET6 ? 1 : family != AF_UNIX ? 0 : type == SOCK_STREAM ? 2 : 3];
  int fd = p.load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  Guard guard(control_lock);
  if (p.load(std::memory_order_relaxed) < 0) {  // under the lock
    fd = libc.socket(family, type | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    p.store(move_high(fd), std::memory_order_release);
  }
  return p.load(std::memory_order_relaxed);  // likewise
}

void set_int(int fd, int level, int name, int value) { libc.setsockopt(fd, level, name, &value, sizeof value); }

void repeat_options(int fd, const TcpSocket& s) {
  if (s.pass_credentials) set_int(fd, SOL_SOCKET, SO_PASSCRED, 1);
  if (s.nodelay) set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (s.cork) set_int(fd, IPPROTO_TCP, TCP_CORK, 1);
  if (s.receive_low > 1) set_int(fd, SOL_SOCKET, SO_RCVLOWAT, s.receive_low);
  if (s.urgent_inline) set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
  if (s.keepalive) set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  if (s.reuse_address) set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (s.receive_buffer > 0) set_int(fd, SOL_SOCKET, SO_RCVBUF, s.receive_buffer);
  if (s.send_buffer > 0) set_int(fd, SOL_SOCKET, SO_SNDBUF, s.send_buffer);
  if (s.linger_option.l_onoff) libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, &s.linger_option, sizeof(linger));
  for (auto [name, us] : {std::pair{SO_RCVTIMEO, s.receive_timeout_us}, {SO_SNDTIMEO, s.send_timeout_us}}) {
    timeval t{us / 1'000'000, us % 1'000'000};
    if (us != 0) libc.setsockopt(fd, SOL_SOCKET, name, &t, sizeof t);
  }
}

void replace(int fd, int kernel_fd) {
  int flags = libc.fcntl(fd, F_GETFD);
  libc.dup3(kernel_fd, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
}

}  // namespace

int create_placeholder(int family, int type, int flags) {
  int p = prototype(family, type);
  if (p < 0) return p;
  int fd = libc.fcntl(p, (flags & SOCK_CLOEXEC) != 0 ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  return fd < 0 ? -errno : fd;
}

size_t default_send_buffer() {
  static std::atomic<int> known{0};
  int bytes = known.load(std::memory_order_relaxed);  // nothing comes with it
  if (bytes > 0) return size_t(bytes);
  // Of a socket made for the question: the prototype may be wanting, and making one takes a lock that callers hold.
  constexpr size_t kUsual = 212992;  // net.core.wmem_default
  socklen_t length = sizeof bytes;
  int fd = libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  bool asked = fd >= 0 && libc.getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &length) == 0 && bytes > 0;
  if (fd >= 0) kernel::close(fd);
  if (!asked) return kUsual;
  known.store(bytes, std::memory_order_relaxed);  // likewise
  return size_t(bytes);
}

bool is_placeholder(const struct stat& st) {
  for (const std::atomic<int>& p : prototypes) {
    struct stat shared;
    int fd = p.load(std::memory_order_acquire);
    if (fd >= 0 && libc.fstat(fd, &shared) == 0 && shared.st_dev == st.st_dev && shared.st_ino == st.st_ino) return true;
  }
  return false;
}

int make_real(int, TcpSocket& s) {
  if (s.real) return 0;
  int fresh = libc.socket(s.family, s.type() | SOCK_CLOEXEC | (s.nonblocking ? SOCK_NONBLOCK : 0), 0);
  // No call that comes here has EMFILE; and for one moment there is one descriptor more than the program knows.
  if (fresh < 0) return errno == EMFILE || errno == ENFILE ? -ENOBUFS : -errno;
  repeat_options(fresh, s);
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd)
    if (descriptors.peek(int(fd)) == &s) replace(int(fd), fresh);
  kernel::close(fresh);
  s.real = true;
  return 0;
}

void hand_to_kernel(TcpSocket& s, int kernel_fd, uint32_t& released) {
  released = 0;
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd) {
    if (descriptors.peek(int(fd)) != &s) continue;
    if (kernel_fd >= 0) replace(int(fd), kernel_fd);
    move_interests_to_kernel(s, int(fd));
    descriptors.clear(int(fd));
    (void)s.remove_descriptor();
    ++released;
  }
}

}  // namespace sluice::preload
