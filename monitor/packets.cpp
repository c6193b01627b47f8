#include "monitor/packets.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "monitor/patience.h"
#include "shm/death_point.h"

namespace sluice::monitor {
namespace {

// So that nobody keeps the coordinator to himself.
constexpr int kMostPerRound = 16;
constexpr std::size_t kMostFdsInPacket = 253;  // SCM_MAX_FD of the kernel

// What is work beyond the client's own counts as several.
int weight(uint16_t type) {
  if (TextService::serves(type)) return kMostPerRound;
  return type == shm::kSharersBell || type == shm::kChannel ? 8 : 1;
}

// Nobody has to send us a socket of TCP. To close one is not to wait for its peer: what this does not reach, in the queues
// of other sockets, is for patience.h.
void close_without_waiting(int fd) {
  int domain = AF_UNIX;
  socklen_t size = sizeof domain;
  linger none{};
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX)
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void take_control(msghdr& m, InPacket& packet) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    if (c->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials;
      memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
      packet.pid = credentials.pid;
      packet.uid = credentials.uid;
      packet.gid = credentials.gid;
      packet.has_credentials = true;
    }
    if (c->cmsg_type != SCM_RIGHTS) continue;
    std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      close_without_waiting(fd);
      packet.fds.emplace_back(fd);
    }
  }
}

}  // namespace

void Packets::serve(Client& client, uint32_t events) {
  if (client.doomed) return;
  if (events & EPOLLOUT) post_.flush(client);
  if (events & EPOLLIN) return receive_some(client);
  if (events & (EPOLLHUP | EPOLLERR)) clients_.doom(client);
}

void Packets::receive_some(Client& client) {
  uint32_t uid = uid_of(client), losses = Patience::losses();
  for (int n = 0; n < kMostPerRound && !client.doomed && !client.leaving;) {
    if (core_.is_delayed(uid)) {
      client.paused = true;
      paused_.push_back(client.serial);
      return post_.watch(client);
    }
    if (Patience::losses() != losses) return;  // others wait; it goes on in its next turn
    InPacket packet;
    Received received = receive(client, packet);
    if (received == Received::kNothing) return;
    if (received == Received::kEnd) return clients_.doom(client);
    if (received == Received::kImpossible) return clients_.drop(client);
    core_.charge(uid);
    n += weight(packet.header.type);
    dispatch(client, packet);
  }
}

uint32_t Packets::uid_of(const Client& client) const {
  return client.stage == Stage::kStranger ? client.uid : core_.domain(client.domain).identity.uid;
}

void Packets::resume() {
  std::erase_if(paused_, [this](uint32_t serial) {
    Client* client = clients_.by_serial(serial);
    if (client != nullptr && core_.is_delayed(uid_of(*client))) return false;
    if (client != nullptr) {
      client->paused = false;
      post_.watch(*client);
    }
    return true;
  });
}

Packets::Received Packets::receive(const Client& client, InPacket& packet) {
  iovec parts[2] = {{&packet.header, sizeof packet.header}, {&packet.body, sizeof packet.body}};
  // Room for as many as there can be: what does not fit, the kernel would close.
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFdsInPacket * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = 2;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  ssize_t n = recvmsg(client.socket.get(), &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Received::kNothing;
  if (n < 0) return errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN ? Received::kEnd : Received::kImpossible;
  take_control(m, packet);
  packet.has_body = n == ssize_t(sizeof packet.header + sizeof packet.body);
  if (packet.fds.size() > shm::kMaxPacketFds) return Received::kEnd;
  bool is_whole = (n == ssize_t(sizeof packet.header) || packet.has_body) && !(m.msg_flags & MSG_TRUNC);
  return is_whole && packet.header.magic == shm::kMagic ? Received::kPacket : Received::kEnd;
}

void Packets::dispatch(Client& client, InPacket& packet) {
  uint16_t type = packet.header.type;
  shm::DeathPoint at_message("packet taken", type);
  // A hello of another version gets an answer that says so; so do requests for texts.
  bool is_understood = packet.header.version == shm::kProtocolVersion;
  if (type == shm::kHello) {
    if (client.stage == Stage::kReserved && packet.pid != 0) client.pid = packet.pid;
    registrar_.hello(client, packet);
    return name_service_.came_back(client);
  }
  if (TextService::serves(type)) return texts_.answer(client, packet.header);
  if (!is_understood) return clients_.doom(client);
  switch (type) {
    case shm::kReserve:
      return registrar_.reserve(client, packet);
    case shm::kRegion:
      return registrar_.region(client, packet);
    case shm::kAnnouncePair:
      return registrar_.announce_pair(client, packet);
    case shm::kSharersBell:
      return registrar_.sharers_bell(client, packet);
    case shm::kListenName:
      return name_service_.listen(client, packet);
    case shm::kName:
      return name_service_.name(client, packet);
    case shm::kChannel:
      return name_service_.channel(client, packet);
    case shm::kPass:
      return tickets_.pass(client, packet);
    case shm::kDeposit:
      return tickets_.deposit(client, packet);
    case shm::kClaim:
      return tickets_.claim(client, packet);
    case shm::kCarry:
      return tickets_.carry(client, packet);
    case shm::kSync:
      return post_.send(client, make_packet(shm::kSync));
    default:
      return clients_.doom(client);
  }
}

}  // namespace sluice::monitor
