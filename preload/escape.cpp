#include "preload/escape.h"

#include <errno.h>
#include <sys/wait.h>

#include <iterator>

#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/fork.h"
#include "preload/libc.h"
#include "preload/peers.h"

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
    if (!ended) return;
    // The program has closed it: so do we, and others who share the connection keep it. Or
    // it has only finished writing.
    pollfd p{from, 0, 0};
    if (::poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0) _exit(0);
    ::shutdown(to, SHUT_WR);
    over = true;
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
    if (p[0].events == 0) p[0].fd = -1;  // the program's side is watched for its end in any case
    if (::poll(p, 2, -1) < 0 && errno != EINTR) break;
    there.step();
    back.step();

  }
  _exit(0);
}

// In a vfork child's carrier the connection may sit at a number that the table does not know.
void adopt(int fd, TcpSocket& s) {
  Guard guard(control_lock);
  if (descriptors.peek(fd) != &s) (void)descriptors.set(fd, &s);
}

// A descriptor whose other end is carried to and from the connection at `fd`. Or -1.
int carried(int fd, TcpSocket& s) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -1;
  pid_t child = fork();
  if (child == 0) {
    if (fork() != 0) _exit(0);  // nobody's child: the program that is to come does not wait for it
    setsid();
    adopt(fd, s);
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
  if (child > 0 && s.nonblocking) libc.fcntl(ends[0], F_SETFL, O_RDWR | O_NONBLOCK);
  if (child > 0) return ends[0];
  libc.close(ends[0]);
  return -1;
}

// What takes the place of `s` behind `fd`; -1: nothing has to.
int substitute(int fd, TcpSocket& s) {
  if (s.state == TcpState::kConnected) return carried(fd, s);
  if (s.real) return -1;
  return libc.socket(s.family, SOCK_STREAM | SOCK_CLOEXEC | (s.nonblocking ? SOCK_NONBLOCK : 0), 0);
}

}  // namespace

namespace {

// What a vfork child has made of its descriptors: the table is its parent's.
struct Copy {
  int fd;
  File* file;
};
Copy vfork_copies[16];
uint32_t vfork_copy_count = 0;

// The file behind `fd` here, in a vfork child as well.
File* file_at(int fd) {
  for (uint32_t i = vfork_copy_count; i > 0; --i)
    if (vfork_copies[i - 1].fd == fd) return vfork_copies[i - 1].file;
  return descriptors.peek(fd);
}

bool stays_open(int fd, const File* f) {
  int flags = libc.fcntl(fd, F_GETFD);
  return f != nullptr && f->kind() == FileKind::kTcpSocket && flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

}  // namespace

namespace {

// A listener lives on in the kernel: what waits for accept() here has to wait there.
void leave_backlogs() {
  Guard guard(control_lock);
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) l->no_longer_here();
  if (listeners != nullptr) peers.drain();
}

}  // namespace

void note_vfork_copy(int fd, File& f) {
  if (vfork_copy_count < std::size(vfork_copies)) vfork_copies[vfork_copy_count++] = {fd, &f};
}

void escape_before_exec() {
  constexpr uint32_t kLimit = 4096;
  uint32_t limit = descriptors.high_water() < kLimit ? descriptors.high_water() : kLimit;
  if (limit == 0) return;
  uint64_t done[kLimit / 64] = {};
  if (!in_vfork_child()) {
    vfork_copy_count = 0;
    leave_backlogs();
  }
  for (uint32_t fd = 0; fd < limit; ++fd) {
    File* f = file_at(int(fd));
    if ((done[fd / 64] >> (fd % 64) & 1) != 0 || !stays_open(int(fd), f)) continue;
    int fresh = substitute(int(fd), static_cast<TcpSocket&>(*f));
    if (fresh < 0) continue;
    // All duplicates at once; only the kernel's descriptors change.
    for (uint32_t other = fd; other < limit; ++other) {
      if (file_at(int(other)) != f || !stays_open(int(other), f)) continue;
      libc.dup2(fresh, int(other));
      done[other / 64] |= uint64_t{1} << (other % 64);
    }
    libc.close(fresh);
  }
  vfork_copy_count = 0;
}

}  // namespace sluice::preload
