#include "preload/escape.h"

#include <errno.h>
#include <sys/wait.h>

#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"

// The carrier is a small program of its own: it uses the wrappers like any other.
extern "C" {
ssize_t read(int, void*, size_t);
ssize_t write(int, const void*, size_t);
int poll(pollfd*, nfds_t, int);
int shutdown(int, int);
}

namespace sluice::preload {
namespace {

// One direction: from a descriptor through a buffer to another.
struct Flow {
  int from, to;
  size_t begin = 0, end = 0;
  bool ended = false, over = false;
  char buffer[64 * 1024];

  short wanted_of(int fd) const {
    return short((fd == from && !ended && end == 0 ? POLLIN : 0) | (fd == to && end > 0 ? POLLOUT : 0));
  }
  // Moves what can be moved without waiting.
  void step() {
    if (over) return;
    if (end == 0 && !ended) {
      ssize_t n = ::read(from, buffer, sizeof buffer);
      if (n > 0) end = size_t(n);
      else if (n == 0 || (errno != EAGAIN && errno != EINTR)) ended = true;
    }
    while (begin < end) {
      ssize_t n = ::write(to, buffer + begin, end - begin);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n < 0) {
        over = ended = true;
        return;
      }
      begin += size_t(n);
    }
    begin = end = 0;
    if (ended) {
      ::shutdown(to, SHUT_WR);
      over = true;
    }
  }
};

Flow there, back;

void carry(int a, int b) {
  signal(SIGPIPE, SIG_IGN);
  for (int fd : {a, b}) fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
  there.from = back.to = a;
  there.to = back.from = b;
  while (!there.over || !back.over) {
    pollfd p[2] = {{a, short(there.wanted_of(a) | back.wanted_of(a)), 0},
                   {b, short(there.wanted_of(b) | back.wanted_of(b)), 0}};
    for (pollfd& one : p)
      if (one.events == 0) one.fd = -1;
    if (::poll(p, 2, -1) < 0 && errno != EINTR) break;
    there.step();
    back.step();
  }
  _exit(0);
}

// A descriptor whose other end is carried to and from the connection at `fd`. Or -1.
int carried(int fd) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -1;
  pid_t child = fork();
  if (child == 0) {
    if (fork() != 0) _exit(0);  // nobody's child: the program that is to come does not wait for it
    setsid();
    for (unsigned other = 0; other < descriptors.high_water(); ++other)
      if (int(other) != fd && int(other) != ends[1]) close(int(other));
    for (int other : {0, 1, 2})
      if (other != fd && other != ends[1]) close(other);
    carry(fd, ends[1]);
  }
  libc.close(ends[1]);
  int status;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (child > 0) return ends[0];
  libc.close(ends[0]);
  return -1;
}

// What takes the place of `s` behind `fd`; -1: nothing has to.
int substitute(int fd, const TcpSocket& s) {
  if (s.state == TcpState::kConnected) return carried(fd);
  if (s.real) return -1;
  return libc.socket(s.family, SOCK_STREAM | SOCK_CLOEXEC | (s.nonblocking ? SOCK_NONBLOCK : 0), 0);
}

}  // namespace

void escape_before_exec() {
  uint32_t limit = descriptors.high_water();
  uint64_t done[64] = {};  // descriptors below 4096 that were dealt with
  for (uint32_t fd = 0; fd < limit && fd < 4096; ++fd) {
    File* f = descriptors.peek(int(fd));
    bool stays = f != nullptr && f->kind() == FileKind::kTcpSocket && (libc.fcntl(int(fd), F_GETFD) & FD_CLOEXEC) == 0;
    if (!stays || (done[fd / 64] >> (fd % 64) & 1) != 0) continue;
    int fresh = substitute(int(fd), static_cast<TcpSocket&>(*f));
    if (fresh < 0) continue;
    // All duplicates at once. In a vfork child the table is the parent's, so only the
    // kernel's descriptors change.
    for (uint32_t other = fd; other < limit && other < 4096; ++other) {
      if (descriptors.peek(int(other)) != f || (libc.fcntl(int(other), F_GETFD) & FD_CLOEXEC) != 0) continue;
      libc.dup2(fresh, int(other));
      done[other / 64] |= uint64_t{1} << (other % 64);
    }
    libc.close(fresh);
  }
}

}  // namespace sluice::preload
