// Socket options, ioctl and fcntl on connections: values, effects, and what accept inherits.
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <future>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

void check_round_trip(int fd, int level, int name, int value) {
  set_option(fd, level, name, value);
  CHECK_EQ(option(fd, level, name), value);
}

// On a fresh socket and on a connection.
void check_everywhere(int level, int name, int value) {
  check_round_trip(make_socket(), level, name, value);
  auto [client, server] = make_pair();
  check_round_trip(client, level, name, value);
  check_round_trip(server, level, name, value);
  check_round_trip(make_listener().fd, level, name, value);
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  CHECK_OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
  return info;
}

// Of the kernel's enum, which only <netinet/tcp.h> tells and that clashes with <linux/tcp.h>.
enum { kEstablished = 1, kFinWait2 = 5, kClosed = 7, kCloseWait = 8, kListen = 10 };

void set_timeout(int fd, int name, int ms) {
  timeval time{ms / 1000, ms % 1000 * 1000};
  CHECK_OK(setsockopt(fd, SOL_SOCKET, name, &time, sizeof time));
}

int outstanding(int fd) {
  int count = -1;
  CHECK_OK(ioctl(fd, SIOCOUTQ, &count));
  return count;
}

}  // namespace

TEST_EVERYWHERE("a connection says what it is") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_ERROR), 0);
}

TEST("an IPv6 connection and a listener say what they are") {
  auto [client, server] = make_pair(AF_INET6);
  CHECK_EQ(option(client, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  CHECK_EQ(option(server, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  Listener listener = make_listener();
  CHECK_EQ(option(listener.fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
  CHECK_EQ(option(listener.fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
}

TEST("switches read back as they were set") {
  check_everywhere(SOL_SOCKET, SO_KEEPALIVE, 1);
  check_everywhere(SOL_SOCKET, SO_REUSEADDR, 1);
  check_everywhere(SOL_SOCKET, SO_OOBINLINE, 1);
  check_everywhere(SOL_SOCKET, SO_DONTROUTE, 1);
  check_everywhere(SOL_SOCKET, SO_PRIORITY, 3);
  check_everywhere(IPPROTO_TCP, TCP_NODELAY, 1);
  check_everywhere(IPPROTO_TCP, TCP_CORK, 1);
  check_everywhere(IPPROTO_TCP, TCP_CORK, 0);
  check_everywhere(IPPROTO_TCP, TCP_KEEPIDLE, 77);
  check_everywhere(IPPROTO_TCP, TCP_KEEPINTVL, 13);
  check_everywhere(IPPROTO_TCP, TCP_KEEPCNT, 4);
  check_everywhere(IPPROTO_TCP, TCP_USER_TIMEOUT, 12'345);
  check_everywhere(IPPROTO_TCP, TCP_LINGER2, 30);
  check_everywhere(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16'384);
  check_everywhere(IPPROTO_TCP, TCP_SYNCNT, 3);
  check_everywhere(IPPROTO_IP, IP_TOS, 0x10);
  check_everywhere(IPPROTO_IP, IP_TTL, 42);
  check_everywhere(SOL_SOCKET, SO_RCVLOWAT, 5);
}

TEST("switches are off to begin with, any other value than zero is on") {
  auto [client, server] = make_pair();
  for (int fd : {client, server}) {
    CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_REUSEADDR), 0);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 17);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, -1);
    CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  }
}

TEST("accepted connections inherit the listener's options") {
  Listener listener = make_listener();
  set_option(listener.fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(listener.fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(listener.fd, IPPROTO_TCP, TCP_KEEPIDLE, 99);
  set_option(listener.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 4'000);
  set_option(listener.fd, SOL_SOCKET, SO_RCVBUF, 30'000);
  set_option(listener.fd, SOL_SOCKET, SO_SNDBUF, 40'000);
  set_timeout(listener.fd, SO_RCVTIMEO, 50);
  linger patience{1, 5};
  CHECK_OK(setsockopt(listener.fd, SOL_SOCKET, SO_LINGER, &patience, sizeof patience));
  auto [client, server] = make_pair(listener);
  CHECK_EQ(option(server, SOL_SOCKET, SO_KEEPALIVE), 1);
  CHECK_EQ(option(server, IPPROTO_TCP, TCP_NODELAY), 1);
  CHECK_EQ(option(server, IPPROTO_TCP, TCP_KEEPIDLE), 99);
  CHECK_EQ(option(server, IPPROTO_TCP, TCP_USER_TIMEOUT), 4'000);
  CHECK_EQ(option(server, SOL_SOCKET, SO_RCVBUF), 60'000);
  CHECK_EQ(option(server, SOL_SOCKET, SO_SNDBUF), 80'000);
  char byte;
  CHECK_ERRNO(read(server, &byte, 1), EAGAIN);
  linger got{};
  socklen_t size = sizeof got;
  CHECK_OK(getsockopt(server, SOL_SOCKET, SO_LINGER, &got, &size));
  CHECK_EQ(got.l_onoff, 1);
  CHECK_EQ(got.l_linger, 5);
  CHECK_EQ(option(server, SOL_SOCKET, SO_ACCEPTCONN), 0);
  CHECK_EQ(option(client, SOL_SOCKET, SO_KEEPALIVE), 0);
}

TEST("options set before connect hold after it") {
  Listener listener = make_listener();
  int client = make_socket();
  set_option(client, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(client, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(client, SOL_SOCKET, SO_SNDBUF, 50'000);
  set_option(client, IPPROTO_TCP, TCP_KEEPCNT, 6);
  set_timeout(client, SO_RCVTIMEO, 40);
  Address to = loopback(AF_INET, listener.port);
  CHECK_OK(connect(client, to.get(), to.size));
  CHECK_EQ(option(client, SOL_SOCKET, SO_KEEPALIVE), 1);
  CHECK_EQ(option(client, IPPROTO_TCP, TCP_NODELAY), 1);
  CHECK_EQ(option(client, SOL_SOCKET, SO_SNDBUF), 100'000);
  CHECK_EQ(option(client, IPPROTO_TCP, TCP_KEEPCNT), 6);
  char byte;
  CHECK_ERRNO(read(client, &byte, 1), EAGAIN);
}

TEST("buffer sizes are doubled and have a least") {
  auto check = [](int fd) {
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 20'000);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_RCVBUF), 40'000);
    set_option(fd, SOL_SOCKET, SO_SNDBUF, 20'000);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_SNDBUF), 40'000);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 0);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_RCVBUF), 2'304);
    set_option(fd, SOL_SOCKET, SO_SNDBUF, 0);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_SNDBUF), 4'608);
  };
  check(make_socket());
  auto [client, server] = make_pair();
  check(client);
  check(server);
}

TEST_EVERYWHERE("small buffers carry a large transfer") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, SOL_SOCKET, SO_SNDBUF, 0);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, 4'096);
  peer.start_receiving(1 << 20, 10'007);
  CHECK_EQ(send_pattern(fd, 1 << 20, 65'536), 0);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("SO_SNDBUF limits what a non-blocking writer can leave behind") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, SOL_SOCKET, SO_SNDBUF, 65'536);
  set_nonblocking(fd);
  size_t small = fill(fd);
  peer.start_receiving(small, 65'536);
  CHECK_EQ(peer.finish(), 0);
  CHECK_TRUE(small < 32 << 20);
}

TEST_EVERYWHERE("SO_RCVTIMEO ends a read with EAGAIN") {
  auto [fd, peer] = connect_peer(where);
  set_timeout(fd, SO_RCVTIMEO, 60);
  timeval got{};
  socklen_t size = sizeof got;
  CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
  CHECK_EQ(got.tv_sec, 0);
  CHECK_EQ(got.tv_usec, 60'000);
  char byte;
  uint64_t start = now_ms();
  CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
  CHECK_TRUE(now_ms() - start >= 55);
  CHECK_ERRNO(recv(fd, &byte, 1, 0), EAGAIN);
  set_timeout(fd, SO_RCVTIMEO, 0);
  peer.send("x");
  CHECK_EQ(read(fd, &byte, 1), 1);
}

TEST_EVERYWHERE("SO_RCVTIMEO does not lose what MSG_WAITALL has collected") {
  auto [fd, peer] = connect_peer(where);
  set_timeout(fd, SO_RCVTIMEO, 60);
  peer.send("abc");
  char buffer[10];
  CHECK_EQ(recv(fd, buffer, 10, MSG_WAITALL), 3);
}

TEST_EVERYWHERE("SO_SNDTIMEO ends a write early, or with EAGAIN") {
  auto [fd, peer] = connect_peer(where);
  set_timeout(fd, SO_SNDTIMEO, 60);
  std::string bytes(32 << 20, 'x');
  ssize_t n = CHECK_OK(write(fd, bytes.data(), bytes.size()));
  CHECK_TRUE(n > 0 && n < static_cast<ssize_t>(bytes.size()));
  CHECK_TRUE(fill(fd) < bytes.size());  // which demands EAGAIN
}

TEST("SO_RCVTIMEO ends accept with EAGAIN") {
  Listener listener = make_listener();
  set_timeout(listener.fd, SO_RCVTIMEO, 50);
  uint64_t start = now_ms();
  CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EAGAIN);
  CHECK_TRUE(now_ms() - start >= 45);
  make_pair(listener);
}

TEST("a wrong time-out is refused") {
  auto [client, server] = make_pair();
  timeval wrong{0, 2'000'000};
  CHECK_ERRNO(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &wrong, sizeof wrong), EDOM);
  CHECK_ERRNO(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &wrong, 4), EINVAL);
}

TEST_EVERYWHERE("SO_RCVLOWAT holds back readability") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 4);
  peer.send("abc");
  eventually([fd = fd] { return unread(fd) == 3; });
  CHECK_EQ(ready(fd, POLLIN), 0);
  peer.send("d");
  CHECK_EQ(await(fd, POLLIN), POLLIN);
  CHECK_EQ(read_once(fd), "abcd");
}

TEST_EVERYWHERE("SO_RCVLOWAT holds back a blocking read") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 4);
  peer.send("abc");
  eventually([fd = fd] { return unread(fd) == 3; });
  char bytes[8];
  auto peeked = std::async(std::launch::async, [fd = fd] {
    char room[8];
    return recv(fd, room, sizeof room, MSG_PEEK);
  });
  CHECK_EQ(peeked.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout, true);
  peer.send("de");
  CHECK_EQ(peeked.get(), 5);
  CHECK_EQ(recv(fd, bytes, 2, 0), 2);
  CHECK_EQ(recv(fd, bytes, 8, MSG_DONTWAIT), 3);
}

TEST_EVERYWHERE("TCP_CORK and TCP_NODELAY lose and reorder nothing") {
  auto [fd, peer] = connect_peer(where);
  set_option(fd, IPPROTO_TCP, TCP_CORK, 1);
  write_all(fd, "head");
  write_all(fd, "body");
  set_option(fd, IPPROTO_TCP, TCP_CORK, 0);
  CHECK_EQ(peer.receive(8), "headbody");
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
  write_all(fd, "x");
  CHECK_EQ(peer.receive(1), "x");
}

TEST("listener options read back") {
  Listener listener = make_listener();
  set_option(listener.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
  CHECK_TRUE(option(listener.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);
  set_option(listener.fd, IPPROTO_TCP, TCP_FASTOPEN, 5);
  CHECK_EQ(option(listener.fd, IPPROTO_TCP, TCP_FASTOPEN), 5);
  set_option(listener.fd, SOL_SOCKET, SO_INCOMING_CPU, 0);
  CHECK_EQ(option(listener.fd, SOL_SOCKET, SO_INCOMING_CPU), 0);
}

TEST("a deferred listener hands out a connection once it has bytes") {
  Listener listener = make_listener();
  set_option(listener.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
  int client = connect_to(listener.port);
  write_all(client, "x");
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(unread(server), 1);
}

TEST("SO_LINGER reads back") {
  auto [client, server] = make_pair();
  linger set{1, 7}, got{};
  socklen_t size = sizeof got;
  CHECK_OK(setsockopt(client, SOL_SOCKET, SO_LINGER, &set, sizeof set));
  CHECK_OK(getsockopt(client, SOL_SOCKET, SO_LINGER, &got, &size));
  CHECK_EQ(got.l_onoff, 1);
  CHECK_EQ(got.l_linger, 7);
  CHECK_ERRNO(setsockopt(client, SOL_SOCKET, SO_LINGER, &set, 4), EINVAL);
}

TEST("SO_INCOMING_CPU and SO_COOKIE are there") {
  auto [client, server] = make_pair();
  CHECK_TRUE(option(server, SOL_SOCKET, SO_INCOMING_CPU) >= 0);
  uint64_t one = 0, other = 0;
  socklen_t size = sizeof one;
  CHECK_OK(getsockopt(client, SOL_SOCKET, SO_COOKIE, &one, &size));
  CHECK_OK(getsockopt(server, SOL_SOCKET, SO_COOKIE, &other, &size));
  CHECK_TRUE(one != 0 && one != other);
}

TEST("TCP_INFO tells the state") {
  Listener listener = make_listener();
  CHECK_EQ(info_of(listener.fd).tcpi_state, kListen);
  CHECK_EQ(info_of(make_socket()).tcpi_state, kClosed);
  auto [client, server] = make_pair(listener);
  CHECK_EQ(info_of(client).tcpi_state, kEstablished);
  CHECK_EQ(info_of(server).tcpi_state, kEstablished);
  CHECK_TRUE(info_of(client).tcpi_snd_mss > 0);
  CHECK_OK(shutdown(client, SHUT_WR));
  await(server, POLLIN);
  CHECK_EQ(info_of(server).tcpi_state, kCloseWait);
  eventually([client = client] { return info_of(client).tcpi_state == kFinWait2; });
  reset(server);
  await(client, POLLERR);
  CHECK_EQ(info_of(client).tcpi_state, kClosed);
}

TEST("TCP_INFO is cut to the size asked for") {
  auto [client, server] = make_pair();
  tcp_info info;
  memset(&info, '#', sizeof info);
  socklen_t size = 1;
  CHECK_OK(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &size));
  CHECK_EQ(size, 1);
  CHECK_EQ(info.tcpi_state, kEstablished);
  CHECK_EQ(info.tcpi_ca_state, '#');
}

TEST_EVERYWHERE("TCP_MAXSEG and TCP_CONGESTION can be asked") {
  auto [fd, peer] = connect_peer(where);
  CHECK_TRUE(option(fd, IPPROTO_TCP, TCP_MAXSEG) > 500);
  char name[16] = "";
  socklen_t size = sizeof name;
  CHECK_OK(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size));
  CHECK_TRUE(strlen(name) > 0);
  CHECK_OK(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
}

TEST_EVERYWHERE("an unknown option gives ENOPROTOOPT") {
  auto [fd, peer] = connect_peer(where);
  int value = 1;
  socklen_t size = sizeof value;
  CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, 9999, &value, size), ENOPROTOOPT);
  CHECK_ERRNO(getsockopt(fd, SOL_SOCKET, 9999, &value, &size), ENOPROTOOPT);
  CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, 9999, &value, size), ENOPROTOOPT);
  CHECK_ERRNO(getsockopt(fd, IPPROTO_TCP, 9999, &value, &size), ENOPROTOOPT);
  CHECK_ERRNO(setsockopt(fd, IPPROTO_IP, 9999, &value, size), ENOPROTOOPT);
  CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, size), ENOPROTOOPT);
  CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_ERROR, &value, size), ENOPROTOOPT);
}

TEST_EVERYWHERE("option sizes: short ones are refused on the way in, cut on the way out") {
  auto [fd, peer] = connect_peer(where);
  int value = 1;
  CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 2), EINVAL);
  CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 3), EINVAL);
  char wide[8];
  memset(wide, '#', sizeof wide);
  socklen_t size = sizeof wide;
  CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_TYPE, wide, &size));
  CHECK_EQ(size, 4);
  CHECK_EQ(wide[4], '#');
  memset(wide, '#', sizeof wide);
  size = 1;
  CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_TYPE, wide, &size));
  CHECK_EQ(size, 1);
  CHECK_EQ(wide[0], SOCK_STREAM);
  CHECK_EQ(wide[1], '#');
  size = -1;
  CHECK_ERRNO(getsockopt(fd, SOL_SOCKET, SO_TYPE, wide, &size), EINVAL);
}

TEST_EVERYWHERE("a bad option pointer gives EFAULT") {
  auto [fd, peer] = connect_peer(where);
  socklen_t size = 4;
  void* volatile nowhere = nullptr;
  CHECK_ERRNO(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, nowhere, 4), EFAULT);
  CHECK_ERRNO(getsockopt(fd, SOL_SOCKET, SO_TYPE, nowhere, &size), EFAULT);
}

TEST("values out of range are refused") {
  auto [client, server] = make_pair();
  int zero = 0, huge = 1'000'000;
  CHECK_ERRNO(setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &zero, 4), EINVAL);
  CHECK_ERRNO(setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &huge, 4), EINVAL);
  CHECK_ERRNO(setsockopt(client, IPPROTO_TCP, TCP_KEEPCNT, &zero, 4), EINVAL);
  CHECK_ERRNO(setsockopt(client, IPPROTO_TCP, TCP_SYNCNT, &huge, 4), EINVAL);
}

TEST("IPV6_V6ONLY reads back and cannot change after bind") {
  int fd = make_socket(AF_INET6);
  check_round_trip(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  check_round_trip(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  Address address = loopback(AF_INET6);
  CHECK_OK(bind(fd, address.get(), address.size));
  int on = 1;
  CHECK_ERRNO(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), EINVAL);
}

TEST_EVERYWHERE("FIONREAD is exact") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(unread(fd), 0);
  peer.send("abcdef");
  eventually([fd = fd] { return unread(fd) == 6; });
  CHECK_EQ(read_once(fd, 2), "ab");
  CHECK_EQ(unread(fd), 4);
  peer.send("ghi");
  eventually([fd = fd] { return unread(fd) == 7; });
  char buffer[16];
  CHECK_EQ(recv(fd, buffer, 3, MSG_PEEK), 3);
  CHECK_EQ(unread(fd), 7);
  peer.shutdown(SHUT_WR);
  await(fd, POLLRDHUP);
  CHECK_EQ(unread(fd), 7);
  CHECK_EQ(read_exactly(fd, 7), "cdefghi");
  CHECK_EQ(unread(fd), 0);
}

TEST_EVERYWHERE("FIONREAD is exact with much in flight") {
  auto [fd, peer] = connect_peer(where);
  size_t sent = peer.fill();
  for (size_t got = 0; got < sent;) {
    int count;
    eventually([&, fd = fd] { return (count = unread(fd)) > 0; });
    std::vector<char> buffer(count);
    CHECK_EQ(recv(fd, buffer.data(), count, MSG_DONTWAIT), count);
    CHECK_TRUE(matches_pattern(buffer.data(), count, got));
    got += count;
  }
  CHECK_EQ(unread(fd), 0);
}

TEST("FIONREAD needs a connection that is not a listener") {
  int count;
  CHECK_EQ(unread(make_socket()), 0);
  CHECK_ERRNO(ioctl(make_listener().fd, FIONREAD, &count), EINVAL);
  CHECK_ERRNO(ioctl(make_listener().fd, SIOCOUTQ, &count), EINVAL);
}

TEST_EVERYWHERE("SIOCOUTQ sinks to zero when the peer has everything") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(outstanding(fd), 0);
  write_all(fd, "hello");
  CHECK_EQ(peer.receive(5), "hello");
  eventually([fd = fd] { return outstanding(fd) == 0; });
}

TEST_EVERYWHERE("SIOCOUTQ and SIOCOUTQNSD count what a full socket holds") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  int unsent = -1;
  CHECK_OK(ioctl(fd, SIOCOUTQNSD, &unsent));
  CHECK_TRUE(outstanding(fd) > 0 && outstanding(fd) <= static_cast<int>(sent));
  CHECK_TRUE(unsent >= 0 && unsent <= static_cast<int>(sent));
  peer.start_receiving(sent, 65'536);
  CHECK_EQ(peer.finish(), 0);
  eventually([fd = fd] { return outstanding(fd) == 0; });
}

TEST_EVERYWHERE("FIONBIO and O_NONBLOCK are one flag") {
  auto [fd, peer] = connect_peer(where);
  int on = 1, off = 0;
  CHECK_OK(ioctl(fd, FIONBIO, &on));
  CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
  CHECK_OK(ioctl(fd, FIONBIO, &off));
  CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR);
  CHECK_OK(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND));
  CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK | O_APPEND);
  CHECK_OK(fcntl(fd, F_SETFL, 0));
  CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR);
}

TEST_EVERYWHERE("FIOCLEX and FIONCLEX set the descriptor's flag") {
  auto [fd, peer] = connect_peer(where);
  CHECK_OK(ioctl(fd, FIOCLEX));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_OK(ioctl(fd, FIONCLEX));
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

TEST_EVERYWHERE("O_ASYNC raises SIGIO when bytes arrive") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGIO, count_signal);
  CHECK_OK(fcntl(fd, F_SETOWN, getpid()));
  CHECK_EQ(fcntl(fd, F_GETOWN), getpid());
  int on = 1;
  CHECK_OK(ioctl(fd, FIOASYNC, &on));
  CHECK_EQ(fcntl(fd, F_GETFL) & O_ASYNC, O_ASYNC);
  peer.send("x");
  eventually([] { return signals_seen > 0; });
}

TEST_EVERYWHERE("an unknown ioctl gives ENOTTY, terminal ones as well") {
  auto [fd, peer] = connect_peer(where);
  char buffer[64];
  CHECK_ERRNO(ioctl(fd, 0x5401 /* TCGETS */, buffer), ENOTTY);
  CHECK_EQ(isatty(fd), 0);
  CHECK_EQ(errno, ENOTTY);
}

TEST_EVERYWHERE("a connection cannot seek, map or truncate") {
  auto [fd, peer] = connect_peer(where);
  CHECK_ERRNO(lseek(fd, 0, SEEK_CUR), ESPIPE);
  CHECK_ERRNO(lseek64(fd, 10, SEEK_SET), ESPIPE);
  CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
  CHECK_ERRNO(fsync(fd), EINVAL);
  CHECK_ERRNO(fdatasync(fd), EINVAL);
}

TEST_EVERYWHERE("fstat says socket, with an inode of its own") {
  auto [fd, peer] = connect_peer(where);
  Pair other = make_pair();
  struct stat mine {
  }, others{};
  CHECK_OK(fstat(fd, &mine));
  CHECK_OK(fstat(other.client, &others));
  CHECK_TRUE(S_ISSOCK(mine.st_mode));
  CHECK_EQ(mine.st_mode & 0777, 0777);
  CHECK_TRUE(mine.st_ino != others.st_ino);
  struct stat again {};
  CHECK_OK(fstat(dup(fd), &again));
  CHECK_EQ(again.st_ino, mine.st_ino);
}

TEST_EVERYWHERE("/proc/self/fd names the socket by its inode") {
  auto [fd, peer] = connect_peer(where);
  struct stat status {};
  CHECK_OK(fstat(fd, &status));
  char link[64] = "";
  CHECK_OK(readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), link, sizeof link - 1));
  CHECK_EQ(link, "socket:[" + std::to_string(status.st_ino) + "]");
}
