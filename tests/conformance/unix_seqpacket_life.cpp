// The life of a connection of SOCK_SEQPACKET: names, ends, signals, forks, exec. Part of unix_seqpacket.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sockets.h"
#include "unix_messages.h"
#include "unix_records.h"
#include "unix_sockets.h"

using namespace conformance;

namespace {

constexpr short kAll = POLLIN | POLLOUT | POLLRDHUP;

int record_socket(int flags = 0) { return unix_socket(flags, SOCK_SEQPACKET); }
int record_listener(const std::string& name, int backlog = 16, int flags = 0) {
  return unix_listen(name, backlog, flags, SOCK_SEQPACKET);
}
int record_client(const std::string& name) { return unix_connect(name, SOCK_SEQPACKET); }

// Until there is no space any more.
void fill_with_records(int fd, size_t size = 50'000) {
  std::string record(size, 'x');
  while (send(fd, record.data(), record.size(), MSG_DONTWAIT) >= 0) {
  }
  CHECK_EQ(errno, EAGAIN);
}

int error_of(ssize_t result) { return result < 0 ? errno : 0; }
int take_error(int fd) {
  char b;
  return error_of(recv(fd, &b, 1, 0));
}
int put_error(int fd) { return error_of(send(fd, "x", 1, 0)); }

}  // namespace

// ---- names ------------------------------------------------------------------------------------

TEST("streams and records do not meet") {
  Directory d;
  int stream = unix_listen("stream"), records = record_listener("records");
  CHECK_ERRNO(try_connect(record_socket(), "stream"), EPROTOTYPE);
  CHECK_ERRNO(try_connect(unix_socket(), "records"), EPROTOTYPE);
  record_client("records");
  unix_connect("stream");
  accept_one(stream);
  accept_one(records);
  CHECK_ERRNO(try_connect(record_socket(), "stream"), EPROTOTYPE);
  CHECK_ERRNO(try_connect(unix_socket(), "records"), EPROTOTYPE);
}

TEST("each type has abstract names of its own") {
  std::string name = abstract_name();
  int stream = unix_listen(name);
  CHECK_ERRNO(try_connect(record_socket(), name), ECONNREFUSED);
  int records = record_listener(name);
  for (int i = 0; i < 2; ++i) {
    int a = unix_connect(name), b = record_client(name);
    write_all(a, "stream");
    put(b, "record");
    CHECK_EQ(read_exactly(accept_one(stream), 6), "stream");
    CHECK_EQ(take(accept_one(records)), "record");
  }
  close(stream);
  CHECK_ERRNO(try_connect(unix_socket(), name), ECONNREFUSED);
  record_client(name);
}

TEST("a path that is bound anew may be of the other type") {
  Directory d;
  for (int i = 0; i < 6; ++i) {
    int type = i % 2 == 0 ? SOCK_STREAM : SOCK_SEQPACKET;
    UnixPair p = unix_pair("s", type);
    CHECK_EQ(option(p.client, SOL_SOCKET, SO_TYPE), type);
    CHECK_EQ(send(p.client, "ab", 2, 0), 2);
    CHECK_EQ(send(p.client, "c", 1, 0), 1);
    CHECK_EQ(read_once(p.server), type == SOCK_STREAM ? "abc" : "ab");
    CHECK_OK(unlink("s"));
  }
}

TEST("options tell what it is, on every socket") {
  Directory d;
  int listener = record_listener("s"), fresh = record_socket();
  int client = record_client("s"), server = accept_one(listener);
  for (int fd : {listener, fresh, client, server}) {
    CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_SEQPACKET);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), 0);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_ACCEPTCONN), fd == listener);
  }
  CHECK_EQ(local_name(client), "");
  CHECK_EQ(peer_name(client), "s");
  CHECK_EQ(local_name(server), "s");
  CHECK_EQ(peer_name(server), "");
}

TEST_EVERYWHERE("SO_PEERCRED of records tells who listened and who connected") {
  pid_t parent = getpid();
  Turns turns;
  auto is_other = [&](int fd) {
    ucred c = credentials_of(fd);
    CHECK_EQ(c.uid, geteuid());
    if (where == Where::kSameProcess || getpid() != parent) CHECK_EQ(c.pid, parent);
    else CHECK_TRUE(c.pid != parent && c.pid > 0);
  };
  meet_for_records(where, abstract_name(), [&](int fd) {
    is_other(fd);
    turns.give(0);
    turns.await(1);
  }, [&](int fd) {
    is_other(fd);
    turns.give(1);
    turns.await(0);
  });
}

TEST("an autobound listener is found by the name that it got") {
  int listener = record_socket();
  sockaddr a{AF_UNIX, {}};
  CHECK_OK(bind(listener, &a, sizeof a.sa_family));
  CHECK_OK(listen(listener, 5));
  int client = record_client(local_name(listener));
  put(client, "one");
  put(client, "two");
  int server = accept_one(listener);
  CHECK_EQ(take(server), "one");
  CHECK_EQ(take(server), "two");
}

TEST("a client with a name, one with time stamps and a plain one find the same listener") {
  Directory d;
  int listener = record_listener("s");
  int named = record_socket(), stamped = record_socket(), plain = record_socket();
  bind_to(named, "client");
  set_option(stamped, SOL_SOCKET, SO_TIMESTAMP, 1);
  for (int fd : {named, stamped, plain}) {
    CHECK_OK(try_connect(fd, "s"));
    int server = accept_one(listener);
    CHECK_EQ(peer_name(server), fd == named ? "client" : "");
    put(fd, "ab");
    put(fd, "c");
    CHECK_EQ(take(server), "ab");
    CHECK_EQ(take(server), "c");
    put(server, "d");
    char b, control[200];
    iovec iov{&b, 1};
    msghdr m{};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    CHECK_EQ(recvmsg(fd, &m, 0), 1);
    CHECK_EQ(m.msg_controllen > 0, fd == stamped);
  }
}

// ---- connecting and accepting -------------------------------------------------------------------

TEST("without a connection there is ENOTCONN and no signal") {
  on_signal(SIGPIPE, count_signal);
  Directory d;
  for (int fd : {record_socket(), record_listener("s")}) {
    CHECK_EQ(put_error(fd), ENOTCONN);
    CHECK_EQ(take_error(fd), ENOTCONN);
    CHECK_ERRNO(write(fd, "x", 1), ENOTCONN);
  }
  CHECK_EQ(ready(record_socket(), kAll), POLLOUT | POLLHUP);
  CHECK_EQ(int(signals_seen), 0);
}

TEST("a connection cannot be connected again, nor dissolved") {
  std::string name = abstract_name();
  int listener = record_listener(name);
  UnixPair p{record_client(name), accept_one(listener)};
  sockaddr unspecified{AF_UNSPEC, {}};
  CHECK_ERRNO(connect(p.client, &unspecified, sizeof unspecified), EINVAL);
  CHECK_ERRNO(try_connect(p.client, name), EISCONN);
}

TEST("records that are sent before anybody accepts are there") {
  Directory d;
  int listener = record_listener("s");
  int fd = record_socket(SOCK_NONBLOCK);
  CHECK_OK(try_connect(fd, "s"));
  put(fd, "early");
  put(fd, pattern(1, 100'000));
  CHECK_EQ(send(fd, "", 0, 0), 0);
  close(fd);
  int server = accept_one(listener);
  CHECK_EQ(take(server), "early");
  CHECK_TRUE(take(server) == pattern(1, 100'000));
  CHECK_EQ(take(server), "");
  CHECK_EQ(take(server), "");
}

TEST("accepted connections have the defaults, and SO_PASSCRED") {
  std::string name = abstract_name();
  int listener = record_listener(name);
  int usual = option(listener, SOL_SOCKET, SO_SNDBUF);
  set_option(listener, SOL_SOCKET, SO_SNDBUF, 20'000);
  set_option(listener, SOL_SOCKET, SO_RCVLOWAT, 7);
  set_option(listener, SOL_SOCKET, SO_PASSCRED, 1);
  record_client(name);
  int server = accept_one(listener);
  CHECK_EQ(option(server, SOL_SOCKET, SO_SNDBUF), usual);
  CHECK_EQ(option(server, SOL_SOCKET, SO_RCVLOWAT), 1);
  CHECK_EQ(option(server, SOL_SOCKET, SO_PASSCRED), 1);
}

TEST("who waits for accept when the listener of records closes is reset") {
  Directory d;
  int listener = record_listener("s");
  int fd = record_client("s");
  put(fd, "!");
  close(listener);
  CHECK_EQ(take_error(fd), ECONNRESET);
  CHECK_EQ(take(fd), "");
  CHECK_EQ(put_error(fd), EPIPE);
}

// ---- ends ---------------------------------------------------------------------------------------

TEST_EVERYWHERE("after a close the queue is read to its end, and sending is EPIPE without a signal") {
  on_signal(SIGPIPE, count_signal);
  meet_for_records(where, abstract_name(), [](int fd) {
    put(fd, "one");
    put(fd, "two");
  }, [](int fd) {
    await(fd, POLLRDHUP);
    CHECK_EQ(ready(fd, kAll) & ~POLLHUP, kAll);
    eventually([&] { return put_error(fd) == EPIPE; });
    CHECK_ERRNO(write(fd, "x", 1), EPIPE);
    CHECK_EQ(socket_error(fd), 0);
    CHECK_EQ(peer_name(fd), "");
    CHECK_EQ(take(fd), "one");
    CHECK_EQ(take(fd), "two");
    CHECK_EQ(take(fd), "");
    CHECK_EQ(ready(fd, kAll), kAll | POLLHUP);
    CHECK_EQ(int(signals_seen), 0);
  });
}

TEST("a close with unread records is told once, before what is queued") {
  UnixPair p = record_pair();
  put(p.client, "unread");
  put(p.server, "queued");
  close(p.server);
  CHECK_EQ(ready(p.client, kAll), kAll | POLLHUP | POLLERR);
  CHECK_EQ(take_error(p.client), ECONNRESET);
  CHECK_EQ(ready(p.client, kAll), kAll | POLLHUP);
  CHECK_EQ(take(p.client), "queued");
  CHECK_EQ(take(p.client), "");
  CHECK_EQ(put_error(p.client), EPIPE);
}

TEST("whoever asks first is told of the reset: send, or SO_ERROR") {
  for (bool by_option : {false, true}) {
    UnixPair p = record_pair();
    put(p.client, "unread");
    close(p.server);
    if (by_option) CHECK_EQ(socket_error(p.client), ECONNRESET);
    else CHECK_EQ(put_error(p.client), ECONNRESET);
    CHECK_EQ(put_error(p.client), EPIPE);
    CHECK_EQ(take(p.client), "");
  }
}

TEST_EVERYWHERE("half-close: the other direction goes on") {
  Turns turns;
  meet_for_records(where, abstract_name(), [&](int fd) {
    put(fd, "last");
    CHECK_OK(shutdown(fd, SHUT_WR));
    CHECK_EQ(put_error(fd), EPIPE);
    CHECK_EQ(ready(fd, kAll), POLLOUT);
    turns.give(0);
    CHECK_EQ(take(fd), "answer");
    CHECK_EQ(take(fd), "");
    CHECK_EQ(ready(fd, kAll), kAll | POLLHUP);
  }, [&](int fd) {
    turns.await(0);
    CHECK_EQ(ready(fd, kAll), kAll);
    CHECK_EQ(take(fd), "last");
    CHECK_EQ(take(fd), "");
    put(fd, "answer");
    CHECK_OK(shutdown(fd, SHUT_WR));
    CHECK_EQ(ready(fd, kAll), kAll | POLLHUP);
  });
}

TEST("SHUT_RD leaves what is queued, and the other side cannot send") {
  UnixPair p = record_pair();
  put(p.client, "x");
  CHECK_OK(shutdown(p.server, SHUT_RD));
  CHECK_EQ(put_error(p.client), EPIPE);
  CHECK_EQ(ready(p.client, kAll), POLLOUT);
  CHECK_EQ(ready(p.server, kAll), kAll);
  CHECK_EQ(take(p.server), "x");
  CHECK_EQ(take(p.server), "");
  put(p.server, "z");
  CHECK_EQ(take(p.client), "z");
  CHECK_OK(shutdown(p.server, SHUT_RDWR));
  CHECK_EQ(take(p.client), "");
}

TEST("a killed process leaves what it sent, and a reset if it had not read") {
  for (bool reads : {true, false}) {
    std::string name = abstract_name();
    int listener = record_listener(name);
    Turns turns;
    pid_t child = in_child([&] {
      int fd = record_client(name);
      turns.await(0);
      if (reads) CHECK_EQ(take(fd), "to the dead");
      put(fd, "from the dead");
      turns.give(1);
      pause();
    });
    int fd = accept_one(listener);
    put(fd, "to the dead");
    turns.give(0);
    turns.await(1);
    kill(child, SIGKILL);
    CHECK_EQ(wait_exit(child), 128 + SIGKILL);
    await(fd, POLLRDHUP);
    if (!reads) CHECK_EQ(take_error(fd), ECONNRESET);
    CHECK_EQ(take(fd), "from the dead");
    CHECK_EQ(take(fd), "");
    CHECK_EQ(put_error(fd), EPIPE);
  }
}

// ---- waiting ------------------------------------------------------------------------------------

TEST("time-outs and MSG_DONTWAIT are EAGAIN") {
  UnixPair p = record_pair();
  timeval t{0, 30'000};
  CHECK_OK(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  CHECK_OK(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
  char b;
  CHECK_ERRNO(recv(p.server, &b, 1, MSG_DONTWAIT), EAGAIN);
  uint64_t before = now_ms();
  CHECK_EQ(take_error(p.server), EAGAIN);
  CHECK_TRUE(now_ms() - before >= 25);
  fill_with_records(p.client);
  std::string record(50'000, 'x');
  before = now_ms();
  CHECK_ERRNO(send(p.client, record.data(), record.size(), 0), EAGAIN);
  CHECK_TRUE(now_ms() - before >= 25);
}

TEST("signals interrupt, or with SA_RESTART do not") {
  UnixPair p = record_pair();
  std::string record(50'000, 'x');
  fill_with_records(p.client);
  on_signal(SIGUSR1, count_signal);
  int error = 0;
  for (bool sends : {true, false}) {
    Worker worker([&] { error = error_of(sends ? send(p.client, record.data(), record.size(), 0) : recv(p.client, record.data(), 1, 0)); });
    worker.await_sleep();
    worker.signal_until_done(SIGUSR1);
    worker.join();
    CHECK_EQ(error, EINTR);
  }
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  Worker receiver([&] { CHECK_EQ(take(p.client), "at last"); });
  receiver.await_sleep();
  int seen = signals_seen;
  receiver.signal(SIGUSR1);
  eventually([&] { return signals_seen > seen; });
  put(p.server, "at last");
  receiver.join();
}

TEST("a sender that waits hears of close, of SHUT_RD, and of its own end") {
  std::string record(50'000, 'x');
  for (int how = 0; how < 3; ++how) {
    UnixPair p = record_pair();
    fill_with_records(p.client);
    int error = 0;
    Worker sender([&] { error = error_of(send(p.client, record.data(), record.size(), 0)); });
    sender.await_sleep();
    if (how == 0) close(p.server);
    if (how == 1) CHECK_OK(shutdown(p.server, SHUT_RD));
    if (how == 2) CHECK_OK(shutdown(p.client, SHUT_WR));
    sender.join();
    CHECK_EQ(error, how == 0 ? ECONNRESET : EPIPE);
    CHECK_EQ(put_error(p.client), EPIPE);
  }
}

TEST("a reader that waits hears of the end, of a close and of its own end") {
  for (int how = 0; how < 3; ++how) {
    UnixPair p = record_pair();
    Worker reader([&] { CHECK_EQ(take(p.client), ""); });
    reader.await_sleep();
    if (how == 0) CHECK_OK(shutdown(p.server, SHUT_WR));
    if (how == 1) close(p.server);
    if (how == 2) CHECK_OK(shutdown(p.client, SHUT_RD));
  }
}

// ---- forks, exec, passing -------------------------------------------------------------------------

TEST("parent and child share a connection, and send records of any size") {
  std::string name = abstract_name();
  UnixPair p = record_pair(name);
  put(p.client, "small, so that its ring is");
  pid_t child = in_child([&] {
    close(p.server);
    for (int i = 0; i < 50; ++i) put(p.client, "c" + pattern(i, size_t(i) * 3000));
  });
  Worker sender([&] {
    for (int i = 0; i < 50; ++i) put(p.client, "p" + pattern(i, size_t(i) * 2000));
  });
  CHECK_EQ(take(p.server), "small, so that its ring is");
  int from_child = 0, from_parent = 0;
  while (from_child + from_parent < 100) {
    std::string record = take(p.server);
    bool childs = record[0] == 'c';
    int number = childs ? from_child++ : from_parent++;
    CHECK_TRUE(record == (childs ? "c" : "p") + pattern(number, size_t(number) * (childs ? 3000 : 2000)));
  }
  sender.join();
  CHECK_EQ(wait_exit(child), 0);
  close(p.client);
  CHECK_EQ(take(p.server), "");
}

TEST("children that read the same connection each take whole records") {
  std::string name = abstract_name();
  int listener = record_listener(name);
  pid_t server = in_child([&] {
    int fd = accept_one(listener);
    auto read_all = [&] {
      for (;;) {
        std::string record = take(fd);
        if (record.empty()) return;
        int number = std::stoi(record);
        CHECK_TRUE(record == std::to_string(number) + ":" + pattern(number, record_size(number, 20'000)));
      }
    };
    pid_t children[3];
    for (pid_t& c : children) c = in_child(read_all);
    for (pid_t c : children) CHECK_EQ(wait_exit(c), 0);
  });
  int fd = record_client(name);
  for (int i = 0; i < 500; ++i) put(fd, std::to_string(i) + ":" + pattern(i, record_size(i, 20'000)));
  close(fd);
  CHECK_EQ(wait_exit(server), 0);
}

namespace {

// What both sides say in the tests of exec and passing.
void talk_first(int fd) {
  put(fd, "one");
  CHECK_EQ(send(fd, "", 0, 0), 0);
  put(fd, pattern(7, 200'000));
  send_with(fd, "with", {Word("word").out});
  Word w("empty");
  CHECK_EQ(try_send(fd, "", {w.out}), 0);
  CHECK_EQ(take(fd), "back");
  CHECK_EQ(take(fd), "");
  CHECK_TRUE(take(fd) == pattern(8, 150'000));
  Message m = receive(fd);
  CHECK_EQ(m.bytes, "fd");
  CHECK_EQ(word_in(m.fds[0]), "answer");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(take(fd), "end");
  CHECK_EQ(take(fd), "");
}

void talk_second(int fd) {
  CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_SEQPACKET);
  CHECK_EQ(take(fd), "one");
  CHECK_EQ(take(fd), "");
  CHECK_TRUE(take(fd) == pattern(7, 200'000));
  Message m = receive(fd);
  CHECK_EQ(m.bytes, "with");
  CHECK_EQ(word_in(m.fds[0]), "word");
  m = receive(fd);
  CHECK_EQ(m.bytes, "");
  CHECK_EQ(m.fds.size(), 1);
  CHECK_EQ(word_in(m.fds[0]), "empty");
  put(fd, "back");
  CHECK_EQ(send(fd, "", 0, 0), 0);
  put(fd, pattern(8, 150'000));
  send_with(fd, "fd", {Word("answer").out});
  CHECK_EQ(take(fd), "");
  put(fd, "end");
}

}  // namespace

PROGRAM(records_holder) {
  int fd = atoi(args[0].c_str());
  talk_second(fd);
  return 0;
}

PROGRAM(records_acceptor) {
  talk_second(accept_one(atoi(args[0].c_str())));
  return 0;
}

PROGRAM(records_taker) {
  talk_second(receive(atoi(args[0].c_str())).fds[0]);
  return 0;
}

TEST("a program that is given the connection by exec gets records") {
  UnixPair p = record_pair();
  pid_t program = spawn_program("records_holder", {std::to_string(p.client)}, {p.client});
  close(p.client);
  talk_first(p.server);
  CHECK_EQ(wait_exit(program), 0);
}

TEST("a listener that is passed on by exec accepts records") {
  Directory d;
  int listener = record_listener("s");
  pid_t program = spawn_program("records_acceptor", {std::to_string(listener)}, {listener});
  close(listener);
  talk_first(record_client("s"));
  CHECK_EQ(wait_exit(program), 0);
}

TEST("a connection that is passed to another program has records there") {
  int ends[2];
  CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  pid_t program = spawn_program("records_taker", {std::to_string(ends[1])}, {ends[1]});
  close(ends[1]);
  UnixPair p = record_pair();
  send_with(ends[0], "take it", {p.client});
  close(p.client);
  talk_first(p.server);
  CHECK_EQ(wait_exit(program), 0);
}

TEST("records go along with a connection that is sent to another process") {
  std::string name = abstract_name();
  int listener = record_listener(name);
  Turns turns;
  pid_t client = in_child([&] {
    int fd = record_client(name);
    put(fd, "a");
    CHECK_EQ(send(fd, "", 0, 0), 0);
    send_with(fd, "b", {Word("one").out});
    put(fd, pattern(3, 100'000));
    turns.give(0);
    CHECK_EQ(take(fd), "done");
  });
  turns.await(0);
  pollfd look{listener, POLLIN, 0};
  CHECK_EQ(poll(&look, 1, -1), 1);
  pid_t worker = in_child([&] {
    int fd = accept_one(listener);
    CHECK_EQ(take(fd), "a");
    CHECK_EQ(take(fd), "");
    Message m = receive(fd);
    CHECK_EQ(m.bytes, "b");
    CHECK_EQ(word_in(m.fds[0]), "one");
    CHECK_TRUE(take(fd) == pattern(3, 100'000));
    put(fd, "done");
  });
  close(listener);
  CHECK_EQ(wait_exit(worker), 0);
  CHECK_EQ(wait_exit(client), 0);
}

TEST("records that wait for a busy worker go to an idle one") {
  std::string name = abstract_name();
  Turns turns;
  int listener = record_listener(name);
  pid_t busy = in_child([&] {
    int fd = accept_one(listener);
    put(fd, "first");
    turns.await(0);
  });
  int first = record_client(name);
  CHECK_EQ(take(first), "first");
  pid_t idle = in_child([&] {
    int fd = accept_one(listener);
    CHECK_EQ(take(fd), "ab");
    CHECK_EQ(take(fd), "");
    CHECK_TRUE(take(fd) == pattern(1, 100'000));
    put(fd, "second");
  });
  close(listener);
  int second = record_client(name);
  put(second, "ab");
  CHECK_EQ(send(second, "", 0, 0), 0);
  put(second, pattern(1, 100'000));
  CHECK_EQ(take(second), "second");
  turns.give(0);
  CHECK_EQ(wait_exit(busy), 0);
  CHECK_EQ(wait_exit(idle), 0);
}

TEST("records go along with a connection that nobody with the shim accepts") {
  Directory d;
  int listener = record_listener("s", 16, SOCK_CLOEXEC);
  Turns turns;
  pid_t client = in_child([&] {
    int fd = record_client("s");
    turns.give(0);
    talk_first(fd);
  });
  turns.await(0);
  pid_t server = in_child([&] {
    unsetenv("LD_PRELOAD");
    _exit(wait_exit(spawn_program("records_acceptor", {std::to_string(listener)}, {listener})));
  });
  close(listener);
  CHECK_EQ(wait_exit(server), 0);
  CHECK_EQ(wait_exit(client), 0);
}
