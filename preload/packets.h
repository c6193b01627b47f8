// Packets to and from the coordinator (shm/protocol.h), and the descriptors that come with them.
#pragma once

#include <sys/socket.h>

#include "shm/protocol.h"

namespace sluice::preload {

struct ReceivedPacket {
  shm::Packet packet;
  int fds[shm::kMaxPacketFds];
  int fd_count = 0;
  shm::NameBody body;
  bool has_body = false;

  void close_all();  // what came with it
};

inline shm::Packet make_packet(uint16_t type, shm::DomainId domain, uint32_t value = 0, uint32_t value2 = 0,
                               uint32_t reserved = 0) {
  return {shm::kMagic, shm::kProtocolVersion, type, 0, domain, value, value2, reserved};
}

// `who`: as what we send it, which the kernel checks; null: as what we are. 0 or -errno.
[[nodiscard]] int send_packet(int socket, const shm::Packet& p, const int* fds, int count, const ucred* who = nullptr,
                              const shm::NameBody* body = nullptr);
// 0, or -errno (-ENOTCONN at the end). Descriptors arrive at high numbers.
[[nodiscard]] int receive_packet(int socket, ReceivedPacket& out, int flags);

}  // namespace sluice::preload
