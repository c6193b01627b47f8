// How connections end: by halves, in order, by reset, by death, and not at all while somebody
// still holds them.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

int send_error(int fd) { return send(fd, "x", 1, MSG_NOSIGNAL) < 0 ? errno : 0; }

int read_error(int fd) {
  char byte;
  return read(fd, &byte, 1) < 0 ? errno : 0;
}

// A first send after the peer's close still succeeds; the reset that it provokes takes effect.
void send_until_error(int fd, int expected) {
  int error = 0;
  while ((error = send_error(fd)) == 0) pause_ms(1);
  CHECK_EQ(error, expected);
}

}  // namespace

TEST_EVERYWHERE("shutdown of writing ends the peer's stream, the other direction goes on") {
  auto [fd, peer] = connect_peer(where);
  write_all(fd, "question");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(peer.receive(100), "question");
  peer.send("answer");
  CHECK_EQ(read_exactly(fd, 6), "answer");
  CHECK_EQ(send_error(fd), EPIPE);
  peer.send("more");
  CHECK_EQ(read_exactly(fd, 4), "more");
}

TEST_EVERYWHERE("a peer's half-close is the end of the stream, for good") {
  auto [fd, peer] = connect_peer(where);
  peer.send("last");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(read_to_end(fd), "last");
  for (int i = 0; i < 3; i++) CHECK_EQ(read_once(fd), "");
  write_all(fd, "still open");
  CHECK_EQ(peer.receive(10), "still open");
}

TEST_EVERYWHERE("a blocked read ends when the peer closes") {
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_once(fd), ""); });
  reader.await_sleep();
  peer.close();
}

TEST_EVERYWHERE("shutdown of reading ends reads at once, bytes still arrive") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(shutdown(fd, SHUT_RD));
  CHECK_EQ(read_once(fd), "");
  peer.send("late");
  eventually([fd = fd] { return unread(fd) == 4; });
  CHECK_EQ(read_once(fd), "late");
  CHECK_EQ(read_once(fd), "");
  write_all(fd, "x");
  CHECK_EQ(peer.receive(1), "x");
}

TEST_EVERYWHERE("shutdown of both ends both") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(shutdown(fd, SHUT_RDWR));
  CHECK_EQ(read_once(fd), "");
  CHECK_EQ(send_error(fd), EPIPE);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("shutdown twice is no error, with a wrong argument EINVAL") {
  auto [fd, peer] = connect_peer(where);
  CHECK_ERRNO(shutdown(fd, 3), EINVAL);
  CHECK_ERRNO(shutdown(fd, -1), EINVAL);
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_OK(shutdown(fd, SHUT_RD));
}

TEST_EVERYWHERE("after both sides ended, shutdown gives ENOTCONN") {
  auto [fd, peer] = connect_peer(where);
  peer.close();
  CHECK_EQ(read_once(fd), "");
  CHECK_OK(shutdown(fd, SHUT_WR));
  eventually([fd = fd] { return ready(fd, POLLIN) & POLLHUP; });
  eventually([fd = fd] { return shutdown(fd, SHUT_WR) < 0; });
  CHECK_EQ(errno, ENOTCONN);
  Address address;
  CHECK_ERRNO(getpeername(fd, address.get(), &address.size), ENOTCONN);
}

TEST_EVERYWHERE("a write after shutdown raises SIGPIPE") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGPIPE, count_signal);
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_ERRNO(write(fd, "x", 1), EPIPE);
  CHECK_EQ(signals_seen, 1);
  CHECK_ERRNO(send(fd, "x", 1, 0), EPIPE);
  CHECK_EQ(signals_seen, 2);
  CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(signals_seen, 2);
}

TEST_EVERYWHERE("SIGPIPE kills who does not handle it") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = in_child([fd = fd] {
    shutdown(fd, SHUT_WR);
    (void)!write(fd, "x", 1);
  });
  CHECK_EQ(wait_exit(child), 128 + SIGPIPE);
}

TEST_EVERYWHERE("writing to a closed peer is reset, then a broken pipe") {
  auto [fd, peer] = connect_peer(where);
  peer.close();
  CHECK_EQ(read_once(fd), "");
  CHECK_EQ(send_error(fd), 0);
  send_until_error(fd, EPIPE);
  CHECK_EQ(send_error(fd), EPIPE);
  CHECK_EQ(read_error(fd), 0);
}

// What a reset says that comes after the peer's end, or after both sides'.
int error_of(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
  return error;
}

TEST_EVERYWHERE("a peer that shuts down writing and closes with bytes unread leaves its last bytes, and EPIPE") {
  auto [fd, peer] = connect_peer(where);
  write_all(fd, "never read");
  peer.send("last");
  peer.shutdown(SHUT_WR);
  peer.close();
  await(fd, POLLHUP);
  CHECK_EQ(read_to_end(fd), "last");
  CHECK_EQ(read_once(fd), "");
  CHECK_EQ(error_of(fd), EPIPE);
  CHECK_EQ(error_of(fd), 0);
  CHECK_EQ(send_error(fd), EPIPE);
}

TEST_EVERYWHERE("a reset after both sides' ends is no error") {
  auto [fd, peer] = connect_peer(where);
  write_all(fd, "never read");
  peer.send("last");
  peer.shutdown(SHUT_WR);
  CHECK_OK(shutdown(fd, SHUT_WR));
  peer.close();
  await(fd, POLLHUP);
  CHECK_EQ(ready(fd, POLLIN) & POLLERR, 0);
  CHECK_EQ(read_to_end(fd), "last");
  CHECK_EQ(error_of(fd), 0);
}

TEST_EVERYWHERE("a peer that has shut down both ways resets who writes") {
  auto [fd, peer] = connect_peer(where);
  peer.shutdown(SHUT_RDWR);
  CHECK_EQ(read_once(fd), "");
  CHECK_EQ(send_error(fd), 0);
  send_until_error(fd, EPIPE);
}

TEST_EVERYWHERE("sending nothing to a closed peer succeeds, any number of times") {
  auto [fd, peer] = connect_peer(where);
  peer.close();
  CHECK_EQ(read_once(fd), "");
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(send(fd, "", 0, MSG_NOSIGNAL), 0);
    CHECK_EQ(write(fd, "", 0), 0);
  }
  CHECK_EQ(send_error(fd), 0);  // the first byte is still taken
  send_until_error(fd, EPIPE);
}

TEST_EVERYWHERE("everything written before close is read") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  CHECK_OK(close(fd));
  peer.start_receiving(sent, 10'007);
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("everything the peer wrote before it closed is read") {
  auto [fd, peer] = connect_peer(where);
  size_t sent = peer.fill();
  peer.close();
  CHECK_EQ(receive_pattern(fd, sent, 10'007), 0);
  CHECK_EQ(read_once(fd), "");
}

TEST_ACROSS_PROCESSES("everything the peer wrote before it was killed is read") {
  auto [fd, peer] = connect_peer(where);
  size_t sent = peer.fill();
  peer.kill();
  CHECK_EQ(receive_pattern(fd, sent, 10'007), 0);
  CHECK_EQ(read_once(fd), "");
}

TEST_ACROSS_PROCESSES("a killed peer ends a blocked read") {
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_once(fd), ""); });
  reader.await_sleep();
  peer.kill();
}

TEST_ACROSS_PROCESSES("a killed peer with bytes unread resets") {
  auto [fd, peer] = connect_peer(where);
  write_all(fd, "never read");
  peer.send("x");  // what was sent before it has arrived
  CHECK_EQ(read_once(fd), "x");
  peer.kill();
  await(fd, POLLIN);
  CHECK_EQ(read_error(fd), ECONNRESET);
}

TEST_ACROSS_PROCESSES("a killed peer ends a blocked write") {
  auto [fd, peer] = connect_peer(where);
  Worker writer([fd = fd] {
    int error = send_pattern(fd, 1ull << 40, 65'536);
    CHECK_TRUE(error == -ECONNRESET || error == -EPIPE);
  });
  writer.await_sleep();
  peer.kill();
}

TEST_EVERYWHERE("close with bytes unread resets the peer, after what it can still read is lost") {
  auto [fd, peer] = connect_peer(where);
  write_all(fd, "unread");
  peer.send("x");
  peer.close();
  await(fd, POLLRDHUP);
  CHECK_EQ(read_error(fd), 0);  // the byte sent before is still there
  CHECK_EQ(read_error(fd), ECONNRESET);
  CHECK_EQ(read_error(fd), 0);
  CHECK_EQ(send_error(fd), EPIPE);
}

TEST_EVERYWHERE("SO_LINGER of zero resets") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  CHECK_EQ(await(fd, POLLIN), POLLIN | POLLERR | POLLHUP);
  CHECK_EQ(read_error(fd), ECONNRESET);
  CHECK_EQ(read_error(fd), 0);
  CHECK_EQ(send_error(fd), EPIPE);
}

TEST_EVERYWHERE("the first write after a reset gives ECONNRESET") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  await(fd, POLLERR);
  CHECK_EQ(send_error(fd), ECONNRESET);
  CHECK_EQ(send_error(fd), EPIPE);
  CHECK_EQ(read_error(fd), 0);
}

TEST_EVERYWHERE("SO_ERROR takes the reset away from read") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  await(fd, POLLERR);
  CHECK_EQ(socket_error(fd), ECONNRESET);
  CHECK_EQ(socket_error(fd), 0);
  CHECK_EQ(read_error(fd), 0);
}

TEST_EVERYWHERE("a reset lets bytes be read that had arrived before it") {
  auto [fd, peer] = connect_peer(where);
  peer.send("abc");
  eventually([fd = fd] { return unread(fd) == 3; });
  peer.reset();
  await(fd, POLLERR);
  CHECK_EQ(read_once(fd), "abc");
  CHECK_EQ(read_error(fd), ECONNRESET);
}

TEST_EVERYWHERE("a socket that was reset before it was used has no peer") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  sockaddr_storage name;
  eventually([&, fd = fd] {
    socklen_t length = sizeof name;
    return getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) == -1 && errno == ENOTCONN;
  });
}

TEST_EVERYWHERE("a reset socket has no peer, though bytes are left") {
  auto [fd, peer] = connect_peer(where);
  peer.send("abc");
  eventually([fd = fd] { return unread(fd) == 3; });
  peer.reset();
  sockaddr_storage name;
  eventually([&, fd = fd] {
    socklen_t length = sizeof name;
    return getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) == -1 && errno == ENOTCONN;
  });
  CHECK_EQ(read_once(fd), "abc");
}

TEST_EVERYWHERE("a reset wakes a blocked read and a blocked write") {
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] {
    int error = read_error(fd);
    CHECK_TRUE(error == ECONNRESET || error == 0);
  });
  Worker writer([fd = fd] {
    int error = send_pattern(fd, 1ull << 40, 65'536);
    CHECK_TRUE(error == -ECONNRESET || error == -EPIPE);
  });
  reader.await_sleep();
  writer.await_sleep();
  peer.reset();
}

TEST_EVERYWHERE("SO_LINGER with a time-out still delivers everything") {
  auto [fd, peer] = connect_peer(where);
  linger patience{1, 10};
  CHECK_OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &patience, sizeof patience));
  peer.start_receiving(4 << 20, 10'007);
  CHECK_EQ(send_pattern(fd, 4 << 20, 65'536), 0);
  CHECK_OK(close(fd));
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("a duplicate keeps the connection open") {
  auto [fd, peer] = connect_peer(where);
  int copy = CHECK_OK(dup(fd));
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(read_exactly(copy, 5), "hello");
  write_all(copy, "world");
  CHECK_EQ(peer.receive(5), "world");
  CHECK_OK(close(copy));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("shutdown acts on every duplicate") {
  auto [fd, peer] = connect_peer(where);
  int copy = CHECK_OK(dup(fd));
  CHECK_OK(shutdown(copy, SHUT_WR));
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(send_error(fd), EPIPE);
}

TEST_EVERYWHERE("a forked child's close and exit do not end the parent's connection") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(wait_exit(in_child([fd = fd] { CHECK_OK(close(fd)); })), 0);
  CHECK_EQ(wait_exit(in_child([] {})), 0);
  pid_t killed = in_child([] { pause(); });
  CHECK_OK(kill(killed, SIGKILL));
  wait_exit(killed);
  peer.send("hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
  write_all(fd, "world");
  CHECK_EQ(peer.receive(5), "world");
  CHECK_OK(close(fd));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("the stream ends when the last process has closed it") {
  auto [fd, peer] = connect_peer(where);
  int ends[2];
  CHECK_OK(pipe(ends));
  pid_t child = in_child([&, fd = fd] {
    char byte;
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    write_all(fd, "from the child");
  });
  CHECK_OK(close(fd));
  write_all(ends[1], "!");
  CHECK_EQ(peer.receive(100), "from the child");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a child serves while the parent has closed its copy") {
  auto [fd, peer] = connect_peer(where);
  pid_t child = in_child([fd = fd] {
    CHECK_EQ(read_exactly(fd, 4), "ping");
    write_all(fd, "pong");
    CHECK_EQ(read_once(fd), "");
  });
  CHECK_OK(close(fd));
  peer.send("ping");
  CHECK_EQ(peer.receive(4), "pong");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("parent and child read and write one stream in turns") {
  auto [fd, peer] = connect_peer(where);
  int to_child[2], to_parent[2];
  CHECK_OK(pipe(to_child));
  CHECK_OK(pipe(to_parent));
  char turn = '!';
  pid_t child = in_child([&, fd = fd] {
    for (int i = 0; i < 20; i++) {
      CHECK_EQ(read(to_child[0], &turn, 1), 1);
      CHECK_EQ(read_exactly(fd, 2), "bc");
      write_all(fd, "C");
      write_all(to_parent[1], "!");
    }
  });
  for (int i = 0; i < 20; i++) {
    peer.send("abc");
    CHECK_EQ(read_exactly(fd, 1), "a");
    write_all(fd, "P");
    write_all(to_child[1], "!");
    CHECK_EQ(read(to_parent[0], &turn, 1), 1);
    CHECK_EQ(peer.receive(2), "PC");
  }
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a child blocked in read gets what arrives after the fork") {
  auto [fd, peer] = connect_peer(where);
  peer.send("before");
  await(fd, POLLIN);
  pid_t child = in_child([fd = fd] {
    CHECK_EQ(read_exactly(fd, 6), "before");
    CHECK_EQ(read_exactly(fd, 5), "after");
  });
  await_sleep(child);
  peer.send("after");
  CHECK_EQ(wait_exit(child), 0);
}

TEST_EVERYWHERE("a child's shutdown acts on the parent's copy") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(wait_exit(in_child([fd = fd] { CHECK_OK(shutdown(fd, SHUT_WR)); })), 0);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(send_error(fd), EPIPE);
}

TEST_EVERYWHERE("close in one thread does not wake a read in another") {
  auto [fd, peer] = connect_peer(where);
  std::string got;
  Worker reader([&, fd = fd] { got = read_once(fd); });
  reader.await_sleep();
  CHECK_OK(close(fd));
  peer.send("x");  // the blocked read holds the socket open
  reader.join();
  CHECK_EQ(got, "x");
}

TEST("closing one connection leaves its neighbours alone") {
  Listener listener = make_listener();
  Pair first = make_pair(listener), second = make_pair(listener), third = make_pair(listener);
  CHECK_OK(close(second.client));
  reset(first.server);
  write_all(third.client, "fine");
  CHECK_EQ(read_exactly(third.server, 4), "fine");
  CHECK_EQ(ready(third.client, POLLIN | POLLRDHUP), 0);
  CHECK_EQ(read_once(second.server), "");
}

TEST("both ends close at the same time") {
  for (int i = 0; i < 200; i++) {
    auto [client, server] = make_pair();
    Worker closer([client = client] { CHECK_OK(close(client)); });
    CHECK_OK(close(server));
  }
}

TEST("a closed descriptor gives EBADF") {
  auto [client, server] = make_pair();
  CHECK_OK(close(client));
  CHECK_ERRNO(close(client), EBADF);
  CHECK_EQ(read_error(client), EBADF);
  CHECK_EQ(send_error(client), EBADF);
  CHECK_ERRNO(shutdown(client, SHUT_WR), EBADF);
}
