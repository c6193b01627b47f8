// TCP over loopback, or a stream socket of AF_UNIX, as a plain program uses it. A failure ends the program with a message:
// a benchmark that goes on after one measures something else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "options.h"

namespace bench {

// IPv4 addresses, in host byte order.
constexpr uint32_t kLoopback = 0x7f000001;
constexpr uint32_t kAnyAddress = 0;

[[noreturn]] void die(const char* what);

// Owns one descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();

  int fd() const { return fd_; }
  void set_non_blocking() const;
  void send_all(const void* bytes, size_t size) const;
  // Returns 0 at the end of the stream, also after a reset: the peer may be killed at any time.
  size_t receive_some(void* bytes, size_t size) const;
  void receive_all(void* bytes, size_t size) const;
  // Like it, but false if the stream ends before.
  bool receive_message(void* bytes, size_t size) const;
  // Of a non-blocking socket: false if there is nothing to receive now.
  bool try_receive_some(void* bytes, size_t size, size_t* received) const;

 private:
  int fd_ = -1;
};

// Writes the port to `port_file`, if one is named, once connections can be made.
Socket listen_on(uint16_t port, const std::string& port_file, uint32_t address = kLoopback);
// Its path appears once connections can be made.
Socket listen_on(const std::string& path);
uint16_t local_port(const Socket& socket);
// Accepted and connected sockets of TCP have TCP_NODELAY.
Socket accept_from(const Socket& listener);
Socket connect_to(uint16_t port, uint32_t address = kLoopback);
Socket connect_to(const std::string& path);

// Where the options say.
Socket listen_on(const Options& options, uint32_t address = kLoopback);
Socket connect_to(const Options& options);

}  // namespace bench
