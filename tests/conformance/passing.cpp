// Descriptors passed over AF_UNIX with SCM_RIGHTS.
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "channel.h"
#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

PROGRAM(echo_passed) { return echo_to_end(take(std::stoi(args[0]))[0]), 0; }

PROGRAM(accept_passed) {
  echo_to_end(CHECK_OK(accept(take(std::stoi(args[0]))[0], nullptr, nullptr)));
  return 0;
}

TEST_EVERYWHERE("a passed connection goes on in another program") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pid_t taker = spawn_program("echo_passed", {std::to_string(channel.theirs)}, {channel.theirs});
  peer.send("unread when passed, ");
  await(fd, POLLIN);
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  peer.send("sent later");
  CHECK_EQ(peer.receive(30), "unread when passed, sent later");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(wait_exit(taker), 0);
}

TEST_EVERYWHERE("a connection passed to a forked child goes on there") {
  Channel channel;
  pid_t taker = in_child([&] { echo_to_end(take(channel.theirs)[0]); });
  auto [fd, peer] = connect_peer(where);
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(peer.receive(5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(peer.receive(1), "");
  CHECK_EQ(wait_exit(taker), 0);
}

TEST_EVERYWHERE("passer and taker share the connection") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pid_t taker = spawn_program("echo_passed", {std::to_string(channel.theirs)}, {channel.theirs});
  pass(channel.mine, {fd});
  peer.send("to the taker");
  CHECK_EQ(peer.receive(12), "to the taker");
  write_all(fd, "from the passer");
  CHECK_EQ(peer.receive(15), "from the passer");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(taker), 0);
  CHECK_OK(close(fd));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("the passer can write to it by splice and sendfile, too") {
  Channel channel;
  pid_t taker = spawn_program("echo_passed", {std::to_string(channel.theirs)}, {channel.theirs});
  auto [fd, peer] = connect_peer(where);  // after that: what others have by fork is carried
  pass(channel.mine, {fd});
  peer.send("to the taker");
  CHECK_EQ(peer.receive(12), "to the taker");
  int pipe[2], file = CHECK_OK(memfd_create("file", 0));
  CHECK_OK(::pipe(pipe));
  write_all(pipe[1], "from the pipe");
  write_all(file, "from the file");
  off_t at = 0;
  CHECK_EQ(splice(pipe[0], nullptr, fd, nullptr, 13, 0), 13);
  CHECK_EQ(peer.receive(13), "from the pipe");
  CHECK_EQ(sendfile(fd, file, &at, 13), 13);
  CHECK_EQ(peer.receive(13), "from the file");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(wait_exit(taker), 0);
}

TEST_EVERYWHERE("a connection passed within a process is a duplicate") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd, fd});
  auto copies = take(channel.theirs, MSG_CMSG_CLOEXEC);
  CHECK_EQ(copies.size(), 2);
  CHECK_EQ(fcntl(copies[0], F_GETFD), FD_CLOEXEC);
  CHECK_EQ(peer_address(copies[1]).text(), peer_address(fd).text());
  CHECK_OK(close(fd));
  peer.send("hello");
  CHECK_EQ(read_exactly(copies[0], 5), "hello");
  EpollSet set;
  set.add(copies[1], EPOLLIN | EPOLLET);
  peer.send("again");
  CHECK_EQ(set.wait_one(copies[1]), EPOLLIN);
}

TEST_EVERYWHERE("a connection in flight over a channel stays open") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  peer.send("hello");
  int taken = take(channel.theirs)[0];
  CHECK_EQ(read_exactly(taken, 5), "hello");
  write_all(taken, "world");
  CHECK_EQ(peer.receive(5), "world");
}

TEST_EVERYWHERE("a connection in flight ends when the channel does") {
  auto [fd, peer] = connect_peer(where);
  Channel channel;
  pass(channel.mine, {fd});
  CHECK_OK(close(fd));
  CHECK_OK(close(channel.theirs));
  CHECK_OK(close(channel.mine));
  CHECK_EQ(peer.receive(1), "");
}

TEST("a passed listener accepts in another program") {
  Listener listener = make_listener();
  Channel channel;
  pid_t taker = spawn_program("accept_passed", {std::to_string(channel.theirs)}, {channel.theirs});
  pass(channel.mine, {listener.fd});
  CHECK_OK(close(listener.fd));
  int fd = connect_to(listener.port);
  write_all(fd, "hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(wait_exit(taker), 0);
}

TEST("a master accepts and passes 50 connections to a worker") {
  Listener listener = make_listener();
  Channel channel;
  pid_t worker = in_child([&] {
    for (int i = 0; i < 50; i++) {
      int fd = take(channel.theirs)[0];
      echo_to_end(fd);
      CHECK_OK(close(fd));
    }
  });
  for (int i = 0; i < 50; i++) {
    auto [client, server] = make_pair(listener);
    pass(channel.mine, {server});
    CHECK_OK(close(server));
    write_all(client, "hello");
    CHECK_OK(shutdown(client, SHUT_WR));
    CHECK_EQ(read_to_end(client), "hello");
    CHECK_OK(close(client));
  }
  CHECK_EQ(wait_exit(worker), 0);
}

TEST("a socket that is passed before it is connected is one socket on both sides") {
  Listener listener = make_listener();
  int fd = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  int other = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  Channel channel;
  Address to = local_address(listener.fd);
  pid_t child = in_child([&] {
    int taken = take(channel.theirs)[0];
    CHECK_OK(connect(taken, to.get(), to.size));
    write_all(taken, "hello");
  });
  pass(channel.mine, {fd});
  int accepted = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_exactly(accepted, 5), "hello");
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(peer_address(fd).text(), to.text());
  CHECK_ERRNO(getpeername(other, to.get(), &to.size), ENOTCONN);
}

TEST("MSG_FASTOPEN connects its socket and no other") {
  Listener listener = make_listener();
  int fd = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  int other = CHECK_OK(socket(AF_INET, SOCK_STREAM, 0));
  Address to = local_address(listener.fd);
  CHECK_EQ(sendto(fd, "hello", 5, MSG_FASTOPEN, to.get(), to.size), 5);
  int accepted = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_exactly(accepted, 5), "hello");
  write_all(accepted, "world");
  CHECK_EQ(read_exactly(fd, 5), "world");
  CHECK_ERRNO(getpeername(other, to.get(), &to.size), ENOTCONN);
}
