// The other side for the target `shim`: an ordinary program with the shim, which does what it is told. Its shared memory
// may be changed under it (by the target, which plays a hostile peer so), and then it may do anything, and is ended.
//
//   shim_peer MEMORY NAME LIBRARY   starts peers (with the library, or "" for the kernel's), each time that one is wanted, and
//                                   ends the one before
//   shim_peer MEMORY NAME           is a peer
//
// MEMORY: descriptor of the memory with the stage. NAME: of the listeners of AF_UNIX.
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <new>
#include <string>

#include "tests/fuzz/stage.h"

namespace sluice::fuzz {
namespace {

class Peer {
 public:
  Peer(Stage& stage, const char* name) : stage_(stage), name_(name) {}

  [[noreturn]] void run() {
    uint32_t seen = stage_.ordered.number.load(std::memory_order_acquire);
    stage_.pid = getpid();
    stage_.ready.next();
    for (;;) {
      while (!stage_.ordered.await_other_than(seen, 10'000)) {}
      ++seen;
      Input in(stage_.bytes, stage_.count);
      stage_.result = follow(in);
      stage_.used = uint32_t(stage_.count - in.rest_bytes());
      stage_.notes = player_.notes();
      stage_.sent = player_.sent();
      stage_.done.next();
    }
  }

 private:
  int64_t follow(Input& in) {
    switch (stage_.order) {
      case Order::kConnect: return connect();
      case Order::kListen: return listen();
      case Order::kAccept: return accept();
      case Order::kAct: return player_.act(in), 0;
      case Order::kPing: return send(fd_, "p", 1, MSG_NOSIGNAL) == 1 ? 0 : -errno;
      case Order::kArrived: return int64_t(player_.arrived());
      case Order::kGreet: return greet();
      case Order::kEnd: break;
    }
    player_.end();
    return 0;
  }
  int64_t connect() {
    Place place(stage_.kind, "target", stage_.port);
    int fd = place.make_socket();
    if (fd < 0 || ::connect(fd, place.get(), place.size) != 0) return -errno;
    sockaddr_in own{};
    socklen_t size = sizeof own;
    if (stage_.kind == kTcp && getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0) stage_.port = ntohs(own.sin_port);
    fd_ = fd;
    player_.begin(fd, stage_.manner, stage_.manner == Manner::kAny);
    return 0;
  }
  int64_t listen() {
    int& listener = listeners_[stage_.kind];
    if (listener < 0) listener = Place(stage_.kind, name_, 0).listen(&ports_[stage_.kind]);
    stage_.port = ports_[stage_.kind];
    return listener >= 0 ? 0 : -errno;
  }
  int64_t greet() {
    char byte = 'g';
    if (send(fd_, &byte, 1, MSG_NOSIGNAL) != 1) return -errno;
    pollfd p{fd_, POLLIN, 0};
    return poll(&p, 1, 1000) == 1 && recv(fd_, &byte, 1, 0) == 1 ? 0 : -ETIMEDOUT;
  }
  int64_t accept() {
    pollfd p{listeners_[stage_.kind], POLLIN, 0};
    (void)poll(&p, 1, 1000);
    fd_ = p.revents != 0 ? ::accept(p.fd, nullptr, nullptr) : -1;
    if (fd_ < 0) return -ETIMEDOUT;
    player_.begin(fd_, stage_.manner, stage_.manner == Manner::kAny);
    return 0;
  }

  Stage& stage_;
  const char* name_;
  Player player_;
  int fd_ = -1;
  int listeners_[kKinds] = {-1, -1, -1};
  uint16_t ports_[kKinds] = {};
};

// Ends it, and what its shim has forked to carry connections on, which goes by the same memory.
void end(pid_t peer, pid_t spare) {
  std::string path = "/proc/self/task/" + std::to_string(getpid()) + "/children";
  for (bool any = true; any;) {
    any = false;
    FILE* children = fopen(path.c_str(), "r");
    for (int pid; children != nullptr && fscanf(children, "%d", &pid) == 1;) {
      if (pid == spare) continue;
      any = true;
      kill(pid, SIGKILL);
    }
    if (children != nullptr) fclose(children);
    waitpid(peer, nullptr, 0);
    for (pid_t pid = 1; any && pid > 0;) pid = waitpid(-1, nullptr, WNOHANG);
  }
}

// Starts one when it is wanted, and another before that, since a start takes long.
[[noreturn]] void start_peers(Stage& stage, char** words) {
  int gate[2] = {-1, -1};
  pid_t running = 0, spare = 0;
  auto start = [&] {
    if (pipe2(gate, 0) != 0) abort();
    spare = fork();
    if (spare != 0) return (void)close(gate[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(gate[0], 0);
    close(gate[0]);
    close(gate[1]);
    if (words[3][0] != 0) setenv("LD_PRELOAD", words[3], 1);
    execl(words[0], words[0], words[1], words[2], nullptr);
    _exit(127);
  };
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  start();
  for (uint32_t seen = 0;; ++seen) {
    while (!stage.wanted.await_other_than(seen, 10'000)) {}
    if (running != 0) end(running, spare);
    running = spare;
    (void)!write(gate[1], "", 1);
    close(gate[1]);
    start();
  }
}

}  // namespace
}  // namespace sluice::fuzz

int main(int argc, char** argv) {
  using namespace sluice::fuzz;
  if (argc < 3) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  void* memory = mmap(nullptr, sizeof(Stage), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
  if (memory == MAP_FAILED) return 2;
  Stage& stage = *static_cast<Stage*>(memory);
  if (argc > 3) start_peers(stage, argv);
  char byte;
  if (read(0, &byte, 1) != 1) return 0;
  Peer(stage, argv[2]).run();
}
