// Where a server of these tests is: a port of TCP, or the path of a socket of AF_UNIX.
#pragma once

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

class MeetingPlace {
 public:
  explicit MeetingPlace(const std::string& text = "0") {
    if (text[0] == '/') {
      auto* a = reinterpret_cast<sockaddr_un*>(&name_);
      a->sun_family = AF_UNIX;
      text.copy(a->sun_path, sizeof a->sun_path - 1);
      size_ = sizeof *a;
      return;
    }
    auto* a = reinterpret_cast<sockaddr_in*>(&name_);
    a->sin_family = AF_INET;
    a->sin_port = htons(uint16_t(atoi(text.c_str())));
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size_ = sizeof *a;
  }

  int make_socket() const { return socket(name_.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0); }
  int connect(int fd) const { return ::connect(fd, get(), size_); }
  // As a server does that may have been killed here before.
  int bind(int fd) const {
    int one = 1;
    if (is_path()) unlink(path());
    else setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return ::bind(fd, get(), size_);
  }
  std::string text_of(int listener) const {
    if (is_path()) return path();
    sockaddr_in a{};
    socklen_t length = sizeof a;
    getsockname(listener, reinterpret_cast<sockaddr*>(&a), &length);
    return std::to_string(ntohs(a.sin_port));
  }

 private:
  bool is_path() const { return name_.ss_family == AF_UNIX; }
  const char* path() const { return reinterpret_cast<const sockaddr_un*>(&name_)->sun_path; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name_); }
  sockaddr_storage name_{};
  socklen_t size_ = 0;
};
