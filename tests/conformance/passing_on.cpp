// More of passing descriptors: to programs of all kinds, on and back, and what happens on the way.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>

#include <thread>

#include "channel.h"
#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "raw_calls.h"
#include "sockets.h"

using namespace conformance;

// ---- many at once, on and back --------------------------------------------------------------

namespace {

struct Taken {
  std::vector<int> fds;
  int flags;
};

Taken take_some(int channel, size_t room, int flags = 0) {
  char control[CMSG_SPACE(16 * sizeof(int))], byte;
  iovec one{&byte, 1};
  msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = room == 0 ? 0 : CMSG_LEN(room * sizeof(int));
  CHECK_EQ(recvmsg(channel, &message, flags), 1);
  Taken taken{{}, message.msg_flags};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr) return taken;
  taken.fds.resize((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  memcpy(taken.fds.data(), CMSG_DATA(header), taken.fds.size() * sizeof(int));
  return taken;
}

// A program with its channel, which was there before any connection.
struct Taker {
  Channel channel;
  pid_t process;
  explicit Taker(const char* program, std::vector<std::string> more = {}) {
    more.insert(more.begin(), std::to_string(channel.theirs));
    process = spawn_program(program, more, {channel.theirs});
    CHECK_OK(close(channel.theirs));
    CHECK_EQ(read_exactly(channel.mine, 1), "r");  // it runs
  }
  void end() {
    CHECK_OK(close(channel.mine));
    CHECK_EQ(wait_exit(process), 0);
  }
};

void say_ready(int channel) { write_all(channel, "r"); }

void echo_each(int channel) {
  for (;;) {
    char control[CMSG_SPACE(16 * sizeof(int))], byte;
    iovec one{&byte, 1};
    msghdr message{};
    message.msg_iov = &one;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (CHECK_OK(recvmsg(channel, &message, 0)) == 0) return;
    for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
      std::vector<int> fds((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      memcpy(fds.data(), CMSG_DATA(h), fds.size() * sizeof(int));
      for (int fd : fds) {
        echo_to_end(fd);
        CHECK_OK(close(fd));
      }
    }
  }
}

}  // namespace

PROGRAM(echo_each_passed) {
  int channel = std::stoi(args[0]);
  say_ready(channel);
  return echo_each(channel), 0;
}

// Passes everything on to a third program.
PROGRAM(relay_passed) {
  int channel = std::stoi(args[0]);
  Taker next("echo_each_passed");
  say_ready(channel);
  for (;;) {
    char control[CMSG_SPACE(16 * sizeof(int))], byte;
    iovec one{&byte, 1};
    msghdr message{};
    message.msg_iov = &one;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (CHECK_OK(recvmsg(channel, &message, 0)) == 0) break;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    std::vector<int> fds((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds.data(), CMSG_DATA(header), fds.size() * sizeof(int));
    pass(next.channel.mine, fds);
    for (int fd : fds) CHECK_OK(close(fd));
  }
  next.end();
  return 0;
}

TEST_EVERYWHERE("connections passed one after the other go on in a program that waits for them") {
  Taker taker("echo_each_passed");
  for (int i = 0; i < 20; i++) {
    auto [fd, peer] = connect_peer(where);
    peer.send("before, ");
    pass(taker.channel.mine, {fd});
    CHECK_OK(close(fd));
    peer.send("after");
    CHECK_EQ(peer.receive(13), "before, after");
    peer.shutdown(SHUT_WR);
    CHECK_EQ(peer.receive(1), "");
  }
  taker.end();
}

TEST("connections of one peer are passed by the hundred") {
  Taker taker("echo_each_passed");
  Listener listener = make_listener();
  for (int i = 0; i < 300; i++) {
    auto [client, server] = make_pair(listener);
    pass(taker.channel.mine, {server});
    CHECK_OK(close(server));
    write_all(client, "hello");
    CHECK_OK(shutdown(client, SHUT_WR));
    CHECK_EQ(read_to_end(client), "hello");
    CHECK_OK(close(client));
  }
  taker.end();
}

TEST_EVERYWHERE("a passed connection is passed on") {
  Taker relay("relay_passed");
  for (int i = 0; i < 3; i++) {
    auto [fd, peer] = connect_peer(where);
    pass(relay.channel.mine, {fd});
    CHECK_OK(close(fd));
    peer.send("to a third");
    CHECK_EQ(peer.receive(10), "to a third");
    peer.shutdown(SHUT_WR);
    CHECK_EQ(peer.receive(1), "");
  }
  relay.end();
}

// Takes a connection and echoes past libc: to the sender it has no shim.
PROGRAM(echo_past_libc) {
  int channel = std::stoi(args[0]);
  say_ready(channel);
  char control[CMSG_SPACE(sizeof(int))], byte;
  iovec one{&byte, 1};
  msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(raw_call(SYS_recvmsg, channel, long(&message), 0), 1);
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  char bytes[100];
  for (long n; (n = raw_read(fd, bytes, sizeof bytes)) > 0;) CHECK_EQ(raw_write(fd, bytes, size_t(n)), n);
  return 0;
}

// Passes a connection to this very process, and talks to the echo at its other end.
static void pass_back_and_use(int client) {
  Channel channel;
  pass(channel.mine, {client});
  CHECK_OK(close(client));
  client = take(channel.theirs)[0];
  write_all(client, "hello");
  CHECK_EQ(read_exactly(client, 5), "hello");
  CHECK_OK(shutdown(client, SHUT_WR));
  CHECK_EQ(read_to_end(client), "");
  CHECK_OK(close(client));
}

TEST("one end of a connection is passed after a stranger got the other") {
  Listener listener = make_listener();
  auto [client, server] = make_pair(listener);
  Taker taker("echo_past_libc");
  pass(taker.channel.mine, {server});
  CHECK_OK(close(server));
  write_all(client, "before");
  CHECK_EQ(read_exactly(client, 6), "before");
  pass_back_and_use(client);
  taker.end();
}

TEST("both ends of a connection are passed") {
  Listener listener = make_listener();
  auto [client, server] = make_pair(listener);
  Taker taker("echo_each_passed");
  pass(taker.channel.mine, {server});
  CHECK_OK(close(server));
  pass_back_and_use(client);
  taker.end();
}

TEST_EVERYWHERE("a message takes connections, listeners and other descriptors at once") {
  auto [fd, peer] = connect_peer(where);
  auto [second, other] = connect_peer(where);
  Listener listener = make_listener();
  int pipe_ends[2];
  CHECK_OK(pipe(pipe_ends));
  Channel channel;
  pass(channel.mine, {fd, pipe_ends[0], listener.fd, second, fd});
  for (int sent : {fd, second, pipe_ends[0], listener.fd}) CHECK_OK(close(sent));
  auto taken = take(channel.theirs);
  CHECK_EQ(taken.size(), 5);
  peer.send("one");
  other.send("two");
  write_all(pipe_ends[1], "six");
  CHECK_EQ(read_exactly(taken[0], 3), "one");
  CHECK_EQ(read_exactly(taken[1], 3), "six");
  CHECK_EQ(read_exactly(taken[3], 3), "two");
  peer.send("again");
  CHECK_EQ(read_exactly(taken[4], 5), "again");
  int client = connect_to(listener.port);
  int accepted = CHECK_OK(accept(taken[2], nullptr, nullptr));
  write_all(client, "in");
  CHECK_EQ(read_exactly(accepted, 2), "in");
  CHECK_OK(close(taken[0]));
  peer.send("still");
  CHECK_EQ(read_exactly(taken[4], 5), "still");
  CHECK_OK(close(taken[4]));
  CHECK_EQ(peer.receive(1), "");
}

// ---- what happens on the way ----------------------------------------------------------------

TEST_EVERYWHERE("a connection in flight outlives its sender") {
  Channel channel;
  auto [fd, peer] = connect_peer(where);
  pid_t sender = in_child([&] { pass(channel.mine, {fd}); });
  CHECK_OK(close(fd));
  CHECK_EQ(wait_exit(sender), 0);
  peer.send("hello");
  int taken = take(channel.theirs)[0];
  CHECK_EQ(read_exactly(taken, 5), "hello");
  write_all(taken, "world");
  CHECK_EQ(peer.receive(5), "world");
  CHECK_OK(close(taken));
  CHECK_EQ(peer.receive(1), "");
}

PROGRAM(pass_and_end) {
  int channel = std::stoi(args[0]);
  auto [fd, server] = make_pair(Listener{CHECK_OK(dup(std::stoi(args[1]))), uint16_t(std::stoi(args[2]))});
  pass(channel, {server});
  write_all(fd, "from one who is gone");
  return 0;
}

TEST("both ends in flight outlive the program that had them") {
  Listener listener = make_listener();
  Channel channel;
  pid_t sender = spawn_program(
      "pass_and_end", {std::to_string(channel.mine), std::to_string(listener.fd), std::to_string(listener.port)},
      {channel.mine, listener.fd});
  CHECK_EQ(wait_exit(sender), 0);
  int taken = take(channel.theirs)[0];
  CHECK_EQ(read_to_end(taken), "from one who is gone");
}

TEST_EVERYWHERE("a message that is peeked at gives its connection twice") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  auto peeked = take_some(channel.theirs, 4, MSG_PEEK).fds;
  CHECK_EQ(peeked.size(), 1);
  peer.send("peeked");
  CHECK_EQ(read_exactly(peeked[0], 6), "peeked");
  CHECK_OK(close(peeked[0]));
  peer.send("taken");
  auto taken = take_some(channel.theirs, 4).fds;
  CHECK_EQ(taken.size(), 1);
  CHECK_EQ(read_exactly(taken[0], 5), "taken");
  CHECK_OK(close(taken[0]));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("descriptors that do not fit are closed") {
  auto [fd, peer] = connect_peer(where);
  auto [second, other] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd, second});
  CHECK_OK(close(fd));
  CHECK_OK(close(second));
  auto [taken, flags] = take_some(channel.theirs, 1);
  CHECK_EQ(taken.size(), 1);
  CHECK_EQ(flags & MSG_CTRUNC, MSG_CTRUNC);
  CHECK_EQ(other.receive(1), "");
  peer.send("hello");
  CHECK_EQ(read_exactly(taken[0], 5), "hello");
}

TEST_EVERYWHERE("a receiver without room for descriptors ends the connection") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  char byte;
  CHECK_EQ(read(channel.theirs, &byte, 1), 1);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("sendmmsg passes and recvmmsg takes") {
  auto [fd, peer] = connect_peer(where);
  auto [second, other] = connect_peer(where);
  int ends[2];
  CHECK_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
  char control[2][CMSG_SPACE(sizeof(int))] = {}, byte = '!';
  iovec one{&byte, 1};
  mmsghdr messages[2] = {};
  for (int i = 0; i < 2; i++) {
    messages[i].msg_hdr.msg_iov = &one;
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_control = control[i];
    messages[i].msg_hdr.msg_controllen = sizeof control[i];
    cmsghdr* header = CMSG_FIRSTHDR(&messages[i].msg_hdr);
    *header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), i == 0 ? &fd : &second, sizeof(int));
  }
  CHECK_EQ(sendmmsg(ends[0], messages, 2, 0), 2);
  int sent;
  memcpy(&sent, CMSG_DATA(CMSG_FIRSTHDR(&messages[0].msg_hdr)), sizeof sent);
  CHECK_EQ(sent, fd);  // the program's memory is its own
  CHECK_OK(close(fd));
  CHECK_OK(close(second));
  CHECK_EQ(recvmmsg(ends[1], messages, 2, 0, nullptr), 2);
  int taken[2];
  for (int i = 0; i < 2; i++) memcpy(&taken[i], CMSG_DATA(CMSG_FIRSTHDR(&messages[i].msg_hdr)), sizeof(int));
  peer.send("one");
  other.send("two");
  CHECK_EQ(read_exactly(taken[0], 3), "one");
  CHECK_EQ(read_exactly(taken[1], 3), "two");
}

// ---- what goes along --------------------------------------------------------------------------

TEST_EVERYWHERE("flags, options and addresses go along") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_nonblocking(fd);
  std::string mine = local_address(fd).text(), theirs = peer_address(fd).text();
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  int taken = take(channel.theirs)[0];
  CHECK_EQ(option(taken, IPPROTO_TCP, TCP_NODELAY), 1);
  CHECK_EQ(option(taken, SOL_SOCKET, SO_KEEPALIVE), 1);
  CHECK_EQ(option(taken, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  CHECK_EQ(option(taken, SOL_SOCKET, SO_DOMAIN), AF_INET);
  CHECK_EQ(fcntl(taken, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(local_address(taken).text(), mine);
  CHECK_EQ(peer_address(taken).text(), theirs);
  char byte;
  CHECK_ERRNO(read(taken, &byte, 1), EAGAIN);
}

TEST_EVERYWHERE("bytes under way in both directions arrive after a pass") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t filled = fill(fd);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  int taken = take(channel.theirs)[0];
  set_nonblocking(taken, false);
  peer.send("back");
  CHECK_EQ(read_exactly(taken, 4), "back");
  std::thread rest([&] { CHECK_OK(shutdown(taken, SHUT_WR)); });
  peer.start_receiving(filled, 65536);
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(peer.receive(1), "");
  rest.join();
}

PROGRAM(accept_passed_ready) {
  int channel = std::stoi(args[0]);
  say_ready(channel);
  echo_to_end(CHECK_OK(accept(take(channel)[0], nullptr, nullptr)));
  return 0;
}

PROGRAM(send_passed) {
  int channel = std::stoi(args[0]);
  say_ready(channel);
  int fd = take(channel)[0];
  CHECK_EQ(send_pattern(fd, std::stoull(args[1]), 10'007), 0);
  return 0;
}

TEST_EVERYWHERE("a taker sends more than fits to a peer that sleeps") {
  constexpr uint64_t kTotal = 8 << 20;
  Taker taker("send_passed", {std::to_string(kTotal)});
  auto [fd, peer] = connect_peer(where);
  peer.start_receiving(kTotal, 65536);
  if (peer.is_process()) await_sleep(peer.process());
  pass(taker.channel.mine, {fd});
  CHECK_OK(close(fd));
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(peer.receive(1), "");
  taker.end();
}

PROGRAM(receive_passed) {
  int channel = std::stoi(args[0]);
  say_ready(channel);
  int fd = take(channel)[0];
  CHECK_EQ(receive_pattern(fd, std::stoull(args[1]), 65536), 0);
  return 0;
}

TEST_EVERYWHERE("a taker receives what a peer is blocked in sending") {
  constexpr uint64_t kTotal = 8 << 20;
  Taker taker("receive_passed", {std::to_string(kTotal)});
  auto [fd, peer] = connect_peer(where);
  peer.start_sending(kTotal, 10'007);
  if (peer.is_process()) await_sleep(peer.process());
  pass(taker.channel.mine, {fd});
  CHECK_OK(close(fd));
  CHECK_EQ(peer.finish(), 0);
  taker.end();
}

PROGRAM(serve_by_epoll) {
  int channel = std::stoi(args[0]);
  EpollSet set;
  set.add(channel, EPOLLIN);
  say_ready(channel);
  for (int open = 1; open > 0;) {
    for (auto [fd, events] : set.wait(-1)) {
      if (fd == channel) {
        Taken taken = take_some(channel, 4);
        for (int t : taken.fds) {
          set_nonblocking(t);
          set.add(t, EPOLLIN | EPOLLET);
        }
        if (!taken.fds.empty()) open++;
        continue;
      }
      char piece[4096];
      ssize_t n;
      while ((n = read(fd, piece, sizeof piece)) > 0) write_all(fd, {piece, size_t(n)});
      if (n != 0) continue;
      CHECK_OK(close(fd));
      if (--open == 1) return 0;
    }
  }
  return 0;
}

TEST_EVERYWHERE("a taker waits for passed connections with epoll") {
  Taker taker("serve_by_epoll");
  auto [fd, peer] = connect_peer(where);
  auto [second, other] = connect_peer(where);
  pass(taker.channel.mine, {fd});
  pass(taker.channel.mine, {second});
  CHECK_OK(close(fd));
  CHECK_OK(close(second));
  for (int i = 0; i < 50; i++) {
    peer.send("ping");
    CHECK_EQ(peer.receive(4), "ping");
    await_sleep(taker.process);
    other.send("pong");
    CHECK_EQ(other.receive(4), "pong");
  }
  peer.shutdown(SHUT_WR);
  other.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(other.receive(1), "");
  taker.end();
}

TEST_EVERYWHERE("a thread that waits for bytes goes on waiting while its connection is passed") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  std::string heard;
  Worker waiting([&, fd = fd] { heard = read_exactly(fd, 5); });
  waiting.await_sleep();
  pass(channel.mine, {fd});
  int taken = take(channel.theirs)[0];
  peer.send("hello");
  waiting.join();
  CHECK_EQ(heard, "hello");
  peer.send("world");
  CHECK_EQ(read_exactly(taken, 5), "world");
}

// ---- to whom ----------------------------------------------------------------------------------

namespace {

// As spawn_program, with an environment that names nothing.
pid_t spawn_bare(const char* program, const std::vector<std::string>& args, int channel) {
  pid_t pid = CHECK_OK(fork());
  if (pid) return pid;
  std::vector<std::string> words{"bare", std::string("--program=") + program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  char* nothing[] = {nullptr};
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  fcntl(channel, F_SETFD, 0);
  execve("/proc/self/exe", argv.data(), nothing);
  _exit(127);
}

}  // namespace

TEST_EVERYWHERE("a program with an empty environment takes a connection") {
  Channel channel;
  pid_t taker = spawn_bare("echo_each_passed", {std::to_string(channel.theirs)}, channel.theirs);
  CHECK_OK(close(channel.theirs));
  CHECK_EQ(read_exactly(channel.mine, 1), "r");
  for (int i = 0; i < 3; i++) {
    auto [fd, peer] = connect_peer(where);
    pass(channel.mine, {fd});
    CHECK_OK(close(fd));
    peer.send("hello");
    CHECK_EQ(peer.receive(5), "hello");
    peer.shutdown(SHUT_WR);
    CHECK_EQ(peer.receive(1), "");
  }
  CHECK_OK(close(channel.mine));
  CHECK_EQ(wait_exit(taker), 0);
}

PROGRAM(take_at_path) {
  sockaddr_un to{AF_UNIX, {}};
  strcpy(to.sun_path, args[0].c_str());
  int channel = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK_OK(connect(channel, reinterpret_cast<sockaddr*>(&to), sizeof to));
  return echo_each(channel), 0;
}

namespace {

void pass_at_path(Where where, const std::function<pid_t(const std::string&)>& spawn) {
  std::string path = "/tmp/sluice-passing-" + std::to_string(getpid());
  sockaddr_un name{AF_UNIX, {}};
  strcpy(name.sun_path, path.c_str());
  int listening = CHECK_OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  unlink(path.c_str());
  CHECK_OK(bind(listening, reinterpret_cast<sockaddr*>(&name), sizeof name));
  CHECK_OK(listen(listening, 1));
  pid_t taker = spawn(path);
  int channel = CHECK_OK(accept(listening, nullptr, nullptr));
  unlink(path.c_str());
  for (int i = 0; i < 3; i++) {
    auto [fd, peer] = connect_peer(where);
    pass(channel, {fd});
    CHECK_OK(close(fd));
    peer.send("hello");
    CHECK_EQ(peer.receive(5), "hello");
    peer.shutdown(SHUT_WR);
    CHECK_EQ(peer.receive(1), "");
  }
  CHECK_OK(close(channel));
  CHECK_EQ(wait_exit(taker), 0);
}

}  // namespace

TEST_EVERYWHERE("a connection is passed over a socket with a name") {
  pass_at_path(where, [](const std::string& path) { return spawn_program("take_at_path", {path}); });
}

TEST_EVERYWHERE("a connection is passed over a socket with a name to a program with an empty environment") {
  pass_at_path(where, [](const std::string& path) { return spawn_bare("take_at_path", {path}, 2); });
}

TEST("a listener that comes back is the same listener") {
  Listener listener = make_listener();
  Channel channel;
  pass(channel.mine, {listener.fd});
  int taken = take(channel.theirs)[0];
  int client = connect_to(listener.port);
  int accepted = CHECK_OK(accept(taken, nullptr, nullptr));
  write_all(client, "hello");
  CHECK_EQ(read_exactly(accepted, 5), "hello");
  CHECK_OK(close(listener.fd));
  int second = connect_to(listener.port);
  accepted = CHECK_OK(accept(taken, nullptr, nullptr));
  write_all(second, "again");
  CHECK_EQ(read_exactly(accepted, 5), "again");
}

TEST("what waits at a listener is accepted by whom it is passed to") {
  Listener listener = make_listener();
  Peer client = spawn_client(listener.port);
  CHECK_EQ(client.reply(), 0);
  client.send("early");
  Channel channel;
  Taker taker("accept_passed_ready");
  pass(taker.channel.mine, {listener.fd});
  CHECK_OK(close(listener.fd));
  CHECK_EQ(client.receive(5), "early");
  client.shutdown(SHUT_WR);
  CHECK_EQ(client.receive(1), "");
  taker.end();
}

PROGRAM(take_while_waiting) {
  int channel = std::stoi(args[0]);
  EpollSet set;
  Worker waiting([&] {
    int fd = set.wait(-1).begin()->first;
    echo_to_end(fd);
  });
  waiting.await_sleep();
  say_ready(channel);
  int fd = take(channel)[0];
  set.add(fd, EPOLLIN);
  write_all(channel, "t");
  waiting.join();
  return 0;
}

TEST_EVERYWHERE("a thread that waits already hears of a connection that another thread takes") {
  Taker taker("take_while_waiting");
  auto [fd, peer] = connect_peer(where);
  pass(taker.channel.mine, {fd});
  CHECK_OK(close(fd));
  CHECK_EQ(read_exactly(taker.channel.mine, 1), "t");
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  taker.end();
}

TEST_EVERYWHERE("a connection that a forked child holds as well is passed") {
  Taker taker("echo_each_passed");
  auto [fd, peer] = connect_peer(where);
  int hold[2];
  CHECK_OK(pipe(hold));
  pid_t child = in_child([&] {
    CHECK_OK(close(hold[1]));
    CHECK_OK(close(taker.channel.mine));
    CHECK_EQ(read_once(hold[0]), "");
  });
  pass(taker.channel.mine, {fd});
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  taker.end();
  CHECK_OK(close(hold[1]));
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("a forked child goes on with what its parent was passed") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  int taken = take(channel.theirs)[0];
  pid_t child = in_child([&] {
    CHECK_EQ(read_exactly(taken, 5), "hello");
    write_all(taken, "world");
  });
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "world");
  CHECK_EQ(wait_exit(child), 0);
  write_all(taken, "again");
  CHECK_EQ(peer.receive(5), "again");
  CHECK_OK(close(taken));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("a taker resets") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  int taken = take(channel.theirs)[0];
  peer.send("unread");
  await(taken, POLLIN);
  reset(taken);
  CHECK_EQ(peer.receive_error(), ECONNRESET);
}
