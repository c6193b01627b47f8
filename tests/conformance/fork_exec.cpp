// Connections and listeners over fork, exec and spawn, as servers use them.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

struct Pipe {
  int ends[2];
  Pipe() { CHECK_OK(pipe(ends)); }
  void signal() { write_all(ends[1], "!"); }
  void await() { CHECK_EQ(read_exactly(ends[0], 1), "!"); }
};

void echo_to_end(int fd) {
  for (std::string piece; !(piece = read_once(fd)).empty();) write_all(fd, piece);
}

void serve_one(int listener) {
  int fd = CHECK_OK(accept(listener, nullptr, nullptr));
  echo_to_end(fd);
  CHECK_OK(close(fd));
}

void visit(uint16_t port) {
  int fd = connect_to(port);
  write_all(fd, "hello");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(read_to_end(fd), "hello");
  CHECK_OK(close(fd));
}

// Processes that accept at one listener until the test ends.
class Workers {
 public:
  Workers(int count, const std::function<void()>& serve) {
    for (int i = 0; i < count; i++) pids_.push_back(in_child([&] {
      for (;;) serve();
    }));
  }
  ~Workers() {
    for (pid_t pid : pids_) {
      CHECK_OK(kill(pid, SIGKILL));
      CHECK_EQ(wait_exit(pid), 128 + SIGKILL);
    }
  }

 private:
  std::vector<pid_t> pids_;
};

// Keeps one worker busy: it has read what we sent, and waits for more.
int hold_a_worker(uint16_t port) {
  int fd = connect_to(port);
  write_all(fd, "held");
  CHECK_EQ(read_exactly(fd, 4), "held");
  return fd;
}

void serve_one_asked_by_poll(int listener) {
  set_nonblocking(listener);
  pollfd p{listener, POLLIN, 0};
  CHECK_OK(poll(&p, 1, -1));
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0 && errno == EAGAIN) return;  // a sibling was faster
  CHECK_OK(fd);
  set_nonblocking(fd, false);
  echo_to_end(fd);
  CHECK_OK(close(fd));
}

void serve_one_asked_by_select(int listener) {
  set_nonblocking(listener);
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(listener, &readable);
  CHECK_OK(select(listener + 1, &readable, nullptr, nullptr, nullptr));
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0 && errno == EAGAIN) return;
  CHECK_OK(fd);
  set_nonblocking(fd, false);
  echo_to_end(fd);
  CHECK_OK(close(fd));
}

void serve_one_asked_by_epoll(int listener) {
  static EpollSet* set = nullptr;
  if (set == nullptr) {
    set_nonblocking(listener);
    set = new EpollSet;
    set->add(listener, EPOLLIN);
  }
  epoll_event event;
  CHECK_OK(epoll_wait(set->fd, &event, 1, -1));
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0 && errno == EAGAIN) return;
  CHECK_OK(fd);
  set_nonblocking(fd, false);
  echo_to_end(fd);
  CHECK_OK(close(fd));
}

void serve_one_asking_often(int listener) {
  set_nonblocking(listener);
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0 && errno == EAGAIN) return pause_ms(1);
  CHECK_OK(fd);
  set_nonblocking(fd, false);
  echo_to_end(fd);
  CHECK_OK(close(fd));
}

// Two workers, both busy, and connections that wait. One worker becomes free: it has to serve them
// all, wherever they waited.
void free_worker_serves_all(const std::function<void(int)>& serve) {
  Listener listener = make_listener();
  Workers workers(2, [&] { serve(listener.fd); });
  Pipe go;
  std::vector<pid_t> visitors;
  for (int i = 0; i < 6; i++) visitors.push_back(in_child([&] {
    go.await();
    visit(listener.port);
  }));
  int held = hold_a_worker(listener.port), other = hold_a_worker(listener.port);
  for (int i = 0; i < 6; i++) go.signal();
  std::vector<int> fds;
  for (int i = 0; i < 6; i++) {
    fds.push_back(connect_to(listener.port));
    write_all(fds.back(), "waiting");
    CHECK_OK(shutdown(fds.back(), SHUT_WR));
  }
  CHECK_OK(close(held));
  for (int fd : fds) CHECK_EQ(read_to_end(fd), "waiting");
  for (pid_t visitor : visitors) CHECK_EQ(wait_exit(visitor), 0);
  write_all(other, "still here");
  CHECK_EQ(read_exactly(other, 10), "still here");
}

// Runs `cat` with the connection as stdin and stdout, as inetd would.
pid_t spawn_cat(int fd, char** environment = environ) {
  pid_t pid = CHECK_OK(fork());
  if (pid) return pid;
  dup2(fd, 0);
  dup2(fd, 1);
  close_range(3, ~0u, 0);
  const char* const argv[] = {"cat", nullptr};
  execvpe("cat", const_cast<char**>(argv), environment);
  _exit(127);
}

using Exec = int (*)(char** argv, char** envp);

// A child that becomes `cat` with the connection as stdin and stdout.
void cat_by(Where where, Exec exec) {
  auto [fd, peer] = connect_peer(where);
  peer.send("before, ");
  await(fd, POLLIN);
  pid_t child = in_child([fd = fd, exec] {
    CHECK_OK(dup2(fd, 0));
    CHECK_OK(dup2(fd, 1));
    CHECK_OK(close_range(3, ~0u, 0));
    char name[] = "cat";
    char* argv[] = {name, nullptr};
    exec(argv, environ);
    _exit(127);
  });
  CHECK_OK(close(fd));
  peer.send("after");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(100), "before, after");
  CHECK_EQ(wait_exit(child), 0);
}

void still_works(int fd, Peer& peer) {
  peer.send("hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
  write_all(fd, "world");
  CHECK_EQ(peer.receive(5), "world");
}

struct SpawnActions {
  posix_spawn_file_actions_t actions;
  SpawnActions() { CHECK_EQ(posix_spawn_file_actions_init(&actions), 0); }
  ~SpawnActions() { posix_spawn_file_actions_destroy(&actions); }
  SpawnActions& dup(int from, int to) {
    CHECK_EQ(posix_spawn_file_actions_adddup2(&actions, from, to), 0);
    return *this;
  }
  SpawnActions& close(int fd) {
    CHECK_EQ(posix_spawn_file_actions_addclose(&actions, fd), 0);
    return *this;
  }
  SpawnActions& close_from(int fd) {
    CHECK_EQ(posix_spawn_file_actions_addclosefrom_np(&actions, fd), 0);
    return *this;
  }
  int spawn(pid_t& pid, std::vector<const char*> words) {
    words.push_back(nullptr);
    return posix_spawnp(&pid, words[0], &actions, nullptr, const_cast<char**>(words.data()), environ);
  }
};

}  // namespace

PROGRAM(serve_inherited_listener) { return serve_one(std::stoi(args[0])), 0; }

PROGRAM(connect_inherited) {
  int fd = std::stoi(args[0]);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(uint16_t(std::stoi(args[1])));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_OK(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to));
  write_all(fd, "hello");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(read_to_end(fd), "hello");
  return 0;
}

PROGRAM(echo_inherited) { return echo_to_end(std::stoi(args[0])), 0; }

// What is inherited works with epoll and flags too, not with read and write alone.
PROGRAM(inspect_inherited) {
  int fd = std::stoi(args[0]);
  CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
  CHECK_EQ(peer_address(fd).text(), args[1]);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
  EpollSet set;
  set.add(fd, EPOLLIN | EPOLLRDHUP);
  CHECK_EQ(set.wait_one(fd), EPOLLIN);
  CHECK_EQ(unread(fd), 6);
  CHECK_EQ(read_once(fd), "unread");
  write_all(fd, "thanks");
  return 0;
}

// Becomes another program in the same process, as nginx does for a binary upgrade.
PROGRAM(exec_echo) {
  execl("/proc/self/exe", program_invocation_name, "--program=echo_inherited", args[0].c_str(),
        nullptr);
  return 127;
}

PROGRAM(connect_and_say) {
  write_all(connect_to(std::stoi(args[0])), args[1]);
  return 0;
}

TEST("a child connects anew") {
  Listener listener = make_listener();
  make_pair(listener);
  pid_t child = in_child([&] { visit(listener.port); });
  serve_one(listener.fd);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a child listens anew, the parent connects") {
  int ends[2];
  CHECK_OK(pipe(ends));
  pid_t child = in_child([&] {
    Listener listener = make_listener();
    write_all(ends[1], std::string(reinterpret_cast<char*>(&listener.port), 2));
    serve_one(listener.fd);
  });
  uint16_t port;
  CHECK_EQ(read(ends[0], &port, 2), 2);
  visit(port);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a child connects to its parent and the parent to its child at the same time") {
  Listener listener = make_listener();
  pid_t child = in_child([&] {
    int fd = connect_to(listener.port);
    CHECK_EQ(receive_pattern(fd, 4 << 20, 10'007), 0);
    CHECK_EQ(send_pattern(fd, 4 << 20, 10'009), 0);
  });
  int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(send_pattern(fd, 4 << 20, 9'001), 0);
  CHECK_EQ(receive_pattern(fd, 4 << 20, 9'007), 0);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("parent and child both accept on one listener") {
  Listener listener = make_listener();
  Pipe ready;
  pid_t child = in_child([&] {
    serve_one(listener.fd);
    ready.await();
    serve_one(listener.fd);
  });
  visit(listener.port);
  pid_t visitor = in_child([&] { visit(listener.port); });
  serve_one(listener.fd);
  CHECK_EQ(wait_exit(visitor), 0);
  ready.signal();
  visit(listener.port);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a listener lives on in the child when the parent closes it") {
  Listener listener = make_listener();
  pid_t child = in_child([&] { serve_one(listener.fd); });
  CHECK_OK(close(listener.fd));
  visit(listener.port);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a connection waits in the backlog until a later child accepts it") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  write_all(client, "early");
  CHECK_OK(shutdown(client, SHUT_WR));
  CHECK_EQ(wait_exit(in_child([&] { serve_one(listener.fd); })), 0);
  CHECK_EQ(read_to_end(client), "early");
}

TEST("what a client wrote and closed before the fork reaches the child that accepts") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  write_all(client, "left behind");
  CHECK_OK(close(client));
  pid_t child = in_child([&] {
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    CHECK_EQ(read_to_end(fd), "left behind");
  });
  CHECK_EQ(wait_exit(child), 0);
}

TEST("what waited at a worker that closed its listener and ended goes to its sibling") {
  Listener listener = make_listener(AF_INET, 128, SOCK_NONBLOCK);
  int told[2], go[2];
  CHECK_OK(pipe(told));
  CHECK_OK(pipe(go));
  pid_t leaving = in_child([&] {
    CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EAGAIN);  // it accepts here
    write_all(told[1], "!");
    CHECK_EQ(await(listener.fd, POLLIN), POLLIN);
    CHECK_OK(close(listener.fd));
  });
  pid_t staying = in_child([&] {
    CHECK_EQ(read_exactly(go[0], 1), "!");
    int fd = accept(listener.fd, nullptr, nullptr);
    write_all(told[1], "!");  // by now the other one's end is known
    if (fd < 0) CHECK_EQ(await(listener.fd, POLLIN), POLLIN);
    if (fd < 0) fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    write_all(fd, read_exactly(fd, 5));
  });
  CHECK_OK(close(listener.fd));
  CHECK_EQ(read_exactly(told[0], 1), "!");
  int fd = connect_to(listener.port);
  write_all(fd, "hello");
  CHECK_EQ(wait_exit(leaving), 0);
  write_all(go[1], "!");
  CHECK_EQ(read_exactly(told[0], 1), "!");
  CHECK_EQ(read_exactly(fd, 5), "hello");
  CHECK_EQ(wait_exit(staying), 0);
}

TEST("a pre-fork server of four children serves 200 connections") {
  Listener listener = make_listener();
  std::vector<pid_t> children;
  for (int i = 0; i < 4; i++)
    children.push_back(in_child([&] {
      for (;;) serve_one(listener.fd);
    }));
  for (int i = 0; i < 200; i++) visit(listener.port);
  for (pid_t child : children) {
    CHECK_OK(kill(child, SIGTERM));
    CHECK_EQ(wait_exit(child), 128 + SIGTERM);
  }
}

TEST("a worker that becomes free serves what waited for a busy one") {
  free_worker_serves_all(serve_one);
}

TEST("a worker that polls serves what waited for a busy one") {
  free_worker_serves_all(serve_one_asked_by_poll);
}

TEST("a worker that selects serves what waited for a busy one") {
  free_worker_serves_all(serve_one_asked_by_select);
}

TEST("a worker that waits in epoll serves what waited for a busy one") {
  free_worker_serves_all(serve_one_asked_by_epoll);
}

TEST("a worker that asks now and then serves what waited for a busy one") {
  free_worker_serves_all(serve_one_asking_often);
}

TEST("50 connections are served while one of four workers is stuck") {
  Listener listener = make_listener();
  Pipe unstick;
  Workers workers(4, [&] {
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    std::string said = read_once(fd);
    if (said == "stick") unstick.await();
    write_all(fd, said);
    CHECK_OK(close(fd));
  });
  int stuck = connect_to(listener.port);
  write_all(stuck, "stick");
  std::vector<int> fds;
  for (int i = 0; i < 50; i++) {
    fds.push_back(connect_to(listener.port));
    write_all(fds.back(), "hello");
  }
  for (int fd : fds) CHECK_EQ(read_to_end(fd), "hello");
  CHECK_EQ(ready(stuck, POLLIN), 0);
  unstick.signal();
  CHECK_EQ(read_to_end(stuck), "stick");
}

TEST("one poll waits for connections that wait for a busy worker and an idle one") {
  Listener listener = make_listener();
  Workers workers(3, [&] { serve_one(listener.fd); });
  int held[] = {hold_a_worker(listener.port), hold_a_worker(listener.port), hold_a_worker(listener.port)};
  std::vector<pollfd> polled;
  for (int i = 0; i < 20; i++) {
    int fd = connect_to(listener.port);
    write_all(fd, "hello");
    CHECK_OK(shutdown(fd, SHUT_WR));
    polled.push_back({fd, POLLIN, 0});
  }
  CHECK_OK(close(held[1]));
  for (size_t left = polled.size(); left > 0;) {
    CHECK_OK(poll(polled.data(), polled.size(), -1));
    for (pollfd& p : polled) {
      if (p.fd < 0 || p.revents == 0) continue;
      CHECK_EQ(read_to_end(p.fd), "hello");
      CHECK_OK(close(p.fd));
      p.fd = -1;
      left--;
    }
  }
}

TEST("what was written and closed reaches the worker that is idle") {
  Listener listener = make_listener();
  Pipe heard;
  Workers workers(2, [&] {
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    for (std::string piece; !(piece = read_once(fd)).empty();) {
      if (piece == "heard?") heard.signal();
      else write_all(fd, piece);
    }
    CHECK_OK(close(fd));
  });
  int held = hold_a_worker(listener.port), other = hold_a_worker(listener.port);
  for (int i = 0; i < 6; i++) {
    int fd = connect_to(listener.port);
    write_all(fd, "heard?");
    CHECK_OK(close(fd));
  }
  CHECK_OK(close(held));
  for (int i = 0; i < 6; i++) {
    while (ready(heard.ends[0], POLLIN) == 0) visit(listener.port);
    heard.await();
  }
  CHECK_OK(close(other));
}

TEST("threads read from connections that wait for a busy worker") {
  Listener listener = make_listener();
  Workers workers(2, [&] { serve_one(listener.fd); });
  int held = hold_a_worker(listener.port), other = hold_a_worker(listener.port);
  std::vector<std::unique_ptr<Worker>> threads;
  for (int i = 0; i < 8; i++)
    threads.push_back(std::make_unique<Worker>([&] {
      for (int n = 0; n < 3; n++) visit(listener.port);
    }));
  for (auto& thread : threads) thread->await_sleep();
  CHECK_OK(close(held));
  for (auto& thread : threads) thread->join();
  CHECK_OK(close(other));
}

TEST("a worker that is killed leaves nothing behind that waits") {
  Listener listener = make_listener();
  Workers workers(1, [&] { serve_one(listener.fd); });
  pid_t victim = in_child([&] {
    for (;;) serve_one(listener.fd);
  });
  int held = hold_a_worker(listener.port), other = hold_a_worker(listener.port);
  std::vector<int> fds;
  for (int i = 0; i < 8; i++) {
    fds.push_back(connect_to(listener.port));
    write_all(fds.back(), "waiting");
    CHECK_OK(shutdown(fds.back(), SHUT_WR));
  }
  CHECK_OK(kill(victim, SIGKILL));
  CHECK_EQ(wait_exit(victim), 128 + SIGKILL);
  CHECK_OK(close(held));
  CHECK_OK(close(other));
  for (int fd : fds) CHECK_EQ(read_to_end(fd), "waiting");
}

TEST("a pre-fork server loses children and serves on") {
  Listener listener = make_listener();
  auto serve = [&] {
    for (;;) serve_one(listener.fd);
  };
  pid_t children[] = {in_child(serve), in_child(serve), in_child(serve)};
  for (int i = 0; i < 30; i++) visit(listener.port);
  for (int dead : {0, 1}) {
    await_sleep(children[dead]);
    CHECK_OK(kill(children[dead], SIGKILL));
    CHECK_EQ(wait_exit(children[dead]), 128 + SIGKILL);
    for (int i = 0; i < 30; i++) visit(listener.port);
  }
}

TEST("a server forks per connection and closes its own copy") {
  Listener listener = make_listener();
  pid_t server = in_child([&] {
    on_signal(SIGCHLD, SIG_IGN);
    for (;;) {
      int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
      in_child([&] {
        CHECK_OK(close(listener.fd));
        echo_to_end(fd);
      });
      CHECK_OK(close(fd));
    }
  });
  for (int i = 0; i < 30; i++) visit(listener.port);
  CHECK_OK(kill(server, SIGKILL));
  CHECK_EQ(wait_exit(server), 128 + SIGKILL);
}

TEST_EVERYWHERE("forks for snapshots do not disturb a busy connection") {
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  constexpr uint64_t kTotal = 16 << 20;
  Worker writer([fd = fd] { CHECK_EQ(send_pattern(fd, kTotal, 10'007), 0); });
  Worker reader([fd = fd] { CHECK_EQ(receive_pattern(fd, kTotal, 20'011), 0); });
  for (int i = 0; i < 20; i++) CHECK_EQ(wait_exit(in_child([] {})), 0);
  writer.join();
  reader.join();
}

TEST_EVERYWHERE("a grandchild serves what its grandparent accepted") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = in_child([fd = fd] {
    pid_t grandchild = in_child([fd] { echo_to_end(fd); });
    CHECK_OK(close(fd));
    CHECK_EQ(wait_exit(grandchild), 0);
  });
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("a child writes much while the parent reads") {
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  pid_t child = in_child([fd = fd] { CHECK_EQ(send_pattern(fd, 8 << 20, 10'007), 0); });
  CHECK_EQ(receive_pattern(fd, 8 << 20, 9'001), 0);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("both ends of a connection divide between parent and child") {
  auto [client, server] = make_pair();
  pid_t child = in_child([client = client, server = server] {
    CHECK_OK(close(client));
    echo_to_end(server);
  });
  CHECK_OK(close(server));
  write_all(client, "hello");
  CHECK_EQ(read_exactly(client, 5), "hello");
  CHECK_OK(shutdown(client, SHUT_WR));
  CHECK_EQ(read_once(client), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("an exec'ed program accepts on a listener that it inherits by number") {
  Listener listener = make_listener();
  pid_t child =
      spawn_program("serve_inherited_listener", {std::to_string(listener.fd)}, {listener.fd});
  visit(listener.port);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("an exec'ed program takes over a listener with connections waiting") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  write_all(client, "early");
  CHECK_OK(shutdown(client, SHUT_WR));
  pid_t child =
      spawn_program("serve_inherited_listener", {std::to_string(listener.fd)}, {listener.fd});
  CHECK_OK(close(listener.fd));
  CHECK_EQ(read_to_end(client), "early");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("an exec'ed program goes on with a connection that it inherits") {
  auto [fd, peer] = connect_peer(where);
  peer.send("unread before exec, ");
  await(fd, POLLIN);
  pid_t child = spawn_program("echo_inherited", {std::to_string(fd)}, {fd});
  CHECK_OK(close(fd));
  peer.send("sent after it");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(100), "unread before exec, sent after it");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("flags, options, addresses and epoll hold over exec") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  peer.send("unread");
  eventually([fd = fd] { return unread(fd) == 6; });
  pid_t child =
      spawn_program("inspect_inherited", {std::to_string(fd), peer_address(fd).text()}, {fd});
  CHECK_EQ(peer.receive(6), "thanks");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a process that execs itself keeps its connection") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = spawn_program("exec_echo", {std::to_string(fd)}, {fd});
  CHECK_OK(close(fd));
  peer.send("over two execs");
  CHECK_EQ(peer.receive(14), "over two execs");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("cat echoes a connection that is its stdin and stdout") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = spawn_cat(fd);
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("cat echoes a connection even with an empty environment") {
  auto [fd, peer] = connect_peer(where);
  char* nothing[] = {nullptr};
  peer.send("before, ");
  await(fd, POLLIN);
  pid_t child = spawn_cat(fd, nothing);
  CHECK_OK(close(fd));
  peer.send("after");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(100), "before, after");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("parent and exec'ed child share a connection") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = spawn_program("echo_inherited", {std::to_string(fd)}, {fd});
  peer.send("for the child");
  CHECK_EQ(peer.receive(13), "for the child");
  write_all(fd, "from the parent");
  CHECK_EQ(peer.receive(15), "from the parent");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(child), 0);
  write_all(fd, "still open");
  CHECK_EQ(peer.receive(10), "still open");
}

TEST_EVERYWHERE("exec closes a connection with FD_CLOEXEC") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
  Pipe hold;
  pid_t child = in_child([&] {
    CHECK_OK(dup2(hold.ends[0], 0));
    CHECK_OK(close(hold.ends[1]));
    execlp("cat", "cat", nullptr);
  });
  CHECK_OK(close(fd));
  CHECK_EQ(peer.receive(1), "");
  CHECK_OK(close(hold.ends[1]));
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("execl passes a connection on") {
  cat_by(where, [](char** argv, char**) { return execl("/bin/cat", argv[0], nullptr); });
}

TEST_EVERYWHERE("execlp passes a connection on") {
  cat_by(where, [](char** argv, char**) { return execlp("cat", argv[0], nullptr); });
}

TEST_EVERYWHERE("execle passes a connection on") {
  cat_by(where, [](char** argv, char** envp) {
    return execle("/bin/cat", argv[0], static_cast<char*>(nullptr), envp);
  });
}

TEST_EVERYWHERE("execv passes a connection on") {
  cat_by(where, [](char** argv, char**) { return execv("/bin/cat", argv); });
}

TEST_EVERYWHERE("execvp passes a connection on") {
  cat_by(where, [](char** argv, char**) { return execvp("cat", argv); });
}

TEST_EVERYWHERE("fexecve passes a connection on") {
  cat_by(where, [](char** argv, char** envp) {
    return fexecve(open("/bin/cat", O_RDONLY | O_CLOEXEC), argv, envp);
  });
}

TEST_EVERYWHERE("execveat passes a connection on") {
  cat_by(where, [](char** argv, char** envp) {
    return execveat(open("/bin", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "cat", argv, envp, 0);
  });
}

TEST_EVERYWHERE("the system call passes a connection on") {
  cat_by(where, [](char** argv, char** envp) {
    return int(syscall(SYS_execve, "/bin/cat", argv, envp));
  });
}

TEST_EVERYWHERE("the arguments and the environment of execle arrive") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = in_child([fd = fd] {
    CHECK_OK(dup2(fd, 1));
    const char* const envp[] = {"WORD=from the environment", nullptr};
    execle("/bin/sh", "sh", "-c", "echo \"$0 $1 $WORD\"", "one", "two", static_cast<char*>(nullptr), envp);
  });
  CHECK_OK(close(fd));
  CHECK_EQ(peer.receive(100), "one two from the environment\n");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a failed exec leaves the connection as it was") {
  auto [fd, peer] = connect_peer(where);
  peer.send("hello");
  CHECK_ERRNO(execl("/nonexistent", "nonexistent", nullptr), ENOENT);
  CHECK_EQ(read_exactly(fd, 5), "hello");
  write_all(fd, "world");
  CHECK_EQ(peer.receive(5), "world");
}

TEST_EVERYWHERE("an exec that fails in the kernel leaves the connection as it was") {
  auto [fd, peer] = connect_peer(where);
  peer.send("unread, ");
  await(fd, POLLIN);
  int copy = CHECK_OK(dup(fd));
  CHECK_ERRNO(execl("/etc/passwd", "passwd", nullptr), EACCES);
  CHECK_ERRNO(execlp("no such program", "no such program", nullptr), ENOENT);
  std::string long_word(1 << 20, 'x');
  CHECK_ERRNO(execl("/bin/true", "true", long_word.c_str(), nullptr), E2BIG);
  peer.send("sent after it");
  CHECK_EQ(read_exactly(copy, 21), "unread, sent after it");
  still_works(fd, peer);
  CHECK_OK(close(fd));
  still_works(copy, peer);
  pid_t child = spawn_cat(copy);
  CHECK_OK(close(copy));
  peer.send("and over an exec");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(100), "and over an exec");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a listener accepts on after an exec that fails") {
  Listener listener = make_listener();
  EpollSet set;
  set.add(listener.fd, EPOLLIN);
  CHECK_ERRNO(execl("/etc/passwd", "passwd", nullptr), EACCES);
  pid_t child = in_child([&] {
    for (int i = 0; i < 3; i++) visit(listener.port);
  });
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(set.wait_one(listener.fd), EPOLLIN);
    serve_one(listener.fd);
  }
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("an exec'ed program hears that the peer was killed") {
  auto [fd, peer] = connect_peer(where);
  if (!peer.is_process()) return;
  pid_t child = spawn_cat(fd);
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.kill();
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("an exec'ed program is killed and the peer hears the end") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = spawn_cat(fd);
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  CHECK_OK(kill(child, SIGKILL));
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("a program that inherits a connection without using it takes nothing of it") {
  auto [fd, peer] = connect_peer(where);
  Pipe hold;
  pid_t child = in_child([&] {
    CHECK_OK(dup2(hold.ends[0], 0));
    CHECK_OK(close(hold.ends[1]));
    execlp("cat", "cat", nullptr);
  });
  for (int i = 0; i < 20; i++) still_works(fd, peer);
  peer.shutdown(SHUT_WR);
  CHECK_EQ(read_once(fd), "");
  CHECK_OK(close(hold.ends[1]));
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a program that inherits a connection keeps it open") {
  auto [fd, peer] = connect_peer(where);
  Pipe hold;
  pid_t child = in_child([&] {
    CHECK_OK(dup2(hold.ends[0], 0));
    CHECK_OK(close(hold.ends[1]));
    execlp("cat", "cat", nullptr);
  });
  CHECK_OK(close(fd));
  peer.send("nobody reads this");
  CHECK_EQ(kill(child, 0), 0);
  CHECK_OK(close(hold.ends[1]));
  CHECK_EQ(wait_exit(child), 0);
}

TEST("an exec'ed program connects with a socket that it inherits") {
  Listener listener = make_listener();
  int fd = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  pid_t child = spawn_program("connect_inherited", {std::to_string(fd), std::to_string(listener.port)}, {fd});
  CHECK_OK(close(fd));
  serve_one(listener.fd);
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("posix_spawn gives a connection to a program as stdin and stdout") {
  auto [fd, peer] = connect_peer(where);
  pid_t child;
  CHECK_EQ(SpawnActions().dup(fd, 0).dup(fd, 1).close(fd).spawn(child, {"cat"}), 0);
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("posix_spawn gives away a connection that exec would close") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
  pid_t child;
  std::string list = "cat; test -e /proc/self/fd/" + std::to_string(fd) + " || echo; exit 0";
  CHECK_EQ(SpawnActions().dup(fd, 0).dup(0, 1).close_from(fd + 1).spawn(child, {"sh", "-c", list.c_str()}), 0);
  CHECK_OK(close(fd));
  peer.send("hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(100), "hello\n");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("posix_spawn passes on nothing that exec closes") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
  Pipe hold;
  CHECK_OK(fcntl(hold.ends[1], F_SETFD, FD_CLOEXEC));
  pid_t child;
  CHECK_EQ(SpawnActions().dup(hold.ends[0], 0).spawn(child, {"cat"}), 0);
  still_works(fd, peer);
  CHECK_OK(close(fd));
  if (peer.is_process()) CHECK_EQ(peer.receive(1), "");
  CHECK_OK(close(hold.ends[1]));
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("the parent of a posix_spawn goes on with what it has passed on") {
  auto [fd, peer] = connect_peer(where);
  Pipe hold;
  pid_t child;
  CHECK_EQ(SpawnActions().dup(hold.ends[0], 0).close(hold.ends[1]).spawn(child, {"cat"}), 0);
  for (int i = 0; i < 20; i++) still_works(fd, peer);
  CHECK_OK(close(hold.ends[1]));
  CHECK_EQ(wait_exit(child), 0);
  still_works(fd, peer);
}

TEST_EVERYWHERE("a failed posix_spawn leaves the connection as it was") {
  auto [fd, peer] = connect_peer(where);
  peer.send("unread, ");
  await(fd, POLLIN);
  pid_t child;
  CHECK_EQ(SpawnActions().dup(fd, 0).spawn(child, {"/nonexistent"}), ENOENT);
  CHECK_EQ(SpawnActions().dup(fd, 0).spawn(child, {"/etc/passwd"}), EACCES);
  peer.send("sent after it");
  CHECK_EQ(read_exactly(fd, 21), "unread, sent after it");
  still_works(fd, peer);
}

TEST_EVERYWHERE("a vfork child becomes a program with a connection as stdin and stdout") {
  auto [fd, peer] = connect_peer(where);
  peer.send("before, ");
  await(fd, POLLIN);
  pid_t child = vfork();
  if (child == 0) {
    dup2(fd, 0);
    dup2(0, 1);
    close_range(3, ~0u, 0);
    execl("/nonexistent/cat", "cat", nullptr);
    execl("/etc/passwd", "cat", nullptr);
    execlp("cat", "cat", nullptr);
    _exit(127);
  }
  CHECK_OK(close(fd));
  peer.send("after");
  CHECK_EQ(peer.receive(13), "before, after");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("vfork children replace a connection by something else") {
  auto [fd, peer] = connect_peer(where);
  Pipe output;
  pid_t child = vfork();
  if (child == 0) {
    dup2(output.ends[1], fd);
    dup2(fd, 1);
    close_range(3, ~0u, 0);
    execlp("echo", "echo", "to the pipe", nullptr);
    _exit(127);
  }
  CHECK_EQ(read_exactly(output.ends[0], 12), "to the pipe\n");
  CHECK_EQ(wait_exit(child), 0);
  still_works(fd, peer);
}

TEST_EVERYWHERE("vfork and exec leave the parent's connection alone") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = vfork();
  if (child == 0) {
    execlp("true", "true", nullptr);
    _exit(127);
  }
  CHECK_EQ(wait_exit(child), 0);
  child = vfork();
  if (child == 0) _exit(3);
  CHECK_EQ(wait_exit(child), 3);
  peer.send("hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
  write_all(fd, "world");
  CHECK_EQ(peer.receive(5), "world");
}

TEST_EVERYWHERE("system and popen work beside connections") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(system("exit 7"), 7 << 8);
  FILE* output = popen("echo from the shell", "r");
  char line[64] = "";
  CHECK_TRUE(fgets(line, sizeof line, output) != nullptr);
  CHECK_EQ(line, std::string("from the shell\n"));
  CHECK_EQ(pclose(output), 0);
  FILE* input = popen("cat >/dev/null", "w");
  fputs("to the shell\n", input);
  CHECK_EQ(pclose(input), 0);
  peer.send("hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
}

TEST("a program run by system changes no other socket") {
  Listener listener = make_listener();
  int fd = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  int other = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  std::string command = std::string("exec ") + program_invocation_name + " --program=connect_inherited " +
                        std::to_string(fd) + " " + std::to_string(listener.port);
  pid_t server = in_child([&] { serve_one(listener.fd); });
  CHECK_EQ(system(command.c_str()), 0);
  CHECK_EQ(wait_exit(server), 0);
  sockaddr_in name;
  socklen_t length = sizeof name;
  CHECK_ERRNO(getpeername(other, reinterpret_cast<sockaddr*>(&name), &length), ENOTCONN);
}

TEST("a daemon of two forks listens and serves") {
  int ends[2];
  CHECK_OK(pipe(ends));
  pid_t first = in_child([&] {
    CHECK_OK(setsid());
    in_child([&] {
      alarm(20);  // it has left the process group that the watchdog ends
      for (int fd : {0, 1, 2}) CHECK_OK(dup2(open("/dev/null", O_RDWR), fd));
      Listener listener = make_listener();
      write_all(ends[1], std::string(reinterpret_cast<char*>(&listener.port), 2));
      serve_one(listener.fd);
    });
  });
  CHECK_EQ(wait_exit(first), 0);
  uint16_t port;
  CHECK_EQ(read(ends[0], &port, 2), 2);
  visit(port);
}

TEST("a daemon takes over a listener that its grandparent made") {
  Listener listener = make_listener();
  Pipe ready;
  pid_t first = in_child([&] {
    CHECK_OK(setsid());
    in_child([&] {
      alarm(20);
      ready.signal();
      serve_one(listener.fd);
      serve_one(listener.fd);
    });
  });
  CHECK_EQ(wait_exit(first), 0);
  ready.await();
  CHECK_OK(close(listener.fd));
  visit(listener.port);
  visit(listener.port);
}

TEST("libc's daemon() leaves listeners and sets usable") {
  Listener listener = make_listener();
  EpollSet set;
  set.add(listener.fd, EPOLLIN);
  pid_t first = CHECK_OK(fork());
  if (first == 0) {
    CHECK_OK(daemon(1, 0));
    alarm(20);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(set.wait_one(listener.fd), EPOLLIN);
      serve_one(listener.fd);
    }
    _exit(0);
  }
  CHECK_EQ(wait_exit(first), 0);
  for (int i = 0; i < 3; i++) visit(listener.port);
}

TEST("an old and a new program share a listener, then the old one leaves") {
  Listener listener = make_listener();
  pid_t successor =
      spawn_program("serve_inherited_listener", {std::to_string(listener.fd)}, {listener.fd});
  pid_t visitor = in_child([&] {
    for (int i = 0; i < 2; i++) visit(listener.port);
  });
  serve_one(listener.fd);
  CHECK_OK(close(listener.fd));
  CHECK_EQ(wait_exit(visitor), 0);
  CHECK_EQ(wait_exit(successor), 0);
}

TEST("short-lived programs connect one after another") {
  Listener listener = make_listener();
  for (int i = 0; i < 30; i++) {
    std::string word = "program " + std::to_string(i);
    pid_t child = spawn_program("connect_and_say", {std::to_string(listener.port), word});
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    CHECK_EQ(read_to_end(fd), word);
    CHECK_OK(close(fd));
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("ten programs connect at once") {
  Listener listener = make_listener();
  std::vector<pid_t> children;
  for (int i = 0; i < 10; i++)
    children.push_back(spawn_program("connect_and_say", {std::to_string(listener.port), "hello"}));
  for (int i = 0; i < 10; i++) {
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    CHECK_EQ(read_to_end(fd), "hello");
  }
  for (pid_t child : children) CHECK_EQ(wait_exit(child), 0);
}

TEST("a program without children has none, and one thread") {
  make_pair();
  CHECK_ERRNO(waitpid(-1, nullptr, WNOHANG), ECHILD);
  auto tasks = std::filesystem::directory_iterator("/proc/self/task");
  CHECK_EQ(std::distance(begin(tasks), end(tasks)), 1);
}
