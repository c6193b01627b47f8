// Listeners, connections and loops around system calls that most tests need. Everything here
// fails the test when a call fails.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

namespace conformance {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  uint16_t port() const;
  std::string text() const;  // 127.0.0.1:80, [::1]:80
};

Address address_of(const char* ip, uint16_t port);
Address loopback(int family, uint16_t port = 0);
Address local_address(int fd);
Address peer_address(int fd);

struct Listener {
  int fd;
  uint16_t port;
};
Listener make_listener(int family = AF_INET, int backlog = 128, int flags = 0);

int make_socket(int family = AF_INET, int flags = 0);
int connect_to(uint16_t port, int family = AF_INET);

struct Pair {
  int client;
  int server;
};
Pair make_pair(int family = AF_INET);  // both ends in this process
Pair make_pair(Listener listener);

void write_all(int fd, std::string_view bytes);
std::string read_exactly(int fd, size_t count);
std::string read_to_end(int fd);
std::string read_once(int fd, size_t limit = 65536);
size_t fill(int fd, size_t chunk = 4096);  // writes pattern until EAGAIN; fd is non-blocking
void set_nonblocking(int fd, bool on = true);
int socket_error(int fd);           // SO_ERROR, which it clears
short await(int fd, short events);  // poll() without time-out; revents
short ready(int fd, short events);  // poll() that does not wait
void reset(int fd);                 // close that sends RST
void set_option(int fd, int level, int name, int value);
int option(int fd, int level, int name);
int unread(int fd);  // FIONREAD

// Byte i of every long transfer is pattern(i): a lost, doubled or swapped piece shows.
constexpr size_t kPatternPeriod = 65521;
void fill_pattern(char* buffer, size_t size, uint64_t position);
bool matches_pattern(const char* buffer, size_t size, uint64_t position);
// Both return 0 or -errno (-EILSEQ: wrong bytes, -ENODATA: end too early).
int send_pattern(int fd, uint64_t total, size_t chunk);
int receive_pattern(int fd, uint64_t total, size_t chunk);

uint64_t now_ms();
void pause_ms(int ms);                                // between two looks, never instead of one
void eventually(const std::function<bool()>& holds);  // the watchdog is the limit
void await_sleep(pid_t thread);                       // a thread of this process, or a process
pid_t thread_id();

void on_signal(int number, void (*handler)(int), int flags = 0);
void count_signal(int);  // a handler
extern std::atomic<int> signals_seen;

// A thread whose kernel id is known, to wait until it sleeps and to send it signals.
class Worker {
 public:
  explicit Worker(std::function<void()> body);
  ~Worker() { join(); }
  pid_t id() const { return id_; }
  bool done() const { return done_; }
  void await_sleep() const { conformance::await_sleep(id_); }
  void signal(int number);
  void signal_until_done(int number);
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  pthread_t handle() { return thread_.native_handle(); }

 private:
  std::atomic<pid_t> id_{0};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace conformance
