// A socket pair over which descriptors are passed (SCM_RIGHTS).
#pragma once

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "harness.h"
#include "sockets.h"

namespace conformance {

struct Channel {
  int mine, theirs;
  Channel() {
    int ends[2];
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    mine = ends[0];
    theirs = ends[1];
  }
};

inline void pass(int channel, std::vector<int> fds) {
  char control[CMSG_SPACE(16 * sizeof(int))] = {}, byte = '!';
  iovec one{&byte, 1};
  msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  CHECK_EQ(sendmsg(channel, &message, 0), 1);
}

inline std::vector<int> take(int channel, int flags = 0) {
  char control[CMSG_SPACE(16 * sizeof(int))], byte;
  iovec one{&byte, 1};
  msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(channel, &message, flags), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  CHECK_TRUE(header != nullptr && header->cmsg_type == SCM_RIGHTS);
  std::vector<int> fds((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  memcpy(fds.data(), CMSG_DATA(header), fds.size() * sizeof(int));
  return fds;
}

inline void echo_to_end(int fd) {
  for (std::string piece; !(piece = read_once(fd)).empty();) write_all(fd, piece);
}

}  // namespace conformance
