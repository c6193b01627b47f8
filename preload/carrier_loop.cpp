#include "preload/carrier_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace sluice::preload {

namespace {

bool has_records(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

void set_int(int fd, int name, int value) { ::setsockopt(fd, SOL_SOCKET, name, &value, sizeof value); }

// So that a record always comes with something, an empty one too, and the end with nothing. On the kernel's
// side credentials would give the socket a name; a time does not.
void tell_records_from_end(int connection, int end) {
  set_int(connection, SO_PASSCRED, 1);
  set_int(end, SO_TIMESTAMP, 1);
}

}  // namespace

void CarrierLoop::add(int connection, int end) {
  bool records = has_records(end);
  std::size_t room = records ? kRecordRoom : kStreamRoom, bytes = sizeof(Carried) + 2 * room;
  // Memory that is not touched costs nothing: most connections never fill a buffer.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    ::close(connection);
    ::close(end);
    return;
  }
  ::fcntl(connection, F_SETFL, O_RDWR | O_NONBLOCK);
  ::fcntl(end, F_SETFL, O_RDWR | O_NONBLOCK);
  auto* c = static_cast<Carried*>(p);
  c->records = records;
  c->bytes = bytes;
  c->there.buffer = static_cast<char*>(p) + sizeof(Carried);
  c->back.buffer = c->there.buffer + room;
  c->there.room = c->back.room = room;
  if (records) {
    tell_records_from_end(connection, end);
    set_int(end, SO_SNDBUF, int(kRecordRoom));
  }
  c->connection.fd = connection;
  c->program.fd = end;
  c->next = first_;
  first_ = c;
  ++count_;
}

// `out` is read from this side, `in` is written to it. A side is watched for its end even if
// nothing is wanted of it.
pollfd CarrierLoop::wanted_of(const Side& s, const Flow& out, const Flow& in) {
  short events = short((!out.ended && !out.held ? POLLIN : 0) | (in.held ? POLLOUT : 0));
  return {events == 0 && s.hung_up ? -1 : s.fd, events, 0};
}

void CarrierLoop::look(Side& s, short events) {
  s.hung_up |= (events & (POLLHUP | POLLERR)) != 0;
  s.readable = (events & (POLLIN | POLLHUP | POLLERR)) != 0;
}

// `ended`: it returned 0 because there is nothing more; of records that is so if nothing comes along (tell_records_from_end()).
ssize_t CarrierLoop::receive(Flow& f, int from, bool records, bool& ended) {
  // With room for what tell_records_from_end() asks for.
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int)) + CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(timeval))];
  iovec iov{f.buffer, f.room};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  ssize_t n = ::recvmsg(from, &m, MSG_CMSG_CLOEXEC);
  ended = n == 0 && (!records || m.msg_controllen == 0);
  for (cmsghdr* c = n >= 0 ? CMSG_FIRSTHDR(&m) : nullptr; c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    f.descriptor_count = int((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(f.descriptors, CMSG_DATA(c), size_t(f.descriptor_count) * sizeof(int));
  }
  return n;
}

ssize_t CarrierLoop::send(Flow& f, int to) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  iovec iov{f.buffer + f.begin, f.end - f.begin};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  if (f.descriptor_count > 0) {
    size_t bytes = size_t(f.descriptor_count) * sizeof(int);
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(c), f.descriptors, bytes);
  }
  ssize_t n = ::sendmsg(to, &m, 0);
  if (n >= 0) drop_descriptors(f);
  return n;
}

void CarrierLoop::drop_descriptors(Flow& f) {
  while (f.descriptor_count > 0) ::close(f.descriptors[--f.descriptor_count]);
}

// Moves what can be moved without waiting.
void CarrierLoop::move(Flow& f, Side& from, Side& to, bool records) {
  if (f.over) return;
  // Only what poll showed: another process may have the first right to it (TcpSocket::be_polite).
  if (!f.held && !f.ended && from.readable) {
    bool ended;
    ssize_t n = receive(f, from.fd, records, ended);
    f.held = n >= 0 && !ended;
    f.end = f.held ? size_t(n) : 0;
    // Of records a reset is told before those that are still there.
    if (ended || (n < 0 && errno != EAGAIN && errno != EINTR && !(records && errno == ECONNRESET))) f.ended = true;
  }
  while (f.held && !to.hung_up) {
    ssize_t n = send(f, to.fd);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) to.hung_up = true;
    else f.begin += size_t(n);
    f.held = f.begin < f.end;
  }
  f.held = false;
  f.begin = f.end = 0;
  drop_descriptors(f);
  if (to.hung_up) f.ended = true;
  if (!f.ended) return;
  f.over = true;
  // Of two ends that look alike: if the program has let go of it, so do we, and others who share
  // the connection keep it; or it has only finished writing.
  pollfd p{from.fd, 0, 0};
  if (::poll(&p, 1, 0) == 1) look(from, p.revents);
  if (!from.hung_up && !to.hung_up) ::shutdown(to.fd, SHUT_WR);
}

void CarrierLoop::drop_finished() {
  for (Carried** at = &first_; *at != nullptr;) {
    Carried* c = *at;
    if (!c->there.over || !c->back.over) {
      at = &c->next;
      continue;
    }
    *at = c->next;
    ::close(c->connection.fd);
    ::close(c->program.fd);
    munmap(c, c->bytes);
    --count_;
  }
}

void CarrierLoop::run() {
  signal(SIGPIPE, SIG_IGN);
  auto* fds = static_cast<pollfd*>(malloc(2 * count_ * sizeof(pollfd)));
  while (fds != nullptr && count_ > 0) {
    uint32_t n = 0;
    for (Carried* c = first_; c != nullptr; c = c->next) {
      fds[n++] = wanted_of(c->connection, c->there, c->back);
      fds[n++] = wanted_of(c->program, c->back, c->there);
    }
    if (::poll(fds, n, -1) < 0 && errno != EINTR) return;
    n = 0;
    for (Carried* c = first_; c != nullptr; c = c->next) {
      look(c->connection, fds[n++].revents);
      look(c->program, fds[n++].revents);
      move(c->there, c->connection, c->program, c->records);
      move(c->back, c->program, c->connection, c->records);
    }
    drop_finished();
  }
}

}  // namespace sluice::preload
