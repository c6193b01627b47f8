#include "sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "harness.h"

namespace conformance {

std::atomic<int> signals_seen{0};

uint16_t Address::port() const {
  if (storage.ss_family == AF_INET)
    return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
}

std::string Address::text() const {
  char ip[INET6_ADDRSTRLEN] = "?";
  if (storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, ip, sizeof ip);
    return std::string(ip) + ":" + std::to_string(port());
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, ip, sizeof ip);
  return "[" + std::string(ip) + "]:" + std::to_string(port());
}

Address address_of(const char* ip, uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof *v4;
  } else {
    CHECK_EQ(inet_pton(AF_INET6, ip, &v6->sin6_addr), 1);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof *v6;
  }
  return address;
}

Address loopback(int family, uint16_t port) {
  return address_of(family == AF_INET ? "127.0.0.1" : "::1", port);
}

Address local_address(int fd) {
  Address address;
  CHECK_OK(getsockname(fd, address.get(), &address.size));
  return address;
}

Address peer_address(int fd) {
  Address address;
  CHECK_OK(getpeername(fd, address.get(), &address.size));
  return address;
}

int make_socket(int family, int flags) { return CHECK_OK(socket(family, SOCK_STREAM | flags, 0)); }

Listener make_listener(int family, int backlog, int flags) {
  int fd = make_socket(family, flags);
  Address address = loopback(family);
  CHECK_OK(bind(fd, address.get(), address.size));
  CHECK_OK(listen(fd, backlog));
  return {fd, local_address(fd).port()};
}

int connect_to(uint16_t port, int family) {
  int fd = make_socket(family);
  Address address = loopback(family, port);
  CHECK_OK(connect(fd, address.get(), address.size));
  return fd;
}

Pair make_pair(Listener listener) {
  int family = local_address(listener.fd).storage.ss_family;
  int client = connect_to(listener.port, family);
  return {client, CHECK_OK(accept(listener.fd, nullptr, nullptr))};
}

Pair make_pair(int family) {
  Listener listener = make_listener(family);
  Pair pair = make_pair(listener);
  CHECK_OK(close(listener.fd));
  return pair;
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) bytes.remove_prefix(CHECK_OK(write(fd, bytes.data(), bytes.size())));
}

std::string read_exactly(int fd, size_t count) {
  std::string bytes(count, 0);
  for (size_t got = 0; got < count;) {
    ssize_t n = CHECK_OK(read(fd, bytes.data() + got, count - got));
    if (n == 0) return bytes.substr(0, got);
    got += n;
  }
  return bytes;
}

std::string read_to_end(int fd) {
  std::string bytes;
  for (std::string piece; !(piece = read_once(fd)).empty();) bytes += piece;
  return bytes;
}

std::string read_once(int fd, size_t limit) {
  std::string bytes(limit, 0);
  bytes.resize(CHECK_OK(read(fd, bytes.data(), limit)));
  return bytes;
}

size_t fill(int fd, size_t chunk) {
  std::vector<char> buffer(chunk);
  size_t total = 0;
  for (;;) {
    fill_pattern(buffer.data(), chunk, total);
    ssize_t n = send(fd, buffer.data(), chunk, MSG_NOSIGNAL);
    if (n < 0) break;
    total += n;
  }
  CHECK_EQ(errno, EAGAIN);
  return total;
}

void set_nonblocking(int fd, bool on) {
  int flags = CHECK_OK(fcntl(fd, F_GETFL));
  CHECK_OK(fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

int socket_error(int fd) { return option(fd, SOL_SOCKET, SO_ERROR); }

short await(int fd, short events) {
  pollfd entry{fd, events, 0};
  CHECK_EQ(poll(&entry, 1, -1), 1);
  return entry.revents;
}

short ready(int fd, short events) {
  pollfd entry{fd, events, 0};
  CHECK_OK(poll(&entry, 1, 0));
  return entry.revents;
}

void reset(int fd) {
  linger now{1, 0};
  CHECK_OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now));
  CHECK_OK(close(fd));
}

void set_option(int fd, int level, int name, int value) {
  CHECK_OK(setsockopt(fd, level, name, &value, sizeof value));
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  CHECK_OK(getsockopt(fd, level, name, &value, &size));
  CHECK_EQ(size, sizeof value);
  return value;
}

int unread(int fd) {
  int count = -1;
  CHECK_OK(ioctl(fd, FIONREAD, &count));
  return count;
}

namespace {

// Two periods, so that a piece of up to one period is contiguous wherever it begins.
const std::vector<char>& pattern() {
  static const std::vector<char> bytes = [] {
    std::vector<char> made(2 * kPatternPeriod);
    uint32_t state = 1;
    for (size_t i = 0; i < kPatternPeriod; i++) {
      state = state * 1664525 + 1013904223;
      made[i] = made[i + kPatternPeriod] = static_cast<char>(state >> 24);
    }
    return made;
  }();
  return bytes;
}

}  // namespace

void fill_pattern(char* buffer, size_t size, uint64_t position) {
  for (size_t done = 0; done < size;) {
    size_t piece = std::min(size - done, kPatternPeriod);
    memcpy(buffer + done, pattern().data() + (position + done) % kPatternPeriod, piece);
    done += piece;
  }
}

bool matches_pattern(const char* buffer, size_t size, uint64_t position) {
  for (size_t done = 0; done < size;) {
    size_t piece = std::min(size - done, kPatternPeriod);
    const char* expected = pattern().data() + (position + done) % kPatternPeriod;
    if (memcmp(buffer + done, expected, piece) != 0) return false;
    done += piece;
  }
  return true;
}

int send_pattern(int fd, uint64_t total, size_t chunk) {
  std::vector<char> buffer(chunk);
  for (uint64_t sent = 0; sent < total;) {
    size_t size = std::min<uint64_t>(chunk, total - sent);
    fill_pattern(buffer.data(), size, sent);
    ssize_t n = send(fd, buffer.data(), size, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN)
      await(fd, POLLOUT);
    else if (n < 0)
      return -errno;
    else
      sent += n;
  }
  return 0;
}

int receive_pattern(int fd, uint64_t total, size_t chunk) {
  std::vector<char> buffer(chunk);
  for (uint64_t got = 0; got < total;) {
    ssize_t n = recv(fd, buffer.data(), std::min<uint64_t>(chunk, total - got), 0);
    if (n < 0 && errno == EAGAIN) {
      await(fd, POLLIN);
      continue;
    }
    if (n <= 0) return n ? -errno : -ENODATA;
    if (!matches_pattern(buffer.data(), n, got)) return -EILSEQ;
    got += n;
  }
  return 0;
}

uint64_t now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

void pause_ms(int ms) {
  timespec time{ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&time, nullptr);
}

void eventually(const std::function<bool()>& holds) {
  while (!holds()) pause_ms(1);
}

void await_sleep(pid_t thread) {
  std::string path = "/proc/" + std::to_string(thread) + "/stat";
  int in_a_row = 0;
  while (in_a_row < 3) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    size_t name_end = line.rfind(") ");
    bool asleep = name_end != line.npos && line[name_end + 2] == 'S';
    in_a_row = asleep ? in_a_row + 1 : 0;
    pause_ms(1);
  }
}

pid_t thread_id() { return syscall(SYS_gettid); }

void on_signal(int number, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  CHECK_OK(sigaction(number, &action, nullptr));
}

void count_signal(int) { signals_seen++; }

Worker::Worker(std::function<void()> body)
    : thread_([this, body = std::move(body)] {
        id_ = thread_id();
        body();
        done_ = true;
      }) {
  eventually([this] { return id_ != 0; });
}

void Worker::signal(int number) { syscall(SYS_tgkill, getpid(), id(), number); }

void Worker::signal_until_done(int number) {
  while (!done()) {
    signal(number);
    pause_ms(1);
  }
}

}  // namespace conformance
