// Ancillary data over stream sockets of AF_UNIX that met by name. Part of unix_stream.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <vector>

#include "sockets.h"
#include "unix_messages.h"
#include "unix_sockets.h"

using namespace conformance;

PROGRAM(unix_rights_holder) {
  int fd = atoi(args[0].c_str());
  for (int i = 0; i < 3; ++i) {
    Message m = receive(fd);
    if (m.bytes != "ab" || m.fds.size() != 1 || word_in(m.fds[0]) != "one") return 1;
    send_with(fd, "back", {Word("two").out, Word("three").out});
  }
  return read_to_end(fd).empty() ? 0 : 1;
}

PROGRAM(unix_rights_server) {
  int fd = accept_one(atoi(args[0].c_str()));
  Message m = receive(fd);
  if (m.bytes != "ab" || m.fds.size() != 1 || word_in(m.fds[0]) != "one") return 1;
  write_all(fd, "done");
  send_with(fd, "x", {Word("two").out});
  return 0;
}

TEST_EVERYWHERE("descriptors are passed both ways") {
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    send_with(fd, "take", {Word("one").out, Word("two").out});
    Message m = receive(fd);
    CHECK_EQ(m.bytes, "back");
    CHECK_EQ(m.fds.size(), 1);
    CHECK_EQ(word_in(m.fds[0]), "three");
  }, [&](int fd) {
    Message m = receive(fd);
    CHECK_EQ(m.bytes, "take");
    CHECK_EQ(m.fds.size(), 2);
    CHECK_EQ(word_in(m.fds[0]), "one");
    CHECK_EQ(word_in(m.fds[1]), "two");
    send_with(fd, "back", {Word("three").out});
    CHECK_EQ(read_to_end(fd), "");
  });
}

TEST_EVERYWHERE("each of many messages keeps its descriptors") {
  meet(where, abstract_name(), [&](int fd) {
    for (int i = 0; i < 200; ++i) {
      write_all(fd, "-");
      Word w("w" + std::to_string(i));
      send_with(fd, "+", {w.out});
      close(w.out);
      close(w.in);
    }
  }, [&](int fd) {
    for (int i = 0; i < 200; ++i) {
      Message m;
      while (m.fds.empty()) m = receive(fd, 1);
      CHECK_EQ(m.bytes, "+");
      CHECK_EQ(word_in(m.fds[0]), "w" + std::to_string(i));
      close(m.fds[0]);
    }
    CHECK_EQ(read_to_end(fd), "");
  });
}

TEST_EVERYWHERE("a read takes what came before, and ends with the message that had descriptors") {
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    write_all(fd, "before");
    send_with(fd, "with", {Word("x").out});
    write_all(fd, "after");
    turns.give(0);
    turns.await(1);
  }, [&](int fd) {
    turns.await(0);
    Message m = receive(fd);
    CHECK_EQ(m.bytes, "beforewith");
    CHECK_EQ(m.fds.size(), 1);
    m = receive(fd);
    CHECK_EQ(m.bytes, "after");
    CHECK_EQ(m.fds.size(), 0);
    turns.give(1);
  });
}

TEST("a read that stops short of the message leaves its descriptors there") {
  UnixPair p = unix_pair(abstract_name());
  write_all(p.client, "before");
  send_with(p.client, "with", {Word("x").out});
  Message m = receive(p.server, 6);
  CHECK_EQ(m.bytes, "before");
  CHECK_EQ(m.fds.size(), 0);
  m = receive(p.server, 2);
  CHECK_EQ(m.bytes, "wi");
  CHECK_EQ(m.fds.size(), 1);
  m = receive(p.server);
  CHECK_EQ(m.bytes, "th");
  CHECK_EQ(m.fds.size(), 0);
}

TEST("two messages with descriptors are two reads") {
  UnixPair p = unix_pair(abstract_name());
  send_with(p.client, "a", {Word("1").out});
  send_with(p.client, "b", {Word("2").out});
  Message a = receive(p.server, 100, MSG_DONTWAIT), b = receive(p.server, 100, MSG_DONTWAIT);
  CHECK_EQ(a.bytes + "," + b.bytes, "a,b");
  CHECK_EQ(word_in(a.fds[0]) + word_in(b.fds[0]), "12");
}

TEST("MSG_WAITALL ends with the message that had descriptors") {
  UnixPair p = unix_pair(abstract_name());
  send_with(p.client, "abc", {Word("1").out});
  Message m = receive(p.server, 10, MSG_WAITALL);
  CHECK_EQ(m.bytes, "abc");
  CHECK_EQ(m.fds.size(), 1);
}

TEST("a plain read drops descriptors") {
  UnixPair p = unix_pair(abstract_name());
  Word w("x");
  send_with(p.client, "warm up", {w.out});  // whatever that opens stays open
  CHECK_EQ(read_once(p.server), "warm up");
  int before = open_descriptors();
  send_with(p.client, "abc", {w.out, w.in});
  CHECK_EQ(read_once(p.server), "abc");
  CHECK_EQ(open_descriptors(), before);
}

TEST("splice drops descriptors, and what is sent after that arrives") {
  UnixPair p = unix_pair(abstract_name());
  write_all(p.client, "before");
  send_with(p.client, "with", {Word("lost").out});
  write_all(p.client, "after");
  send_with(p.client, "more", {Word("kept").out});
  int pipe[2];
  CHECK_OK(::pipe(pipe));
  for (size_t moved = 0; moved < 15;) moved += size_t(CHECK_OK(splice(p.server, nullptr, pipe[1], nullptr, 15 - moved, 0)));
  CHECK_EQ(read_exactly(pipe[0], 15), "beforewithafter");
  Message m = receive(p.server);
  CHECK_EQ(m.bytes, "more");
  CHECK_EQ(m.fds.size(), 1);
  CHECK_EQ(word_in(m.fds[0]), "kept");
}

TEST("too little room is MSG_CTRUNC, and the rest is closed") {
  UnixPair p = unix_pair(abstract_name());
  Word w("x");
  int before = -1;
  for (int round = 0; round < 2; ++round) {
    send_with(p.client, "abc", {w.out, w.out, w.out});
    Message m = receive(p.server, 100, 0, CMSG_SPACE(sizeof(int)));
    CHECK_EQ(m.bytes, "abc");
    CHECK_TRUE((m.flags & MSG_CTRUNC) != 0);
    CHECK_TRUE(!m.fds.empty() && m.fds.size() <= 2);
    for (int fd : m.fds) close(fd);
    if (before < 0) before = open_descriptors();
  }
  CHECK_EQ(open_descriptors(), before);
  send_with(p.client, "abc", {w.out});
  CHECK_TRUE((receive(p.server, 100, 0, 0).flags & MSG_CTRUNC) != 0);
}

TEST("MSG_CMSG_CLOEXEC closes on exec, otherwise not") {
  UnixPair p = unix_pair(abstract_name());
  for (int flags : {0, int{MSG_CMSG_CLOEXEC}}) {
    send_with(p.client, "x", {Word("x").out});
    Message m = receive(p.server, 100, flags);
    CHECK_EQ(fcntl(m.fds[0], F_GETFD), flags != 0 ? FD_CLOEXEC : 0);
  }
}

TEST("peeking shows descriptors without taking them") {
  UnixPair p = unix_pair(abstract_name());
  send_with(p.client, "abc", {Word("x").out});
  Message m = receive(p.server, 100, MSG_PEEK);
  CHECK_EQ(m.bytes, "abc");
  CHECK_EQ(m.fds.size(), 1);
  close(m.fds[0]);
  m = receive(p.server);
  CHECK_EQ(m.bytes, "abc");
  CHECK_EQ(word_in(m.fds[0]), "x");
}

TEST("descriptors that cannot be passed are errors, and send nothing") {
  UnixPair p = unix_pair(abstract_name());
  CHECK_ERRNO(try_send(p.client, "x", {999}), EBADF);
  CHECK_ERRNO(try_send(p.client, "x", std::vector<int>(254, 0)), EINVAL);
  char b;
  CHECK_ERRNO(recv(p.server, &b, 1, MSG_DONTWAIT), EAGAIN);
  send_with(p.client, "y", {Word("x").out});
  CHECK_EQ(receive(p.server).fds.size(), 1);
}

TEST("the most that Linux passes at once arrives") {
  UnixPair p = unix_pair(abstract_name());
  Word w("x");
  send_with(p.client, "x", std::vector<int>(253, w.out));
  CHECK_EQ(receive(p.server, 100, 0, CMSG_SPACE(253 * sizeof(int))).fds.size(), 253);
}

TEST_EVERYWHERE("a long message has its descriptors at its beginning") {
  std::string much(1 << 20, 'x');
  meet(where, abstract_name(), [&](int fd) { send_with(fd, much, {Word("x").out}); }, [&](int fd) {
    Message first = receive(fd, 4096);
    CHECK_EQ(first.fds.size(), 1);
    CHECK_EQ(first.bytes.size() + read_to_end(fd).size(), much.size());
  });
}

TEST("an end of the connection can be passed over itself, and so can a listener") {
  std::string name = abstract_name(), other = abstract_name();
  UnixPair p = unix_pair(name);
  int listener = unix_listen(other);
  send_with(p.client, "x", {listener});
  close(listener);
  Message m = receive(p.server);
  unix_connect(other);
  accept_one(m.fds[0]);
}

TEST_EVERYWHERE("descriptors are passed before the connection is accepted") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  auto client = [&] {
    int fd = unix_connect(name);
    send_with(fd, "early", {Word("bird").out});
    CHECK_EQ(read_to_end(fd), "");
  };
  pid_t child = 0;
  std::thread thread;
  if (where == Where::kSameProcess) thread = std::thread(client);
  else child = in_child(client);
  Message m = receive(accept_one(listener));
  CHECK_EQ(m.bytes, "early");
  CHECK_EQ(word_in(m.fds[0]), "bird");
  if (child != 0) kill(child, SIGKILL);
  if (thread.joinable()) _exit(0);  // it waits for the end that comes with ours
}

TEST_EVERYWHERE("a sender of many descriptors waits for the reader") {
  constexpr int kMessages = 800;
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    Word w("x");
    turns.give(0);
    for (int i = 0; i < kMessages; ++i) send_with(fd, "+", {w.out});
  }, [&](int fd) {
    turns.await(0);
    pause_ms(50);  // it gets as far as it can
    for (int i = 0; i < kMessages; ++i) {
      Message m = receive(fd);
      CHECK_EQ(m.bytes, "+");
      CHECK_EQ(m.fds.size(), 1);
      close(m.fds[0]);
    }
    CHECK_EQ(read_to_end(fd), "");
  });
}

TEST("a sender that waits for a reader hears of its death, and of signals") {
  std::string name = abstract_name();
  Turns turns;
  pid_t reader = in_child([&] {
    int listener = unix_listen(name);
    turns.give(0);
    accept_one(listener);
    pause();
  });
  turns.await(0);
  int fd = unix_connect(name);
  Word w("x");
  on_signal(SIGUSR1, count_signal);
  int error = 0;
  {
    Worker sender([&] {
      while (try_send(fd, "+", {w.out}, MSG_NOSIGNAL) > 0) {
      }
      error = errno;
    });
    sender.await_sleep();
    sender.signal_until_done(SIGUSR1);
  }
  CHECK_EQ(error, EINTR);
  Worker sender([&] {
    while (try_send(fd, "+", {w.out}, MSG_NOSIGNAL) > 0) {
    }
    error = errno;
  });
  sender.await_sleep();
  kill(reader, SIGKILL);
  sender.join();
  CHECK_EQ(error, ECONNRESET);  // there were bytes unread
  CHECK_EQ(wait_exit(reader), 128 + SIGKILL);
}

TEST("SCM_CREDENTIALS of a forked child and of a worker are their own") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  set_option(listener, SOL_SOCKET, SO_PASSCRED, 1);
  int client = unix_connect(name), server = accept_one(listener);
  set_option(client, SOL_SOCKET, SO_PASSCRED, 1);
  for (auto [from, to] : {std::pair{client, server}, {server, client}}) {
    pid_t child = in_child([from = from] {
      ucred me{getpid(), getuid(), getgid()};
      CHECK_EQ(try_send(from, "x", {}, 0, &me), 1);
    });
    CHECK_EQ(wait_exit(child), 0);
    Message m = receive(to);
    CHECK_EQ(m.credentials.size(), 1);
    CHECK_EQ(m.credentials[0].pid, child);
  }
}

TEST("descriptors outlive their sender") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  Turns turns;
  pid_t child = in_child([&] {
    int fd = unix_connect(name);
    write_all(fd, "-");
    send_with(fd, "legacy", {Word("gold").out});
    turns.give(0);
    pause();
  });
  int fd = accept_one(listener);
  CHECK_EQ(read_exactly(fd, 1), "-");
  turns.await(0);
  kill(child, SIGKILL);
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  Message m = receive(fd);
  CHECK_EQ(m.bytes, "legacy");
  CHECK_EQ(word_in(m.fds[0]), "gold");
  CHECK_EQ(read_once(fd), "");
}

TEST("descriptors that a client left behind are accepted after its end") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  pid_t child = in_child([&] { send_with(unix_connect(name), "x", {Word("gold").out}); });
  CHECK_EQ(wait_exit(child), 0);
  Message m = receive(accept_one(listener));
  CHECK_EQ(m.fds.size(), 1);
  CHECK_EQ(word_in(m.fds[0]), "gold");
}

TEST("descriptors go along with a connection that is sent to another process") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  Turns turns;
  pid_t client = in_child([&] {
    int fd = unix_connect(name);
    write_all(fd, "a");
    send_with(fd, "b", {Word("one").out});
    write_all(fd, "c");
    send_with(fd, "d", {Word("two").out});
    turns.give(0);
    CHECK_EQ(read_exactly(fd, 4), "done");
  });
  turns.await(0);
  pollfd look{listener, POLLIN, 0};
  CHECK_EQ(poll(&look, 1, -1), 1);
  pid_t worker = in_child([&] {
    int fd = accept_one(listener);
    Message first = receive(fd), second = receive(fd);
    CHECK_EQ(first.bytes, "ab");
    CHECK_EQ(word_in(first.fds[0]), "one");
    CHECK_EQ(second.bytes, "cd");
    CHECK_EQ(word_in(second.fds[0]), "two");
    write_all(fd, "done");
  });
  close(listener);
  CHECK_EQ(wait_exit(worker), 0);
  CHECK_EQ(wait_exit(client), 0);
}

TEST("descriptors go along with a connection that nobody with the shim accepts") {
  Directory d;
  int listener = unix_listen("s", 16, SOCK_CLOEXEC);
  Turns turns;
  pid_t client = in_child([&] {
    int fd = unix_connect("s");
    write_all(fd, "a");
    send_with(fd, "b", {Word("one").out});
    turns.give(0);
    CHECK_EQ(read_exactly(fd, 4), "done");
    Message m = receive(fd);
    CHECK_EQ(word_in(m.fds[0]), "two");
  });
  turns.await(0);
  pid_t server = in_child([&] {
    unsetenv("LD_PRELOAD");
    _exit(wait_exit(spawn_program("unix_rights_server", {std::to_string(listener)}, {listener})));
  });
  close(listener);
  CHECK_EQ(wait_exit(server), 0);
  CHECK_EQ(wait_exit(client), 0);
}

TEST("descriptors reach a program that was given the connection by exec") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  int client = unix_connect(name), server = accept_one(listener);
  pid_t program = spawn_program("unix_rights_holder", {std::to_string(client)}, {client});
  close(client);
  for (int i = 0; i < 3; ++i) {
    Word w("one");
    send_with(server, "ab", {w.out});
    close(w.out);
    Message m = receive(server);
    CHECK_EQ(m.bytes, "back");
    CHECK_EQ(m.fds.size(), 2);
    CHECK_EQ(word_in(m.fds[1]), "three");
  }
  close(server);
  CHECK_EQ(wait_exit(program), 0);
}

PROGRAM(unix_reader) { return read_to_end(atoi(args[0].c_str())) == "all there is" ? 0 : 1; }

TEST("a program that is given a connection with SO_PASSCRED by exec sees its end") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  set_option(listener, SOL_SOCKET, SO_PASSCRED, 1);
  int client = unix_connect(name), server = accept_one(listener);
  pid_t program = spawn_program("unix_reader", {std::to_string(server)}, {server});
  close(server);
  write_all(client, "all there is");
  CHECK_OK(shutdown(client, SHUT_WR));
  CHECK_EQ(wait_exit(program), 0);
}

TEST("a child that was forked with the connection gets descriptors") {
  std::string name = abstract_name();
  Turns turns;
  pid_t server = in_child([&] {
    int listener = unix_listen(name);
    turns.give(0);
    int fd = accept_one(listener);
    pid_t child = in_child([&] {
      turns.give(0);
      Message m = receive(fd);
      CHECK_EQ(word_in(m.fds[0]), "one");
      send_with(fd, "back", {Word("two").out});
    });
    close(fd);
    CHECK_EQ(wait_exit(child), 0);
  });
  turns.await(0);
  int fd = unix_connect(name);
  turns.await(0);
  send_with(fd, "x", {Word("one").out});
  Message m = receive(fd);
  CHECK_EQ(m.bytes, "back");
  CHECK_EQ(word_in(m.fds[0]), "two");
  CHECK_EQ(wait_exit(server), 0);
}

TEST("parent and child both send descriptors over what they share") {
  std::string name = abstract_name();
  UnixPair p = unix_pair(name);
  pid_t child = in_child([&] {
    send_with(p.client, "c", {Word("child").out});
  });
  Message m = receive(p.server);
  CHECK_EQ(word_in(m.fds[0]), "child");
  CHECK_EQ(wait_exit(child), 0);
  send_with(p.client, "p", {Word("parent").out});
  m = receive(p.server);
  CHECK_EQ(word_in(m.fds[0]), "parent");
}

TEST("a message with descriptors makes a set readable once") {
  UnixPair p = unix_pair(abstract_name());
  int set = CHECK_OK(epoll_create1(0));
  epoll_event e{EPOLLIN | EPOLLET, {}}, got;
  CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e));
  send_with(p.client, "x", {Word("x").out});
  CHECK_EQ(epoll_wait(set, &got, 1, -1), 1);
  CHECK_EQ(receive(p.server).fds.size(), 1);
  CHECK_EQ(epoll_wait(set, &got, 1, 0), 0);
}

// ---- credentials ----------------------------------------------------------------------------

TEST_EVERYWHERE("SO_PASSCRED tells who sends") {
  Turns turns;
  pid_t parent = getpid();
  meet(where, abstract_name(), [&](int fd) {
    turns.await(0);
    write_all(fd, "plain");
    ucred me{getpid(), getuid(), getgid()};
    turns.await(1);
    CHECK_EQ(try_send(fd, "said", {}, 0, &me), 4);
    turns.await(2);
  }, [&](int fd) {
    set_option(fd, SOL_SOCKET, SO_PASSCRED, 1);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_PASSCRED), 1);
    turns.give(0);
    for (const char* text : {"plain", "said"}) {
      Message m = receive(fd);
      CHECK_EQ(m.bytes, text);
      CHECK_EQ(m.credentials.size(), 1);
      CHECK_EQ(m.credentials[0].uid, getuid());
      if (where == Where::kPeerConnects) CHECK_TRUE(m.credentials[0].pid != parent);
      if (where == Where::kSameProcess) CHECK_EQ(m.credentials[0].pid, parent);
      turns.give(1);
    }
    turns.give(2);
  });
}

TEST("credentials are cut off by too little room, and tell of nobody at the end") {
  UnixPair p = unix_pair(abstract_name());
  set_option(p.server, SOL_SOCKET, SO_PASSCRED, 1);
  write_all(p.client, "abc");
  alignas(cmsghdr) char control[64];
  char byte;
  iovec iov{&byte, 1};
  for (size_t room : {size_t{8}, size_t{20}, size_t{28}}) {
    msghdr m{};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = room;
    CHECK_EQ(recvmsg(p.server, &m, 0), 1);
    CHECK_EQ(m.msg_flags, room < 28 ? int{MSG_CTRUNC} : 0);
    CHECK_EQ(m.msg_controllen, room < sizeof(cmsghdr) ? size_t{0} : room);
  }
  CHECK_OK(close(p.client));
  Message end = receive(p.server);
  CHECK_EQ(end.bytes, "");
  CHECK_EQ(end.credentials.size(), 1);
  CHECK_EQ(end.credentials[0].pid, 0);
  CHECK_EQ(end.credentials[0].uid, 0);
}

TEST("what was sent after a message with descriptors is another splice") {
  UnixPair p = unix_pair(abstract_name());
  write_all(p.client, "before");
  send_with(p.client, "with", {Word("lost").out});
  write_all(p.client, "after");
  int pipe[2];
  CHECK_OK(::pipe(pipe));
  CHECK_EQ(splice(p.server, nullptr, pipe[1], nullptr, 100, 0), 10);
  CHECK_EQ(splice(p.server, nullptr, pipe[1], nullptr, 100, 0), 5);
  CHECK_EQ(read_exactly(pipe[0], 15), "beforewithafter");
}

TEST("accepted connections inherit SO_PASSCRED, and descriptors come with credentials") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  set_option(listener, SOL_SOCKET, SO_PASSCRED, 1);
  int client = unix_connect(name), server = accept_one(listener);
  CHECK_EQ(option(server, SOL_SOCKET, SO_PASSCRED), 1);
  send_with(client, "x", {Word("x").out});
  Message m = receive(server);
  CHECK_EQ(m.fds.size(), 1);
  CHECK_EQ(m.credentials.size(), 1);
  CHECK_EQ(m.credentials[0].pid, getpid());
}

TEST("false credentials are refused, and root may say what it likes") {
  if (geteuid() != 0) return;
  UnixPair p = unix_pair(abstract_name());
  set_option(p.server, SOL_SOCKET, SO_PASSCRED, 1);
  ucred other{getpid(), 12345, 54321};
  CHECK_EQ(try_send(p.client, "x", {}, 0, &other), 1);
  CHECK_EQ(receive(p.server).credentials[0].uid, 12345);
  pid_t child = in_child([&] {
    CHECK_OK(setresuid(65534, 65534, 65534));
    CHECK_ERRNO(try_send(p.client, "x", {}, 0, &other), EPERM);
  });
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a client with SO_PASSCRED gets a name of its own") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  int fd = unix_socket();
  set_option(fd, SOL_SOCKET, SO_PASSCRED, 1);
  CHECK_OK(try_connect(fd, name));
  CHECK_TRUE(!local_name(fd).empty());
  CHECK_EQ(peer_name(accept_one(listener)), local_name(fd));
}
