// epoll over connections: what is reported, and when.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

constexpr uint32_t kIn = EPOLLIN, kOut = EPOLLOUT, kEdge = EPOLLET;

}  // namespace

TEST_EVERYWHERE("level: readable as long as bytes are left") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn);
  CHECK_TRUE(set.wait().empty());
  peer.send("abc");
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_EQ(read_once(fd, 2), "ab");
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_EQ(read_once(fd), "c");
  CHECK_TRUE(set.wait().empty());
}

TEST_EVERYWHERE("level: writable as long as there is space") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kOut);
  CHECK_EQ(set.wait_one(fd), kOut);
  CHECK_EQ(set.wait_one(fd), kOut);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  CHECK_TRUE(set.wait().empty());
  peer.start_receiving(sent, 65'536);
  CHECK_EQ(set.wait_one(fd), kOut);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("a blocked wait wakes when bytes arrive") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn);
  Worker waiter([&, fd = fd] { CHECK_EQ(set.wait_one(fd), kIn); });
  waiter.await_sleep();
  peer.send("x");
}

TEST_EVERYWHERE("edge: reported once per arrival") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | kEdge);
  peer.send("abc");
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_TRUE(set.wait().empty());
  CHECK_EQ(read_once(fd, 1), "a");
  CHECK_TRUE(set.wait().empty());
  CHECK_EQ(read_once(fd), "bc");
  CHECK_TRUE(set.wait().empty());
  peer.send("d");
  CHECK_EQ(set.wait_one(fd), kIn);
}

TEST_EVERYWHERE("edge: every arrival after the last wait counts, even with bytes left unread") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | kEdge);
  for (int i = 1; i <= 20; i++) {
    peer.send("x");
    CHECK_EQ(set.wait_one(fd), kIn);
    CHECK_TRUE(set.wait().empty());
    eventually([fd = fd, i] { return unread(fd) == i; });
  }
}

TEST_EVERYWHERE("edge: an arrival between read and wait is not lost") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set_nonblocking(fd);
  set.add(fd, kIn | kEdge);
  constexpr uint64_t kTotal = 4 << 20;
  peer.start_sending(kTotal, 1'009);
  std::vector<char> buffer(4'001);
  for (uint64_t got = 0; got < kTotal;) {
    CHECK_EQ(set.wait_one(fd), kIn);
    ssize_t n;
    while ((n = read(fd, buffer.data(), buffer.size())) > 0) {
      CHECK_TRUE(matches_pattern(buffer.data(), n, got));
      got += n;
    }
    CHECK_ERRNO(n, EAGAIN);
  }
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("edge: what was there before the registration is reported") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  await(fd, POLLIN);
  EpollSet set;
  set.add(fd, kIn | kOut | kEdge);
  CHECK_EQ(set.wait_one(fd), kIn | kOut);
  CHECK_TRUE(set.wait().empty());
}

TEST_EVERYWHERE("edge: MOD reports again what is still so") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | kEdge);
  peer.send("x");
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_TRUE(set.wait().empty());
  set.modify(fd, kIn | kEdge);
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_TRUE(set.wait().empty());
}

TEST_EVERYWHERE("edge: writable once, and again when space has returned") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kOut | kEdge);
  CHECK_EQ(set.wait_one(fd), kOut);
  CHECK_TRUE(set.wait().empty());
  set_nonblocking(fd);
  size_t sent = fill(fd);
  CHECK_TRUE(set.wait().empty());
  peer.start_receiving(sent, 65'536);
  CHECK_EQ(set.wait_one(fd), kOut);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("edge: a writer driven by edges alone sends everything") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set_nonblocking(fd);
  set.add(fd, kOut | kEdge);
  std::string bytes(32 << 20, 0);
  fill_pattern(bytes.data(), bytes.size(), 0);
  peer.start_receiving(bytes.size(), 30'011);
  for (size_t sent = 0; sent < bytes.size();) {
    ssize_t n = write(fd, bytes.data() + sent, bytes.size() - sent);
    if (n < 0) CHECK_EQ(set.wait_one(fd), kOut);
    if (n > 0) sent += n;
  }
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("one-shot: silent after a report until MOD") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | EPOLLONESHOT);
  peer.send("a");
  CHECK_EQ(set.wait_one(fd), kIn);
  peer.send("b");
  CHECK_TRUE(set.wait(20).empty());
  set.modify(fd, kIn | EPOLLONESHOT);
  CHECK_EQ(set.wait_one(fd), kIn);
  CHECK_TRUE(set.wait().empty());
  peer.shutdown(SHUT_WR);
  CHECK_TRUE(set.wait(20).empty());
}

TEST_EVERYWHERE("RDHUP: reported when the peer stops writing") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | EPOLLRDHUP);
  peer.send("x");
  CHECK_EQ(set.wait_one(fd), kIn);
  peer.shutdown(SHUT_WR);
  eventually([&, fd = fd] { return set.wait_one(fd) == (kIn | EPOLLRDHUP); });
  CHECK_EQ(read_once(fd), "x");
  CHECK_EQ(set.wait_one(fd), kIn | EPOLLRDHUP);
  CHECK_EQ(read_once(fd), "");
  CHECK_EQ(set.wait_one(fd), kIn | EPOLLRDHUP);
}

TEST_EVERYWHERE("RDHUP: not reported unless asked for; the end of the stream is readable") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn);
  peer.shutdown(SHUT_WR);
  CHECK_EQ(set.wait_one(fd), kIn);
  set.modify(fd, kOut);
  CHECK_EQ(set.wait_one(fd), kOut);
}

TEST_EVERYWHERE("RDHUP: an edge of its own") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | EPOLLRDHUP | kEdge);
  CHECK_TRUE(set.wait().empty());
  peer.close();
  CHECK_EQ(set.wait_one(fd), kIn | EPOLLRDHUP);
  CHECK_TRUE(set.wait().empty());
}

TEST_EVERYWHERE("HUP: reported unasked when both directions ended") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, 0);
  peer.shutdown(SHUT_WR);
  CHECK_EQ(await(fd, POLLIN), POLLIN);
  CHECK_TRUE(set.wait().empty());
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(set.wait_one(fd), EPOLLHUP);
  set.modify(fd, kIn | kOut | EPOLLRDHUP);
  CHECK_EQ(set.wait_one(fd), kIn | kOut | EPOLLRDHUP | EPOLLHUP);
}

TEST_EVERYWHERE("ERR: a reset is reported as error, end and hang-up") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | kOut | EPOLLRDHUP | kEdge);
  CHECK_EQ(set.wait_one(fd), kOut);
  peer.reset();
  CHECK_EQ(set.wait_one(fd), kIn | kOut | EPOLLRDHUP | EPOLLERR | EPOLLHUP);
  CHECK_EQ(socket_error(fd), ECONNRESET);
  set.modify(fd, kIn);
  CHECK_EQ(set.wait_one(fd), kIn | EPOLLHUP);
}

TEST_EVERYWHERE("a socket shut down for reading is readable") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn | EPOLLRDHUP | kEdge);
  CHECK_OK(shutdown(fd, SHUT_RD));
  CHECK_EQ(set.wait_one(fd), kIn | EPOLLRDHUP);
}

TEST_EVERYWHERE("two sets both report one descriptor") {
  auto [fd, peer] = connect_peer(where);
  EpollSet level, edge;
  level.add(fd, kIn);
  edge.add(fd, kIn | kEdge);
  peer.send("x");
  CHECK_EQ(level.wait_one(fd), kIn);
  CHECK_EQ(edge.wait_one(fd), kIn);
  CHECK_EQ(level.wait_one(fd), kIn);
  CHECK_TRUE(edge.wait().empty());
  level.remove(fd);
  peer.send("y");
  CHECK_EQ(edge.wait_one(fd), kIn);
  CHECK_TRUE(level.wait().empty());
}

TEST_EVERYWHERE("nested: the outer set is ready when the inner one is") {
  auto [fd, peer] = connect_peer(where);
  EpollSet inner, outer;
  outer.add(inner.fd, kIn);
  inner.add(fd, kIn);
  CHECK_TRUE(outer.wait().empty());
  Worker waiter([&, inner_fd = inner.fd] { CHECK_EQ(outer.wait_one(inner_fd), kIn); });
  waiter.await_sleep();
  peer.send("x");
  waiter.join();
  CHECK_EQ(ready(inner.fd, POLLIN), POLLIN);
  CHECK_EQ(inner.wait_one(fd), kIn);
  CHECK_EQ(read_once(fd), "x");
  CHECK_EQ(ready(inner.fd, POLLIN), 0);
  CHECK_TRUE(outer.wait().empty());
}

TEST_EVERYWHERE("nested: poll on a set sees a connection in it") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, kIn);
  CHECK_EQ(ready(set.fd, POLLIN), 0);
  Worker waiter([&] { CHECK_EQ(await(set.fd, POLLIN), POLLIN); });
  waiter.await_sleep();
  peer.send("x");
}

TEST("a descriptor is registered once") {
  auto [client, server] = make_pair();
  EpollSet set;
  CHECK_ERRNO(set.control(EPOLL_CTL_MOD, client, kIn), ENOENT);
  CHECK_ERRNO(set.control(EPOLL_CTL_DEL, client, kIn), ENOENT);
  set.add(client, kIn);
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, client, kIn), EEXIST);
  set.remove(client);
  CHECK_ERRNO(set.control(EPOLL_CTL_DEL, client, kIn), ENOENT);
  set.add(client, kOut);
  CHECK_EQ(set.wait_one(client), kOut);
  write_all(server, "x");
}

TEST("wrong descriptors and arguments are refused") {
  auto [client, server] = make_pair();
  EpollSet set;
  epoll_event event{};
  int file = CHECK_OK(open("/proc/self/exe", O_RDONLY));
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, 999, kIn), EBADF);
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, file, kIn), EPERM);
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, set.fd, kIn), EINVAL);
  CHECK_ERRNO(set.control(77, client, kIn), EINVAL);
  CHECK_ERRNO(epoll_ctl(client, EPOLL_CTL_ADD, server, &event), EINVAL);
  CHECK_ERRNO(epoll_ctl(999, EPOLL_CTL_ADD, server, &event), EBADF);
  CHECK_ERRNO(epoll_ctl(set.fd, EPOLL_CTL_ADD, client, nullptr), EFAULT);
  CHECK_ERRNO(epoll_wait(set.fd, &event, 0, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(client, &event, 1, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(999, &event, 1, 0), EBADF);
  CHECK_ERRNO(epoll_create1(0x10), EINVAL);
  CHECK_ERRNO(epoll_create(0), EINVAL);
}

TEST("DEL needs no event and silences") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  write_all(client, "x");
  CHECK_EQ(set.wait_one(server), kIn);
  CHECK_OK(epoll_ctl(set.fd, EPOLL_CTL_DEL, server, nullptr));
  CHECK_TRUE(set.wait().empty());
}

TEST("MOD changes events and data") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  epoll_event event{};
  event.events = kOut;
  event.data.u64 = 0x123456789abcdef0;
  CHECK_OK(epoll_ctl(set.fd, EPOLL_CTL_MOD, server, &event));
  epoll_event got{};
  CHECK_EQ(epoll_wait(set.fd, &got, 1, -1), 1);
  CHECK_EQ(uint32_t(got.events), kOut);
  CHECK_EQ(uint64_t(got.data.u64), 0x123456789abcdef0);
}

TEST("duplicates are registered separately") {
  auto [client, server] = make_pair();
  int copy = CHECK_OK(dup(server));
  EpollSet set;
  set.add(server, kIn);
  set.add(copy, kIn | kOut);
  write_all(client, "x");
  auto ready = set.wait(-1);
  CHECK_EQ(ready.size(), 2);
  CHECK_EQ(ready[server], kIn);
  CHECK_EQ(ready[copy], kIn | kOut);
}

TEST("closing the last descriptor ends the registration") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn | kOut);
  CHECK_EQ(set.wait_one(server), kOut);
  CHECK_OK(close(server));
  CHECK_TRUE(set.wait().empty());
  Pair next = make_pair();
  set.add(next.client, kOut);  // very likely the number that was closed
  CHECK_EQ(set.wait_one(next.client), kOut);
}

TEST("a registration lives on while a duplicate is open") {
  auto [client, server] = make_pair();
  int copy = CHECK_OK(dup(server));
  EpollSet set;
  set.add(server, kIn);
  CHECK_OK(close(server));
  write_all(client, "x");
  CHECK_EQ(set.wait_one(server), kIn);
  CHECK_OK(close(copy));
  CHECK_TRUE(set.wait().empty());
}

TEST("a socket added before connect reports the connection") {
  Listener listener = make_listener();
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  EpollSet set;
  set.add(client, kIn | kOut | EPOLLRDHUP | kEdge);
  CHECK_EQ(set.wait_one(client, 0), kOut | EPOLLHUP);
  Address to = loopback(AF_INET, listener.port);
  if (connect(client, to.get(), to.size) < 0) CHECK_EQ(errno, EINPROGRESS);
  CHECK_EQ(set.wait_one(client), kOut);
  CHECK_EQ(socket_error(client), 0);
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  write_all(server, "hello");
  CHECK_EQ(set.wait_one(client), kIn | kOut);
  CHECK_EQ(read_once(client), "hello");
  CHECK_OK(close(server));
  CHECK_EQ(set.wait_one(client), kIn | kOut | EPOLLRDHUP);
}

TEST("a socket added before connect to another program reports its bytes") {
  Peer peer = spawn_client(make_listener().port);
  CHECK_EQ(peer.reply(), 0);
  uint16_t port = peer.start_accepting();
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  EpollSet set;
  set.add(client, kOut | kEdge | EPOLLONESHOT);
  CHECK_EQ(set.wait_one(client, 0), kOut | EPOLLHUP);
  Address to = loopback(AF_INET, port);
  if (connect(client, to.get(), to.size) < 0) CHECK_EQ(errno, EINPROGRESS);
  set.modify(client, kOut | EPOLLONESHOT);
  CHECK_EQ(set.wait_one(client), kOut);
  CHECK_EQ(peer.reply(), 0);
  set.modify(client, kIn);
  peer.send("hello");
  CHECK_EQ(set.wait_one(client), kIn);
  CHECK_EQ(read_once(client), "hello");
}

TEST("a socket added before a refused connect reports the error") {
  int unused = make_socket();
  Address to = loopback(AF_INET);
  CHECK_OK(bind(unused, to.get(), to.size));
  to = local_address(unused);
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  EpollSet set;
  set.add(client, kOut | kEdge);
  set.wait();
  CHECK_ERRNO(connect(client, to.get(), to.size), EINPROGRESS);
  CHECK_EQ(set.wait_one(client), kOut | EPOLLERR | EPOLLHUP);
  CHECK_EQ(socket_error(client), ECONNREFUSED);
}

TEST("a listener is readable while connections wait") {
  Listener listener = make_listener();
  EpollSet set;
  set.add(listener.fd, kIn);
  CHECK_TRUE(set.wait().empty());
  connect_to(listener.port);
  connect_to(listener.port);
  CHECK_EQ(set.wait_one(listener.fd), kIn);
  CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(set.wait_one(listener.fd), kIn);
  CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_TRUE(set.wait().empty());
}

TEST("a listener gives an edge per connection") {
  Listener listener = make_listener();
  EpollSet set;
  set.add(listener.fd, kIn | kEdge);
  for (int i = 0; i < 5; i++) {
    connect_to(listener.port);
    CHECK_EQ(set.wait_one(listener.fd), kIn);
    CHECK_TRUE(set.wait().empty());
  }
}

TEST("a listener added before listen reports connections") {
  int fd = make_socket();
  Address address = loopback(AF_INET);
  CHECK_OK(bind(fd, address.get(), address.size));
  EpollSet set;
  set.add(fd, kIn);
  CHECK_EQ(set.wait_one(fd), EPOLLHUP);
  CHECK_OK(listen(fd, 5));
  CHECK_TRUE(set.wait().empty());
  connect_to(local_address(fd).port());
  CHECK_EQ(set.wait_one(fd), kIn);
}

TEST("a wait on a listener wakes when another program connects") {
  Listener listener = make_listener();
  EpollSet set;
  set.add(listener.fd, kIn | EPOLLEXCLUSIVE);
  Worker waiter([&] { CHECK_EQ(set.wait_one(listener.fd), kIn); });
  waiter.await_sleep();
  spawn_client(listener.port);
  waiter.join();
  CHECK_OK(accept(listener.fd, nullptr, nullptr));
}

TEST("exclusive: MOD and some events are refused, DEL works") {
  Listener listener = make_listener();
  EpollSet set;
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, listener.fd, kIn | EPOLLEXCLUSIVE | EPOLLONESHOT), EINVAL);
  CHECK_ERRNO(set.control(EPOLL_CTL_ADD, listener.fd, kIn | EPOLLEXCLUSIVE | EPOLLRDHUP), EINVAL);
  set.add(listener.fd, kIn | EPOLLEXCLUSIVE);
  CHECK_ERRNO(set.control(EPOLL_CTL_MOD, listener.fd, kIn), EINVAL);
  set.remove(listener.fd);
  set.add(listener.fd, kIn);
  CHECK_ERRNO(set.control(EPOLL_CTL_MOD, listener.fd, kIn | EPOLLEXCLUSIVE), EINVAL);
}

TEST("exclusive: several sets share a listener and every connection is accepted") {
  Listener listener = make_listener(AF_INET, 128, SOCK_NONBLOCK);
  std::atomic<int> accepted{0};
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 3; i++)
    workers.push_back(std::make_unique<Worker>([&] {
      EpollSet set;
      set.add(listener.fd, kIn | EPOLLEXCLUSIVE);
      while (accepted < 60) {
        set.wait(50);
        while (accept(listener.fd, nullptr, nullptr) >= 0) accepted++;
      }
    }));
  for (int i = 0; i < 60; i++) connect_to(listener.port);
  workers.clear();
  CHECK_EQ(accepted, 60);
}

TEST_EVERYWHERE("pipe, eventfd, timer and connection mix in one wait") {
  auto [fd, peer] = connect_peer(where);
  int ends[2];
  CHECK_OK(pipe(ends));
  int event = CHECK_OK(eventfd(0, 0));
  int timer = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, 0));
  EpollSet set;
  for (int member : {fd, ends[0], event, timer}) set.add(member, kIn);
  CHECK_TRUE(set.wait().empty());
  auto wakes_for = [&](int member, auto trigger) {
    Worker waiter([&] { CHECK_EQ(set.wait_one(member), kIn); });
    waiter.await_sleep();
    trigger();
    waiter.join();
    char buffer[8];
    CHECK_OK(read(member, buffer, 8));
  };
  wakes_for(fd, [&, peer = peer]() mutable { peer.send("x"); });
  wakes_for(ends[0], [&] { write_all(ends[1], "x"); });
  wakes_for(event, [&] { CHECK_OK(eventfd_write(event, 1)); });
  itimerspec soon{{0, 0}, {0, 1'000'000}};
  wakes_for(timer, [&] { CHECK_OK(timerfd_settime(timer, 0, &soon, nullptr)); });
  write_all(ends[1], "x");
  CHECK_OK(eventfd_write(event, 1));
  peer.send("x");
  eventually([&] { return set.wait().size() == 3; });
}

TEST("a time-out passes in full, zero returns at once") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  CHECK_TRUE(set.wait(0).empty());
  uint64_t start = now_ms();
  CHECK_TRUE(set.wait(60).empty());
  CHECK_TRUE(now_ms() - start >= 60);
  EpollSet empty;
  start = now_ms();
  CHECK_TRUE(empty.wait(30).empty());
  CHECK_TRUE(now_ms() - start >= 30);
}

TEST("epoll_pwait2 takes nanoseconds") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  epoll_event event{};
  timespec none{0, 0}, brief{0, 30'000'000};
  CHECK_EQ(epoll_pwait2(set.fd, &event, 1, &none, nullptr), 0);
  uint64_t start = now_ms();
  CHECK_EQ(epoll_pwait2(set.fd, &event, 1, &brief, nullptr), 0);
  CHECK_TRUE(now_ms() - start >= 29);
  write_all(client, "x");
  CHECK_EQ(epoll_pwait2(set.fd, &event, 1, nullptr, nullptr), 1);
  CHECK_EQ(event.data.fd, server);
  timespec wrong{0, 2'000'000'000};
  CHECK_ERRNO(epoll_pwait2(set.fd, &event, 1, &wrong, nullptr), EINVAL);
}

TEST("a full event array is fair: everything ready is reported in turn") {
  Listener listener = make_listener();
  EpollSet set;
  for (int i = 0; i < 20; i++) {
    Pair pair = make_pair(listener);
    set.add(pair.server, kIn);
    write_all(pair.client, "x");
  }
  eventually([&] { return set.wait().size() == 20; });
  std::map<int, uint32_t> seen;
  for (int i = 0; i < 10; i++) seen.merge(set.wait(0, 3));
  CHECK_EQ(seen.size(), 20);
}

TEST("fairness holds between kernel descriptors and connections") {
  EpollSet set;
  Listener listener = make_listener();
  for (int i = 0; i < 5; i++) {
    Pair pair = make_pair(listener);
    set.add(pair.server, kIn);
    write_all(pair.client, "x");
    set.add(CHECK_OK(eventfd(1, 0)), kIn);
  }
  eventually([&] { return set.wait().size() == 10; });
  std::map<int, uint32_t> seen;
  for (int i = 0; i < 20; i++) seen.merge(set.wait(0, 1));
  CHECK_EQ(seen.size(), 10);
}

TEST("500 connections in one set are each reported") {
  Listener listener = make_listener();
  EpollSet set;
  std::vector<Pair> pairs;
  for (int i = 0; i < 500; i++) {
    pairs.push_back(make_pair(listener));
    set.add(pairs.back().server, kIn | kEdge);
  }
  CHECK_TRUE(set.wait().empty());
  for (int i = 499; i >= 0; i -= 7) {
    write_all(pairs[i].client, "x");
    CHECK_EQ(set.wait_one(pairs[i].server), kIn);
  }
  for (Pair& pair : pairs) CHECK_OK(close(pair.client));
  std::map<int, uint32_t> seen;
  while (seen.size() < 500) seen.merge(set.wait(-1));
  CHECK_TRUE(set.wait().empty());
}

TEST("a wait reports a connection that another thread adds") {
  auto [client, server] = make_pair();
  write_all(client, "x");
  EpollSet set;
  Worker waiter([&, server = server] { CHECK_EQ(set.wait_one(server), kIn); });
  waiter.await_sleep();
  set.add(server, kIn);
}

TEST("a wait reports what another thread's MOD asks for") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  Worker waiter([&, server = server] { CHECK_EQ(set.wait_one(server), kOut); });
  waiter.await_sleep();
  set.modify(server, kOut);
}

TEST_EVERYWHERE("created, controlled and waited for in three threads") {
  auto [fd, peer] = connect_peer(where);
  std::unique_ptr<EpollSet> set;
  Worker([&] { set = std::make_unique<EpollSet>(); }).join();
  Worker waiter([&, fd = fd] { CHECK_EQ(set->wait_one(fd), kIn); });
  waiter.await_sleep();
  Worker([&, fd = fd] { set->add(fd, kIn); }).join();
  peer.send("x");
}

TEST("two threads waiting on one set share the edges") {
  Listener listener = make_listener();
  EpollSet set;
  std::atomic<int> reports{0};
  auto take = [&] {
    while (reports < 50)
      for (auto [fd, events] : set.wait(20, 1)) {
        CHECK_EQ(read_once(fd), "x");
        reports++;
      }
  };
  Worker first(take), second(take);
  for (int i = 0; i < 50; i++) {
    Pair pair = make_pair(listener);
    set.add(pair.server, kIn | kEdge);
    write_all(pair.client, "x");
  }
  first.join();
  second.join();
  CHECK_EQ(reports, 50);
}

TEST("level: each of two waiting threads gets a report") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  auto wait = [&, server = server] { CHECK_EQ(set.wait_one(server), kIn); };
  Worker first(wait), second(wait);
  first.await_sleep();
  second.await_sleep();
  write_all(client, "x");
}

TEST("closing a set leaves its members working") {
  auto [client, server] = make_pair();
  EpollSet set, other;
  set.add(server, kIn);
  other.add(server, kIn);
  CHECK_OK(close(set.fd));
  write_all(client, "x");
  CHECK_EQ(other.wait_one(server), kIn);
  CHECK_EQ(read_once(server), "x");
  epoll_event event;
  CHECK_ERRNO(epoll_wait(set.fd, &event, 1, 0), EBADF);
}

TEST("a duplicate of a set is the same set") {
  auto [client, server] = make_pair();
  EpollSet set, copy;
  CHECK_OK(dup2(set.fd, copy.fd));
  copy.add(server, kIn);
  write_all(client, "x");
  CHECK_EQ(set.wait_one(server), kIn);
  CHECK_OK(close(set.fd));
  CHECK_EQ(copy.wait_one(server), kIn);
}

TEST("a forked child waits on the set that it inherited") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  pid_t child = in_child([&, server = server] {
    CHECK_EQ(set.wait_one(server), kIn);
    CHECK_EQ(read_once(server), "to the child");
  });
  await_sleep(child);
  write_all(client, "to the child");
  CHECK_EQ(wait_exit(child), 0);
  CHECK_TRUE(set.wait().empty());
  write_all(client, "to the parent");
  CHECK_EQ(set.wait_one(server), kIn);
  CHECK_EQ(read_once(server), "to the parent");
}

TEST("a forked child's closing takes nothing out of the parent's set") {
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, kIn);
  pid_t child = in_child([&, client = client, server = server] {
    CHECK_OK(close(server));
    CHECK_OK(close(client));
    CHECK_OK(close(set.fd));
  });
  CHECK_EQ(wait_exit(child), 0);
  write_all(client, "x");
  CHECK_EQ(set.wait_one(server), kIn);
}

TEST("a set of its own in each of two processes on one inherited listener") {
  Listener listener = make_listener(AF_INET, 128, SOCK_NONBLOCK);
  auto serve = [&](int count) {
    EpollSet set;
    set.add(listener.fd, kIn);
    while (count > 0) {
      CHECK_EQ(set.wait_one(listener.fd), kIn);
      int server = accept(listener.fd, nullptr, nullptr);
      if (server < 0) continue;
      write_all(server, "served");
      CHECK_OK(close(server));
      count--;
    }
  };
  pid_t children[] = {in_child([&] { serve(10); }), in_child([&] { serve(10); })};
  for (int i = 0; i < 20; i++) CHECK_EQ(read_to_end(connect_to(listener.port)), "served");
  for (pid_t child : children) CHECK_EQ(wait_exit(child), 0);
}
