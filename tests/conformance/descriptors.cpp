// Descriptor numbers, duplicates and limits: connections behave like any other descriptor.
#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

// The lowest free number, as the kernel sees it.
int next_free() {
  int fd = CHECK_OK(open("/dev/null", O_RDONLY));
  CHECK_OK(close(fd));
  return fd;
}

void check_talks(int from, int to) {
  write_all(from, "hello");
  CHECK_EQ(read_exactly(to, 5), "hello");
}

void check_closed(int fd) {
  char byte;
  CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
  CHECK_ERRNO(read(fd, &byte, 1), EBADF);
}

void limit_descriptors(rlim_t count) {
  rlimit limit;
  CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = count;
  CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

}  // namespace

TEST("socket, accept and dup take the lowest free number") {
  auto taken = [](auto make) {
    int expected = next_free(), fd = make();
    CHECK_EQ(fd, expected);
    return fd;
  };
  Listener listener = make_listener();
  int client = taken([&] { return connect_to(listener.port); });
  taken([&] { return accept(listener.fd, nullptr, nullptr); });
  taken([&] { return dup(client); });
  taken([&] { return epoll_create1(0); });
  CHECK_OK(close(client));
  CHECK_EQ(next_free(), client);
  taken([] { return make_socket(); });
  CHECK_OK(close(listener.fd));
  CHECK_EQ(open("/dev/null", O_RDONLY), listener.fd);
}

TEST("a number is free as soon as it is closed") {
  for (int i = 0; i < 100; i++) {
    auto [client, server] = make_pair();
    CHECK_OK(close(client));
    int file = CHECK_OK(open("/proc/self/stat", O_RDONLY));
    CHECK_TRUE(file <= client);
    CHECK_TRUE(read_once(file).size() > 10);
    CHECK_OK(close(file));
    CHECK_EQ(read_once(server), "");
    CHECK_OK(close(server));
  }
}

TEST("a number that was a connection becomes a file, and the other way round") {
  auto [client, server] = make_pair();
  int ends[2];
  CHECK_OK(pipe(ends));
  CHECK_EQ(dup2(ends[0], client), client);
  CHECK_EQ(read_once(server), "");
  write_all(ends[1], "from the pipe");
  CHECK_EQ(read_once(client), "from the pipe");
  Pair next = make_pair();
  CHECK_EQ(dup2(next.server, ends[0]), ends[0]);
  check_talks(next.client, ends[0]);
}

TEST_EVERYWHERE("duplicates share the stream and its flags, not FD_CLOEXEC") {
  auto [fd, peer] = connect_peer(where);
  int copy = CHECK_OK(dup(fd)), high = CHECK_OK(fcntl(fd, F_DUPFD, 100));
  CHECK_EQ(high, 100);
  peer.send("abc");
  CHECK_EQ(read_exactly(fd, 1), "a");
  CHECK_EQ(read_exactly(copy, 1), "b");
  CHECK_EQ(read_exactly(high, 1), "c");
  write_all(fd, "1");
  write_all(copy, "2");
  write_all(high, "3");
  CHECK_EQ(peer.receive(3), "123");
  set_nonblocking(copy);
  char byte;
  CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
  CHECK_EQ(fcntl(high, F_GETFL), O_RDWR | O_NONBLOCK);
  CHECK_OK(fcntl(copy, F_SETFD, FD_CLOEXEC));
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_EQ(peer_address(high).text(), peer_address(fd).text());
}

TEST_EVERYWHERE("dup3 and F_DUPFD_CLOEXEC set FD_CLOEXEC") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(dup3(fd, 50, O_CLOEXEC), 50);
  CHECK_EQ(fcntl(50, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(dup3(fd, 51, 0), 51);
  CHECK_EQ(fcntl(51, F_GETFD), 0);
  CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 60);
  CHECK_EQ(fcntl(60, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 61);
  peer.send("x");
  CHECK_EQ(read_once(60), "x");
}

TEST("dup2 onto itself changes nothing; wrong numbers give EBADF") {
  auto [client, server] = make_pair();
  CHECK_EQ(dup2(client, client), client);
  CHECK_ERRNO(dup3(client, client, 0), EINVAL);
  CHECK_ERRNO(dup3(client, 50, O_APPEND), EINVAL);
  CHECK_ERRNO(dup2(client, -1), EBADF);
  CHECK_ERRNO(dup2(999, client), EBADF);
  CHECK_ERRNO(dup(999), EBADF);
  CHECK_ERRNO(fcntl(client, F_DUPFD, -1), EINVAL);
  check_talks(client, server);
}

TEST("dup2 over a connection closes it") {
  Listener listener = make_listener();
  Pair first = make_pair(listener), second = make_pair(listener);
  CHECK_OK(dup2(first.client, second.client));
  CHECK_EQ(read_once(second.server), "");
  check_talks(second.client, first.server);
  CHECK_OK(close(first.client));
  check_talks(second.client, first.server);
  CHECK_OK(close(second.client));
  CHECK_EQ(read_once(first.server), "");
}

TEST("a duplicate of a listener accepts") {
  Listener listener = make_listener();
  int copy = CHECK_OK(dup(listener.fd));
  CHECK_OK(close(listener.fd));
  auto [client, server] = make_pair({copy, listener.port});
  check_talks(client, server);
}

TEST("a duplicate made before connect is connected too") {
  Listener listener = make_listener();
  int client = make_socket(), copy = CHECK_OK(dup(client));
  Address to = loopback(AF_INET, listener.port);
  CHECK_OK(connect(client, to.get(), to.size));
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  check_talks(copy, server);
  CHECK_OK(close(client));
  check_talks(copy, server);
}

TEST("close_range closes connections, listeners and sets") {
  auto [client, server] = make_pair();
  Listener listener = make_listener();
  EpollSet set;
  int kept = CHECK_OK(dup2(client, 200));
  CHECK_OK(close_range(3, 199, 0));
  for (int fd : {client, server, listener.fd, set.fd}) check_closed(fd);
  CHECK_EQ(read_once(kept), "");
  CHECK_EQ(next_free(), 3);
  CHECK_EQ(make_socket(), 3);
  CHECK_EQ(make_socket(), 4);
}

TEST("close_range with CLOSE_RANGE_CLOEXEC closes nothing yet") {
  auto [client, server] = make_pair();
  CHECK_OK(close_range(client, server, CLOSE_RANGE_CLOEXEC));
  CHECK_EQ(fcntl(client, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(server, F_GETFD), FD_CLOEXEC);
  check_talks(client, server);
  CHECK_ERRNO(close_range(10, 9, 0), EINVAL);
}

TEST("close_range with CLOSE_RANGE_UNSHARE closes") {
  auto [client, server] = make_pair();
  CHECK_OK(close_range(client, client, CLOSE_RANGE_UNSHARE));
  check_closed(client);
  CHECK_EQ(read_once(server), "");
}

TEST("closefrom closes everything above, new connections work after it") {
  auto [client, server] = make_pair();
  closefrom(3);
  check_closed(client);
  check_closed(server);
  Pair next = make_pair();
  check_talks(next.client, next.server);
}

TEST("a program that closes every number at start can use the network") {
  for (int fd = 3; fd < 20'000; fd++) close(fd);
  auto [client, server] = make_pair();
  check_talks(client, server);
  Peer peer = connect_peer(Where::kPeerConnects).peer;
  peer.close();
}

TEST("a program that closes what /proc/self/fd lists can use the network") {
  auto [client, server] = make_pair();
  std::vector<int> open;
  for (auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    open.push_back(std::stoi(entry.path().filename()));
  for (int fd : open)
    if (fd > 2) close(fd);
  check_closed(client);
  Connection connection = connect_peer(Where::kPeerAccepts);
  connection.peer.send("x");
  CHECK_EQ(read_once(connection.fd), "x");
}

TEST("system calls by number act on connections") {
  auto [client, server] = make_pair();
  char buffer[8] = "hello";
  CHECK_EQ(syscall(SYS_write, client, buffer, 5), 5);
  CHECK_EQ(syscall(SYS_read, server, buffer, 3), 3);
  CHECK_EQ(syscall(SYS_sendto, server, "x", 1, 0, nullptr, 0), 1);
  CHECK_EQ(syscall(SYS_recvfrom, client, buffer, 1, 0, nullptr, nullptr), 1);
  CHECK_EQ(read_exactly(server, 2), "lo");
  CHECK_EQ(syscall(SYS_fcntl, client, F_GETFL), O_RDWR);
  CHECK_EQ(syscall(SYS_close, client), 0);
  CHECK_EQ(read_once(server), "");
  check_closed(client);
  CHECK_ERRNO(syscall(SYS_close, client), EBADF);
}

TEST("a connection made and closed by number leaves its number clean") {
  for (int i = 0; i < 50; i++) {
    auto [client, server] = make_pair();
    CHECK_EQ(syscall(SYS_close, client), 0);
    int ends[2];
    CHECK_OK(pipe(ends));
    write_all(ends[1], "pipe");
    CHECK_EQ(read_once(ends[0]), "pipe");
    for (int fd : {server, ends[0], ends[1]}) CHECK_OK(close(fd));
  }
}

TEST("RLIMIT_NOFILE: socket and dup give EMFILE, closing one helps") {
  auto [client, server] = make_pair();
  CHECK_OK(dup(0));  // where the listener was
  limit_descriptors(next_free());
  CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, 0), EMFILE);
  CHECK_ERRNO(dup(client), EMFILE);
  CHECK_ERRNO(epoll_create1(0), EMFILE);
  check_talks(client, server);
  CHECK_OK(close(client));
  CHECK_EQ(socket(AF_INET, SOCK_STREAM, 0), client);
}

TEST("RLIMIT_NOFILE: accept gives EMFILE, the connection waits") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  int spare = CHECK_OK(dup(0));
  limit_descriptors(next_free());
  CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EMFILE);
  CHECK_EQ(ready(listener.fd, POLLIN), POLLIN);
  CHECK_OK(close(spare));
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(server, spare);
  check_talks(client, server);
}

TEST("RLIMIT_NOFILE: a limit of 16 is enough for a program that needs six") {
  limit_descriptors(16);
  for (Where where : {Where::kSameProcess, Where::kPeerConnects, Where::kPeerAccepts}) {
    auto [fd, peer] = connect_peer(where);
    peer.send("x");
    CHECK_EQ(read_once(fd), "x");
    peer.close();
    CHECK_OK(close(fd));
  }
}

TEST("1,000 connections are open at once") {
  limit_descriptors(4'000);
  Listener listener = make_listener(AF_INET, 1'000);
  std::vector<Pair> pairs;
  for (int i = 0; i < 1'000; i++) pairs.push_back(make_pair(listener));
  CHECK_TRUE(pairs.back().server >= 2'003);
  for (auto& pair : pairs) write_all(pair.client, "x");
  for (auto& pair : pairs) CHECK_EQ(read_once(pair.server), "x");
}

TEST("poll and epoll take numbers above FD_SETSIZE") {
  auto [client, server] = make_pair();
  int high = CHECK_OK(fcntl(server, F_DUPFD, 5'000));
  EpollSet set;
  set.add(high, EPOLLIN);
  write_all(client, "x");
  CHECK_EQ(await(high, POLLIN), POLLIN);
  CHECK_EQ(set.wait_one(high), EPOLLIN);
  CHECK_EQ(read_once(high), "x");
}

TEST("select takes numbers above FD_SETSIZE in larger sets") {
  auto [client, server] = make_pair();
  int high = CHECK_OK(fcntl(server, F_DUPFD, 1'500));
  std::vector<unsigned long> bits(2'048 / 64);
  bits[high / 64] |= 1ul << high % 64;
  write_all(client, "x");
  CHECK_EQ(select(high + 1, reinterpret_cast<fd_set*>(bits.data()), nullptr, nullptr, nullptr), 1);
  CHECK_EQ(bits[high / 64], 1ul << high % 64);
}

TEST("descriptors 0, 1 and 2 may be connections") {
  auto [client, server] = make_pair();
  CHECK_OK(dup2(client, 0));
  CHECK_OK(dup2(client, 1));
  CHECK_OK(close(client));
  check_talks(server, 0);
  check_talks(1, server);
  CHECK_OK(close(0));
  CHECK_EQ(make_socket(), 0);
}

TEST("a listing of /proc/self/fd shows each descriptor of ours") {
  auto [client, server] = make_pair();
  CHECK_TRUE(std::filesystem::exists("/proc/self/fd/" + std::to_string(client)));
  CHECK_OK(close(client));
  CHECK_TRUE(!std::filesystem::is_symlink("/proc/self/fd/" + std::to_string(client)));
  check_closed(client);
  CHECK_EQ(read_once(server), "");
}
