#include "tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace bench {
namespace {

constexpr int kBacklog = 1024;

sockaddr_in endpoint_of(uint32_t address, uint16_t port) {
  sockaddr_in endpoint{};
  endpoint.sin_family = AF_INET;
  endpoint.sin_port = htons(port);
  endpoint.sin_addr.s_addr = htonl(address);
  return endpoint;
}

sockaddr_un endpoint_of(const std::string& path) {
  sockaddr_un endpoint{};
  endpoint.sun_family = AF_UNIX;
  path.copy(endpoint.sun_path, sizeof endpoint.sun_path - 1);
  return endpoint;
}

Socket create_socket(int family = AF_INET) {
  Socket socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.fd() < 0) die("socket");
  return socket;
}

void enable(const Socket& socket, int level, int option) {
  const int on = 1;
  if (setsockopt(socket.fd(), level, option, &on, sizeof on) != 0) die("setsockopt");
}

// By rename, so that who waits for the file never reads half of it.
void write_port_file(const std::string& path, uint16_t port) {
  const std::string unfinished = path + ".tmp";
  FILE* file = std::fopen(unfinished.c_str(), "w");
  if (file == nullptr) die("port file");
  std::fprintf(file, "%d\n", port);
  if (std::fclose(file) != 0 || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    die("port file");
  }
}

void wait_until_writable(int fd) {
  pollfd wait{fd, POLLOUT, 0};
  if (poll(&wait, 1, -1) < 0 && errno != EINTR) die("poll");
}

}  // namespace

void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

void Socket::set_non_blocking() const {
  const int flags = fcntl(fd_, F_GETFL);
  if (flags < 0 || fcntl(fd_, F_SETFL, flags | O_NONBLOCK) != 0) die("fcntl");
}

void Socket::send_all(const void* bytes, size_t size) const {
  const char* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t sent = send(fd_, next, size, MSG_NOSIGNAL);
    if (sent >= 0) {
      next += sent;
      size -= static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      wait_until_writable(fd_);
    } else if (errno != EINTR) {
      die("send");
    }
  }
}

bool Socket::try_receive_some(void* bytes, size_t size, size_t* received) const {
  for (;;) {
    const ssize_t got = recv(fd_, bytes, size, 0);
    if (got >= 0 || errno == ECONNRESET) {
      *received = got > 0 ? static_cast<size_t>(got) : 0;
      return true;
    }
    if (errno == EAGAIN) return false;
    if (errno != EINTR) die("recv");
  }
}

size_t Socket::receive_some(void* bytes, size_t size) const {
  size_t received = 0;
  if (!try_receive_some(bytes, size, &received)) die("recv");
  return received;
}

bool Socket::receive_message(void* bytes, size_t size) const {
  char* next = static_cast<char*>(bytes);
  while (size > 0) {
    const size_t received = receive_some(next, size);
    if (received == 0) return false;
    next += received;
    size -= received;
  }
  return true;
}

void Socket::receive_all(void* bytes, size_t size) const {
  if (receive_message(bytes, size)) return;
  errno = ECONNRESET;
  die("recv");
}

Socket listen_on(uint16_t port, const std::string& port_file, uint32_t address) {
  Socket listener = create_socket();
  enable(listener, SOL_SOCKET, SO_REUSEADDR);
  const sockaddr_in endpoint = endpoint_of(address, port);
  if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&endpoint), sizeof endpoint) != 0) {
    die("bind");
  }
  if (listen(listener.fd(), kBacklog) != 0) die("listen");
  if (!port_file.empty()) write_port_file(port_file, local_port(listener));
  return listener;
}

Socket listen_on(const std::string& path) {
  Socket listener = create_socket(AF_UNIX);
  const std::string unfinished = path + ".tmp";
  const sockaddr_un endpoint = endpoint_of(unfinished);
  if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&endpoint), sizeof endpoint) != 0) {
    die("bind");
  }
  if (listen(listener.fd(), kBacklog) != 0) die("listen");
  if (std::rename(unfinished.c_str(), path.c_str()) != 0) die("rename");
  return listener;
}

Socket listen_on(const Options& options, uint32_t address) {
  if (!options.path.empty()) return listen_on(options.path);
  return listen_on(options.port, options.port_file, address);
}

uint16_t local_port(const Socket& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    die("getsockname");
  }
  return ntohs(address.sin_port);
}

namespace {

// There is one listener in each of these programs.
bool is_tcp(const Socket& listener) {
  static int family = -1;
  socklen_t size = sizeof family;
  if (family < 0 && getsockopt(listener.fd(), SOL_SOCKET, SO_DOMAIN, &family, &size) != 0) die("SO_DOMAIN");
  return family == AF_INET;
}

}  // namespace

Socket accept_from(const Socket& listener) {
  for (;;) {
    Socket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.fd() >= 0) {
      if (is_tcp(listener)) enable(socket, IPPROTO_TCP, TCP_NODELAY);
      return socket;
    }
    if (errno != EINTR && errno != ECONNABORTED) die("accept4");
  }
}

Socket connect_to(uint16_t port, uint32_t address) {
  Socket socket = create_socket();
  enable(socket, IPPROTO_TCP, TCP_NODELAY);
  const sockaddr_in endpoint = endpoint_of(address, port);
  if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&endpoint), sizeof endpoint) != 0) {
    die("connect");
  }
  return socket;
}

Socket connect_to(const std::string& path) {
  Socket socket = create_socket(AF_UNIX);
  const sockaddr_un endpoint = endpoint_of(path);
  if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&endpoint), sizeof endpoint) != 0) {
    die("connect");
  }
  return socket;
}

Socket connect_to(const Options& options) {
  return options.path.empty() ? connect_to(options.port) : connect_to(options.path);
}

}  // namespace bench
