#include "unix_sockets.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

namespace conformance {

namespace {
constexpr socklen_t kHead = offsetof(sockaddr_un, sun_path);

template <typename Call>
UnixAddress ask(int fd, Call call) {
  UnixAddress a;
  CHECK_OK(call(fd, a.get(), &a.size));
  return a;
}
}  // namespace

UnixAddress::UnixAddress(const std::string& name) : UnixAddress() {
  CHECK_TRUE(name.size() <= sizeof storage.sun_path);
  memcpy(storage.sun_path, name.data(), name.size());
  size = socklen_t(kHead + name.size() + (!name.empty() && name[0] != 0 ? 1 : 0));
}

std::string UnixAddress::name() const {
  if (size <= kHead) return "";
  if (storage.sun_path[0] != 0) return storage.sun_path;
  return {storage.sun_path, size - kHead};
}

Directory::Directory() {
  char name[] = "/tmp/sluice-conformance.XXXXXX";
  CHECK_TRUE(mkdtemp(name) != nullptr);
  path_ = name;
  CHECK_OK(chmod(name, 0755));
  CHECK_OK(chdir(name));
}

Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string abstract_name() {
  static std::atomic<int> count{0};
  return std::string(1, '\0') + "sluice-conformance-" + std::to_string(getpid()) + "-" + std::to_string(count++);
}

int unix_socket(int flags, int type) { return CHECK_OK(socket(AF_UNIX, type | flags, 0)); }

void bind_to(int fd, const std::string& name) {
  UnixAddress a(name);
  CHECK_OK(bind(fd, a.get(), a.size));
}

int try_connect(int fd, const std::string& name) {
  UnixAddress a(name);
  return connect(fd, a.get(), a.size);
}

int unix_connect(const std::string& name, int type) {
  int fd = unix_socket(0, type);
  CHECK_OK(try_connect(fd, name));
  return fd;
}

int unix_listen(const std::string& name, int backlog, int flags, int type) {
  int fd = unix_socket(flags, type);
  bind_to(fd, name);
  CHECK_OK(listen(fd, backlog));
  return fd;
}

int accept_one(int listener) { return CHECK_OK(accept(listener, nullptr, nullptr)); }

std::string local_name(int fd) { return ask(fd, getsockname).name(); }
std::string peer_name(int fd) { return ask(fd, getpeername).name(); }
socklen_t local_size(int fd) { return ask(fd, getsockname).size; }
socklen_t peer_size(int fd) { return ask(fd, getpeername).size; }

ucred credentials_of(int fd) {
  ucred c{};
  socklen_t size = sizeof c;
  CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &size));
  CHECK_EQ(size, sizeof c);
  return c;
}

UnixPair unix_pair(const std::string& name, int type) {
  int listener = unix_listen(name, 16, 0, type);
  UnixPair p{};
  p.client = unix_connect(name, type);
  p.server = accept_one(listener);
  CHECK_OK(close(listener));
  return p;
}

Turns::Turns() {
  void* p = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK_TRUE(p != MAP_FAILED);
  shared_ = static_cast<Shared*>(p);
  for (sem_t& s : shared_->turns) CHECK_OK(sem_init(&s, 1, 0));
}

void Turns::give(int turn) { CHECK_OK(sem_post(&shared_->turns[turn])); }

void Turns::await(int turn) {
  while (sem_wait(&shared_->turns[turn]) != 0) CHECK_EQ(errno, EINTR);
}

void meet(Where where, const std::string& name, const std::function<void(int)>& client,
          const std::function<void(int)>& server, int type) {
  Turns listening;
  auto connecting = [&] {
    listening.await(0);
    int fd = unix_connect(name, type);
    client(fd);
    close(fd);
  };
  auto accepting = [&] {
    int listener = unix_listen(name, 16, 0, type);
    listening.give(0);
    int fd = accept_one(listener);
    close(listener);
    server(fd);
    close(fd);
  };
  if (where == Where::kSameProcess) {
    std::thread other(connecting);
    accepting();
    other.join();
    return;
  }
  bool connects = where == Where::kPeerConnects;
  pid_t child = connects ? in_child(connecting) : in_child(accepting);
  connects ? accepting() : connecting();
  CHECK_EQ(wait_exit(child), 0);
}

}  // namespace conformance
