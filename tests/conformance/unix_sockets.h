// Sockets of AF_UNIX with connections for tests, streams unless said otherwise: names in a directory that goes with the test, and the two
// ends of a connection in one process or in two.
#pragma once

#include <semaphore.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <functional>
#include <string>

#include "harness.h"

namespace conformance {

// An address as the kernel has it. A name that begins with a zero is abstract; empty: unnamed.
struct UnixAddress {
  sockaddr_un storage{};
  socklen_t size = sizeof storage;
  UnixAddress() { storage.sun_family = AF_UNIX; }
  explicit UnixAddress(const std::string& name);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::string name() const;
};

// The current directory, empty, until this goes.
class Directory {
 public:
  Directory();
  ~Directory();
  std::string path(const std::string& file) const { return path_ + "/" + file; }

 private:
  std::string path_;
};

std::string abstract_name();  // one that nobody else has

int unix_socket(int flags = 0, int type = SOCK_STREAM);
void bind_to(int fd, const std::string& name);
int try_connect(int fd, const std::string& name);
int unix_connect(const std::string& name, int type = SOCK_STREAM);
int unix_listen(const std::string& name, int backlog = 16, int flags = 0, int type = SOCK_STREAM);
int accept_one(int listener);
std::string local_name(int fd);
std::string peer_name(int fd);
socklen_t local_size(int fd);
socklen_t peer_size(int fd);
ucred credentials_of(int fd);  // SO_PEERCRED

struct UnixPair {
  int client;
  int server;
};
UnixPair unix_pair(const std::string& name, int type = SOCK_STREAM);  // both ends here

// What one process does after another: a test gives and takes turns.
class Turns {
 public:
  Turns();
  void give(int turn);
  void await(int turn);

 private:
  struct Shared {
    sem_t turns[8];
  };
  Shared* shared_;
};

// Runs the two ends of a connection by `name`: in two threads, or one of them in a process of its own.
void meet(Where where, const std::string& name, const std::function<void(int)>& client,
          const std::function<void(int)>& server, int type = SOCK_STREAM);

}  // namespace conformance
