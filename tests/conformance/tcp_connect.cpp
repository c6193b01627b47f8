// How connections come about, and how they are named.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <set>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

int connect_address(int fd, Address address) { return connect(fd, address.get(), address.size); }
int bind_address(int fd, Address address) { return bind(fd, address.get(), address.size); }

Listener listen_on(const char* ip, bool v6_only = false) {
  Address address = address_of(ip, 0);
  int fd = make_socket(address.storage.ss_family);
  if (address.storage.ss_family == AF_INET6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
  CHECK_OK(bind_address(fd, address));
  CHECK_OK(listen(fd, 16));
  return {fd, local_address(fd).port()};
}

// A port on which nobody listens: bound, so that nobody else gets it either.
uint16_t closed_port(int family = AF_INET) {
  int fd = make_socket(family);
  CHECK_OK(bind_address(fd, loopback(family)));
  return local_address(fd).port();
}

Pair pair_through(Listener listener, const char* destination) {
  Address to = address_of(destination, listener.port);
  int client = make_socket(to.storage.ss_family);
  CHECK_OK(connect_address(client, to));
  return {client, CHECK_OK(accept(listener.fd, nullptr, nullptr))};
}

void check_talks(Pair pair) {
  write_all(pair.client, "ping");
  CHECK_EQ(read_exactly(pair.server, 4), "ping");
  write_all(pair.server, "pong");
  CHECK_EQ(read_exactly(pair.client, 4), "pong");
}

}  // namespace

TEST_EVERYWHERE("both ends agree on both addresses") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(local_address(fd).text().substr(0, 10), "127.0.0.1:");
  CHECK_EQ(peer_address(fd).text().substr(0, 10), "127.0.0.1:");
  CHECK_TRUE(local_address(fd).port() != peer_address(fd).port());
  CHECK_EQ(peer.local_address(), peer_address(fd).text());
  CHECK_EQ(peer.peer_address(), local_address(fd).text());
}

TEST_EVERYWHERE("both ends agree on both IPv6 addresses") {
  auto [fd, peer] = connect_peer(where, AF_INET6);
  CHECK_EQ(local_address(fd).text().substr(0, 6), "[::1]:");
  CHECK_EQ(local_address(fd).size, sizeof(sockaddr_in6));
  CHECK_EQ(peer.local_address(), peer_address(fd).text());
  CHECK_EQ(peer.peer_address(), local_address(fd).text());
}

TEST("accept yields the client's address") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  Address from;
  int server = CHECK_OK(accept(listener.fd, from.get(), &from.size));
  CHECK_EQ(from.size, sizeof(sockaddr_in));
  CHECK_EQ(from.text(), local_address(client).text());
  CHECK_EQ(local_address(server).port(), listener.port);
}

TEST("a short address buffer is filled and its true size told") {
  auto [client, server] = make_pair();
  char buffer[sizeof(sockaddr_in)];
  memset(buffer, '#', sizeof buffer);
  socklen_t size = 4;
  CHECK_OK(getsockname(client, reinterpret_cast<sockaddr*>(buffer), &size));
  CHECK_EQ(size, sizeof(sockaddr_in));
  uint16_t port;
  memcpy(&port, buffer + 2, 2);
  CHECK_EQ(ntohs(port), local_address(client).port());
  CHECK_EQ(buffer[4], '#');
  size = 0;
  CHECK_OK(getpeername(server, reinterpret_cast<sockaddr*>(buffer), &size));
  CHECK_EQ(size, sizeof(sockaddr_in));
}

TEST("accept4 sets the flags, accept inherits none") {
  Listener listener = make_listener(AF_INET, 16, SOCK_NONBLOCK);
  int clients[] = {connect_to(listener.port), connect_to(listener.port)};
  await(listener.fd, POLLIN);
  int plain = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(fcntl(plain, F_GETFL), O_RDWR);
  CHECK_EQ(fcntl(plain, F_GETFD), 0);
  await(listener.fd, POLLIN);
  int flagged = CHECK_OK(accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  CHECK_EQ(fcntl(flagged, F_GETFL), O_RDWR | O_NONBLOCK);
  CHECK_EQ(fcntl(flagged, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(accept4(listener.fd, nullptr, nullptr, 1), EINVAL);
  check_talks({clients[0], plain});
}

TEST("accept on a non-blocking listener gives EAGAIN") {
  Listener listener = make_listener(AF_INET, 16, SOCK_NONBLOCK);
  CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EAGAIN);
  int client = connect_to(listener.port);
  CHECK_EQ(await(listener.fd, POLLIN), POLLIN);
  check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
  CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EAGAIN);
}

TEST("a blocked accept wakes when another program connects") {
  Listener listener = make_listener();
  int server = -1;
  Worker acceptor([&] { server = CHECK_OK(accept(listener.fd, nullptr, nullptr)); });
  acceptor.await_sleep();
  Peer peer = spawn_client(listener.port);
  acceptor.join();
  CHECK_EQ(peer.reply(), 0);
  peer.send("hello");
  CHECK_EQ(read_exactly(server, 5), "hello");
}

TEST("connections are accepted in the order in which they were made") {
  Listener listener = make_listener();
  std::vector<int> clients;
  for (int i = 0; i < 20; i++) clients.push_back(connect_to(listener.port));
  for (int client : clients) {
    Address from;
    CHECK_OK(accept(listener.fd, from.get(), &from.size));
    CHECK_EQ(from.port(), local_address(client).port());
  }
}

TEST("simultaneous connections have distinct ports") {
  Listener listener = make_listener();
  std::set<uint16_t> ports;
  for (int i = 0; i < 100; i++) ports.insert(local_address(connect_to(listener.port)).port());
  CHECK_EQ(ports.size(), 100);
}

TEST("a backlog takes at least as many connections as it says") {
  Listener listener = make_listener(AF_INET, 50);
  std::vector<int> clients;
  for (int i = 0; i < 50; i++) clients.push_back(connect_to(listener.port));
  for (int client : clients) check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("what a client writes before accept is there after it") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  write_all(client, "early");
  CHECK_OK(shutdown(client, SHUT_WR));
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_to_end(server), "early");
  write_all(server, "reply");
  CHECK_EQ(read_exactly(client, 5), "reply");
}

TEST("what a client wrote before it closed and died is accepted and read") {
  Listener listener = make_listener();
  CHECK_EQ(wait_exit(in_child([&] { write_all(connect_to(listener.port), "last words"); })), 0);
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_to_end(server), "last words");
}

TEST("a non-blocking connect becomes writable and has no error") {
  Listener listener = make_listener();
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  int result = connect_address(client, loopback(AF_INET, listener.port));
  if (result < 0) CHECK_EQ(errno, EINPROGRESS);
  CHECK_EQ(await(client, POLLOUT | POLLIN), POLLOUT);
  CHECK_EQ(socket_error(client), 0);
  check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("a non-blocking connect says EINPROGRESS first, EISCONN in the end") {
  Listener listener = make_listener();
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  Address to = loopback(AF_INET, listener.port);
  CHECK_ERRNO(connect_address(client, to), EINPROGRESS);
  await(client, POLLOUT);
  CHECK_OK(connect_address(client, to));
  CHECK_ERRNO(connect_address(client, to), EISCONN);
  check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("a connected socket cannot be connected again") {
  Listener listener = make_listener(), other = make_listener();
  int client = connect_to(listener.port);
  CHECK_ERRNO(connect_address(client, loopback(AF_INET, listener.port)), EISCONN);
  CHECK_ERRNO(connect_address(client, loopback(AF_INET, other.port)), EISCONN);
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_ERRNO(connect_address(server, loopback(AF_INET, other.port)), EISCONN);
  check_talks({client, server});
}

TEST("nobody listening refuses a blocking connect") {
  int client = make_socket();
  CHECK_ERRNO(connect_address(client, loopback(AF_INET, closed_port())), ECONNREFUSED);
  CHECK_EQ(socket_error(client), 0);
  int client6 = make_socket(AF_INET6);
  CHECK_ERRNO(connect_address(client6, loopback(AF_INET6, closed_port(AF_INET6))), ECONNREFUSED);
}

TEST("nobody listening refuses a non-blocking connect") {
  int client = make_socket(AF_INET, SOCK_NONBLOCK);
  Address to = loopback(AF_INET, closed_port());
  if (connect_address(client, to) < 0 && errno == EINPROGRESS) {
    CHECK_EQ(await(client, POLLOUT), POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(socket_error(client), ECONNREFUSED);
  }
  CHECK_EQ(socket_error(client), 0);
  CHECK_EQ(ready(client, POLLIN | POLLOUT), POLLIN | POLLOUT | POLLHUP);
}

TEST("a refused socket connects at the next try") {
  int client = make_socket();
  CHECK_ERRNO(connect_address(client, loopback(AF_INET, closed_port())), ECONNREFUSED);
  Listener listener = make_listener();
  CHECK_OK(connect_address(client, loopback(AF_INET, listener.port)));
  check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("a closed listener refuses") {
  Listener listener = make_listener();
  CHECK_OK(close(listener.fd));
  CHECK_ERRNO(connect_address(make_socket(), loopback(AF_INET, listener.port)), ECONNREFUSED);
}

TEST("a listener that was shut down refuses, its accept gives EINVAL") {
  Listener listener = make_listener();
  CHECK_OK(shutdown(listener.fd, SHUT_RD));
  CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EINVAL);
  CHECK_ERRNO(connect_address(make_socket(), loopback(AF_INET, listener.port)), ECONNREFUSED);
  CHECK_OK(listen(listener.fd, 5));
  listener.port = local_address(listener.fd).port();  // a port not asked for by number is lost
  check_talks(make_pair(listener));
}

TEST("a listener of another program is reached and refuses after its death") {
  Peer peer = spawn_client(make_listener().port);
  CHECK_EQ(peer.reply(), 0);
  uint16_t port = peer.start_accepting();
  int fd = connect_to(port);
  CHECK_EQ(peer.reply(), 0);
  peer.send("hi");
  CHECK_EQ(read_exactly(fd, 2), "hi");
  peer.kill();
  CHECK_ERRNO(connect_address(make_socket(), loopback(AF_INET, port)), ECONNREFUSED);
}

TEST("closing a listener resets what was not accepted") {
  Listener listener = make_listener();
  int client = connect_to(listener.port);
  CHECK_OK(close(listener.fd));
  CHECK_EQ(await(client, POLLIN) & (POLLIN | POLLERR | POLLHUP), POLLIN | POLLERR | POLLHUP);
  char byte;
  CHECK_ERRNO(read(client, &byte, 1), ECONNRESET);
  CHECK_EQ(read(client, &byte, 1), 0);
}

TEST("127.0.0.2 reaches a listener on every address, not one on 127.0.0.1") {
  Listener any = listen_on("0.0.0.0");
  Pair pair = pair_through(any, "127.0.0.2");
  CHECK_EQ(peer_address(pair.client).text(), "127.0.0.2:" + std::to_string(any.port));
  CHECK_EQ(local_address(pair.server).text(), "127.0.0.2:" + std::to_string(any.port));
  CHECK_EQ(local_address(pair.client).text().substr(0, 10), "127.0.0.1:");
  check_talks(pair);
  Listener one = listen_on("127.0.0.1");
  CHECK_ERRNO(connect_address(make_socket(), address_of("127.0.0.2", one.port)), ECONNREFUSED);
}

TEST("two listeners share a port on different addresses") {
  Listener first = listen_on("127.0.0.1");
  int second = make_socket();
  CHECK_OK(bind_address(second, address_of("127.0.0.2", first.port)));
  CHECK_OK(listen(second, 5));
  Pair to_second = pair_through({second, first.port}, "127.0.0.2");
  Pair to_first = pair_through(first, "127.0.0.1");
  check_talks(to_first);
  check_talks(to_second);
}

TEST("a listener on one address is preferred to one on all") {
  int any = make_socket(), one = make_socket();
  set_option(any, SOL_SOCKET, SO_REUSEPORT, 1);
  set_option(one, SOL_SOCKET, SO_REUSEPORT, 1);
  CHECK_OK(bind_address(any, address_of("0.0.0.0", 0)));
  uint16_t port = local_address(any).port();
  CHECK_OK(bind_address(one, address_of("127.0.0.1", port)));
  CHECK_OK(listen(any, 5));
  CHECK_OK(listen(one, 5));
  for (int i = 0; i < 5; i++) check_talks(pair_through({one, port}, "127.0.0.1"));
  check_talks(pair_through({any, port}, "127.0.0.2"));
}

TEST("0.0.0.0 and :: as destinations mean this host") {
  Listener v4 = make_listener();
  Pair pair = pair_through(v4, "0.0.0.0");
  CHECK_EQ(peer_address(pair.client).text(), "127.0.0.1:" + std::to_string(v4.port));
  check_talks(pair);
  Listener v6 = make_listener(AF_INET6);
  pair = pair_through(v6, "::");
  CHECK_EQ(peer_address(pair.client).text(), "[::1]:" + std::to_string(v6.port));
  check_talks(pair);
}

TEST("a dual-stack listener takes IPv4 under mapped addresses") {
  Listener any = listen_on("::");
  Pair pair = pair_through(any, "127.0.0.1");
  CHECK_EQ(local_address(pair.server).text(), "[::ffff:127.0.0.1]:" + std::to_string(any.port));
  CHECK_EQ(peer_address(pair.server).text(),
           "[::ffff:127.0.0.1]:" + std::to_string(local_address(pair.client).port()));
  check_talks(pair);
  check_talks(pair_through(any, "::1"));
}

TEST("an IPv6 socket connects to a mapped IPv4 address") {
  Listener v4 = make_listener();
  Pair pair = pair_through(v4, "::ffff:127.0.0.1");
  CHECK_EQ(peer_address(pair.client).text(), "[::ffff:127.0.0.1]:" + std::to_string(v4.port));
  CHECK_EQ(peer_address(pair.server).text(),
           "127.0.0.1:" + std::to_string(local_address(pair.client).port()));
  check_talks(pair);
}

TEST("an IPv6-only listener does not take IPv4") {
  Listener v6 = listen_on("::", true);
  CHECK_ERRNO(connect_address(make_socket(), loopback(AF_INET, v6.port)), ECONNREFUSED);
  check_talks(pair_through(v6, "::1"));
}

TEST("an IPv6-only listener shares its port with an IPv4 one") {
  Listener v6, v4;
  eventually([&] {  // other tests' connections in TIME_WAIT may hold the same IPv4 port
    v6 = listen_on("::", true);
    v4 = {make_socket(), v6.port};
    return bind_address(v4.fd, address_of("0.0.0.0", v6.port)) == 0;
  });
  CHECK_OK(listen(v4.fd, 5));
  check_talks(pair_through(v4, "127.0.0.1"));
  check_talks(pair_through(v6, "::1"));
}

TEST("a client bound before connect keeps its address") {
  Listener listener = make_listener();
  int client = make_socket();
  CHECK_OK(bind_address(client, address_of("127.0.0.3", 0)));
  std::string bound = local_address(client).text();
  CHECK_OK(connect_address(client, loopback(AF_INET, listener.port)));
  CHECK_EQ(local_address(client).text(), bound);
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(peer_address(server).text(), bound);
  check_talks({client, server});
}

TEST("IP_BIND_ADDRESS_NO_PORT leaves the port to connect") {
  Listener listener = make_listener();
  int client = make_socket();
  set_option(client, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  CHECK_OK(bind_address(client, address_of("127.0.0.4", 0)));
  CHECK_EQ(local_address(client).text(), "127.0.0.4:0");
  CHECK_OK(connect_address(client, loopback(AF_INET, listener.port)));
  CHECK_TRUE(local_address(client).port() != 0);
  check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("an unbound socket is named by zeros") {
  CHECK_EQ(local_address(make_socket()).text(), "0.0.0.0:0");
  CHECK_EQ(local_address(make_socket(AF_INET6)).text(), "[::]:0");
}

TEST("a port in use cannot be bound") {
  Listener listener = make_listener();
  Address taken = loopback(AF_INET, listener.port);
  CHECK_ERRNO(bind_address(make_socket(), taken), EADDRINUSE);
  CHECK_ERRNO(bind_address(make_socket(), address_of("0.0.0.0", listener.port)), EADDRINUSE);
  CHECK_ERRNO(bind_address(listener.fd, loopback(AF_INET, 0)), EINVAL);
}

TEST("the port of another program's listener is in use") {
  Peer peer = spawn_client(make_listener().port);
  CHECK_EQ(peer.reply(), 0);
  uint16_t port = peer.start_accepting();
  CHECK_ERRNO(bind_address(make_socket(), loopback(AF_INET, port)), EADDRINUSE);
}

TEST("SO_REUSEADDR rebinds a port with live connections, not one with a listener") {
  Listener listener = make_listener();
  Pair pair = make_pair(listener);
  int again = make_socket();
  set_option(again, SOL_SOCKET, SO_REUSEADDR, 1);
  CHECK_ERRNO(bind_address(again, loopback(AF_INET, listener.port)), EADDRINUSE);
  CHECK_OK(close(listener.fd));
  CHECK_ERRNO(bind_address(make_socket(), loopback(AF_INET, listener.port)), EADDRINUSE);
  int reusable = make_socket();
  set_option(reusable, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(pair.server, SOL_SOCKET, SO_REUSEADDR, 1);
  CHECK_OK(bind_address(reusable, loopback(AF_INET, listener.port)));
  CHECK_OK(listen(reusable, 5));
  check_talks(make_pair({reusable, listener.port}));
  check_talks(pair);
}

TEST("an address of another host cannot be bound") {
  CHECK_ERRNO(bind_address(make_socket(), address_of("192.0.2.77", 0)), EADDRNOTAVAIL);
}

TEST("SO_REUSEPORT spreads connections over two listeners") {
  Listener first{make_socket(), 0}, second{make_socket(), 0};
  set_option(first.fd, SOL_SOCKET, SO_REUSEPORT, 1);
  set_option(second.fd, SOL_SOCKET, SO_REUSEPORT, 1);
  CHECK_OK(bind_address(first.fd, loopback(AF_INET)));
  CHECK_OK(listen(first.fd, 64));
  first.port = second.port = local_address(first.fd).port();
  CHECK_OK(bind_address(second.fd, loopback(AF_INET, first.port)));
  CHECK_OK(listen(second.fd, 64));
  int counts[2] = {0, 0};
  for (int i = 0; i < 40; i++) {
    int client = connect_to(first.port);
    pollfd entries[2] = {{first.fd, POLLIN, 0}, {second.fd, POLLIN, 0}};
    CHECK_EQ(poll(entries, 2, -1), 1);
    int chosen = entries[0].revents ? 0 : 1;
    counts[chosen]++;
    check_talks({client, CHECK_OK(accept(entries[chosen].fd, nullptr, nullptr))});
  }
  CHECK_TRUE(counts[0] > 0 && counts[1] > 0);
  CHECK_OK(close(first.fd));
  for (int i = 0; i < 10; i++) check_talks(make_pair(second));
}

TEST("SO_REUSEPORT needs it on both sockets") {
  Listener listener = make_listener();
  int second = make_socket();
  set_option(second, SOL_SOCKET, SO_REUSEPORT, 1);
  CHECK_ERRNO(bind_address(second, loopback(AF_INET, listener.port)), EADDRINUSE);
}

TEST("an unconnected socket gives ENOTCONN or EPIPE") {
  int fd = make_socket();
  Address address;
  char byte = 0;
  CHECK_ERRNO(read(fd, &byte, 1), ENOTCONN);
  CHECK_ERRNO(recv(fd, &byte, 1, MSG_DONTWAIT), ENOTCONN);
  CHECK_ERRNO(getpeername(fd, address.get(), &address.size), ENOTCONN);
  CHECK_ERRNO(shutdown(fd, SHUT_RDWR), ENOTCONN);
  CHECK_ERRNO(send(fd, &byte, 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(ready(make_socket(), POLLIN | POLLOUT), POLLOUT | POLLHUP);
}

TEST("a listener does not carry bytes") {
  Listener listener = make_listener();
  Address address;
  char byte = 0;
  CHECK_ERRNO(read(listener.fd, &byte, 1), ENOTCONN);
  CHECK_ERRNO(send(listener.fd, &byte, 1, MSG_NOSIGNAL), EPIPE);
  CHECK_ERRNO(getpeername(listener.fd, address.get(), &address.size), ENOTCONN);
  CHECK_ERRNO(connect_address(listener.fd, loopback(AF_INET, listener.port)), EISCONN);
}

TEST("only a listener accepts, only an unconnected socket listens") {
  CHECK_ERRNO(accept(make_socket(), nullptr, nullptr), EINVAL);
  auto [client, server] = make_pair();
  CHECK_ERRNO(accept(server, nullptr, nullptr), EINVAL);
  CHECK_ERRNO(listen(client, 5), EINVAL);
  CHECK_ERRNO(listen(server, 5), EINVAL);
  CHECK_ERRNO(bind_address(client, loopback(AF_INET)), EINVAL);
}

TEST("an unbound socket that listens gets a port on every address") {
  int fd = make_socket();
  CHECK_OK(listen(fd, 5));
  Address address = local_address(fd);
  CHECK_EQ(address.text(), "0.0.0.0:" + std::to_string(address.port()));
  check_talks(pair_through({fd, address.port()}, "127.0.0.1"));
}

TEST("listen again changes the backlog only") {
  Listener listener = make_listener(AF_INET, 1);
  CHECK_OK(listen(listener.fd, 100));
  std::vector<int> clients;
  for (int i = 0; i < 60; i++) clients.push_back(connect_to(listener.port));
  for (int client : clients) check_talks({client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("a wrong address is refused by bind and connect") {
  int fd = make_socket();
  Address v6 = loopback(AF_INET6, 1), v4 = loopback(AF_INET, 1);
  CHECK_ERRNO(connect_address(fd, v6), EAFNOSUPPORT);
  CHECK_ERRNO(bind_address(fd, v6), EAFNOSUPPORT);
  CHECK_ERRNO(connect(fd, v4.get(), 8), EINVAL);
  CHECK_ERRNO(bind(fd, v4.get(), 8), EINVAL);
  CHECK_ERRNO(connect_address(make_socket(AF_INET6), v4), EINVAL);
}

TEST("AF_UNSPEC dissolves a connection") {
  Listener listener = make_listener();
  Pair pair = make_pair(listener);
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  CHECK_OK(connect(pair.client, &nothing, sizeof nothing));
  char byte;
  CHECK_ERRNO(read(pair.server, &byte, 1), ECONNRESET);
  CHECK_ERRNO(read(pair.client, &byte, 1), ECONNRESET);
  CHECK_ERRNO(read(pair.client, &byte, 1), ENOTCONN);
  CHECK_OK(connect_address(pair.client, loopback(AF_INET, listener.port)));
  check_talks({pair.client, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("a socket connects to itself") {
  int fd = make_socket();
  CHECK_OK(bind_address(fd, loopback(AF_INET)));
  CHECK_OK(connect_address(fd, local_address(fd)));
  CHECK_EQ(local_address(fd).text(), peer_address(fd).text());
  write_all(fd, "echo");
  CHECK_EQ(read_exactly(fd, 4), "echo");
}

TEST("2,000 short connections leave nothing behind") {
  Listener listener = make_listener();
  int first_free = make_socket();
  CHECK_OK(close(first_free));
  for (int i = 0; i < 2000; i++) {
    Pair pair = make_pair(listener);
    write_all(pair.client, "x");
    CHECK_EQ(read_once(pair.server), "x");
    CHECK_OK(close(pair.server));  // first, so that TIME_WAIT does not use up client ports
    CHECK_EQ(read_once(pair.client), "");
    CHECK_OK(close(pair.client));
  }
  CHECK_EQ(make_socket(), first_free);
}

TEST("200 connections at once each carry their own bytes") {
  Listener listener = make_listener(AF_INET, 256);
  std::vector<Pair> pairs;
  for (int i = 0; i < 200; i++) pairs.push_back(make_pair(listener));
  for (int i = 0; i < 200; i++) write_all(pairs[i].client, "I am " + std::to_string(i));
  for (int i = 0; i < 200; i++) CHECK_EQ(read_once(pairs[i].server), "I am " + std::to_string(i));
}

TEST("UDP is untouched") {
  int receiver = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
  int sender = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
  CHECK_OK(bind_address(receiver, loopback(AF_INET)));
  CHECK_OK(connect_address(sender, local_address(receiver)));
  CHECK_EQ(send(sender, "one", 3, 0), 3);
  CHECK_EQ(send(sender, "two!", 4, 0), 4);
  CHECK_EQ(read_once(receiver), "one");
  CHECK_EQ(read_once(receiver), "two!");
}

TEST("AF_UNIX streams, datagrams and abstract names work") {
  int ends[2];
  CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  check_talks({ends[0], ends[1]});
  CHECK_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
  CHECK_EQ(send(ends[0], "a", 1, 0), 1);
  CHECK_EQ(send(ends[0], "bc", 2, 0), 2);
  CHECK_EQ(read_once(ends[1]), "a");
  int listener = make_socket(AF_UNIX), client = make_socket(AF_UNIX);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;  // bound to the family alone: the kernel picks an abstract name
  CHECK_OK(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)));
  CHECK_OK(listen(listener, 5));
  CHECK_OK(connect_address(client, local_address(listener)));
  check_talks({client, CHECK_OK(accept(listener, nullptr, nullptr))});
}
