// A socket pair of which one end is another process's, and messages over it.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "harness.h"
#include "sockets.h"

namespace conformance {

struct SocketPair {
  int here, there;
  explicit SocketPair(int flags = 0, int type = SOCK_STREAM) {
    int ends[2];
    CHECK_OK(socketpair(AF_UNIX, type | flags, 0, ends));
    here = ends[0];
    there = ends[1];
  }
};

// A child that has only the other end, while we have only ours.
template <class Body>
pid_t other_end(SocketPair& p, Body body) {
  pid_t child = in_child([&p, body] {
    CHECK_OK(close(p.here));
    body(p.there);
  });
  CHECK_OK(close(p.there));
  return child;
}

inline void echo(int fd) {
  for (std::string piece; !(piece = read_once(fd)).empty();) write_all(fd, piece);
}
inline void echo_some(int fd, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    std::string piece = read_once(fd, bytes - done);
    write_all(fd, piece);
    done += piece.size();
  }
}

// Bytes go to and fro, four at a time, until both sides have surely looked for each other.
inline void warm_up(int fd, int rounds = 200) {
  for (int i = 0; i < rounds; i++) {
    write_all(fd, "ping");
    CHECK_EQ(read_exactly(fd, 4), "ping");
  }
}

// For a child that echoes.
inline void hang_up(SocketPair& p, pid_t child) {
  CHECK_OK(shutdown(p.here, SHUT_WR));
  CHECK_EQ(read_once(p.here), "");
  CHECK_OK(close(p.here));
  CHECK_EQ(wait_exit(child), 0);
}

inline bool is_stopped(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.size() > name_end + 2 && text[name_end + 2] == 'T';
}

struct Received {
  std::string bytes;
  int fd = -1;
  pid_t sender = 0;
};

inline Received receive_with_control(int from, size_t most) {
  Received r;
  r.bytes.resize(most);
  iovec part{r.bytes.data(), most};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  r.bytes.resize(size_t(CHECK_OK(recvmsg(from, &m, 0))));
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_type == SCM_RIGHTS) memcpy(&r.fd, CMSG_DATA(c), sizeof r.fd);
    if (c->cmsg_type == SCM_CREDENTIALS) r.sender = reinterpret_cast<const ucred*>(CMSG_DATA(c))->pid;
  }
  return r;
}

inline void send_with_descriptor(int to, std::string bytes, int fd) {
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  *c = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  CHECK_EQ(sendmsg(to, &m, 0), bytes.size());
}

}  // namespace conformance
