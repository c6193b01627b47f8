#include "preload/packets.h"

#include <errno.h>
#include <string.h>

#include "preload/descriptor_table.h"
#include "preload/kernel.h"
#include "shm/death_point.h"

namespace sluice::preload {

using namespace shm;

namespace {

void put_control(msghdr& m, char* control, int type, const void* data, size_t bytes) {
  auto* c = reinterpret_cast<cmsghdr*>(control + m.msg_controllen);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(c), data, bytes);
  m.msg_control = control;
  m.msg_controllen += CMSG_SPACE(bytes);
}

}  // namespace

void ReceivedPacket::close_all() {
  for (int i = 0; i < fd_count; ++i) close_own(fds[i]);
  fd_count = 0;
}

int send_packet(int socket, const Packet& p, const int* fds, int count, const ucred* who, const NameBody* body) {
  iovec iov[2] = {{const_cast<Packet*>(&p), sizeof p}, {const_cast<NameBody*>(body), sizeof *body}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int)) + CMSG_SPACE(sizeof(ucred))] = {};
  msghdr m{};
  m.msg_iov = iov;
  m.msg_iovlen = body != nullptr ? 2 : 1;
  if (count > 0) put_control(m, control, SCM_RIGHTS, fds, size_t(count) * sizeof(int));
  if (who != nullptr) put_control(m, control, SCM_CREDENTIALS, who, sizeof *who);
  DeathPoint at_message("packet sent", p.type);
  ssize_t n;
  do n = kernel::sendmsg(socket, &m, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

int receive_packet(int socket, ReceivedPacket& out, int flags) {
  iovec iov[2] = {{&out.packet, sizeof out.packet}, {&out.body, sizeof out.body}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int))];
  msghdr m{};
  m.msg_iov = iov;
  m.msg_iovlen = 2;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  out.fd_count = 0;
  RaisedLimit raised;
  ssize_t n;
  do n = kernel::recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int count = int((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < count && out.fd_count < kMaxPacketFds; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + size_t(i) * sizeof(int), sizeof fd);
      out.fds[out.fd_count++] = move_high(fd);
    }
  }
  if (n == 0) return -ENOTCONN;
  out.has_body = n == ssize_t(sizeof(Packet) + sizeof(NameBody));
  DeathPoint at_message("packet taken", out.packet.type);
  bool sound = (n == ssize_t(sizeof(Packet)) || out.has_body) && out.packet.magic == kMagic;
  return sound ? 0 : -EPROTO;
}

}  // namespace sluice::preload
