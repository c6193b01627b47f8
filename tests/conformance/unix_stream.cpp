// Stream sockets of AF_UNIX that meet by name.
#include <fcntl.h>
#include <grp.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "epoll_set.h"
#include "sockets.h"
#include "unix_sockets.h"

using namespace conformance;

// ---- names ----------------------------------------------------------------------------------

TEST_EVERYWHERE("bytes go both ways over a pathname") {
  Directory d;
  meet(where, "s", [](int fd) {
    write_all(fd, "hello");
    CHECK_EQ(read_exactly(fd, 5), "world");
  }, [](int fd) {
    CHECK_EQ(read_exactly(fd, 5), "hello");
    write_all(fd, "world");
  });
}

TEST_EVERYWHERE("bytes go both ways over an abstract name") {
  meet(where, abstract_name(), [](int fd) {
    write_all(fd, "hello");
    CHECK_EQ(read_to_end(fd), "world");
  }, [](int fd) {
    CHECK_EQ(read_exactly(fd, 5), "hello");
    write_all(fd, "world");
  });
}

TEST_EVERYWHERE("a long transfer arrives as it was sent") {
  meet(where, abstract_name(), [](int fd) { CHECK_EQ(send_pattern(fd, 8 << 20, 30'011), 0); },
       [](int fd) { CHECK_EQ(receive_pattern(fd, 8 << 20, 65536), 0); });
}

TEST_EVERYWHERE("names are told in the forms that they were given") {
  Directory d;
  meet(where, "./sock", [](int fd) {
    CHECK_EQ(local_name(fd), "");
    CHECK_EQ(local_size(fd), sizeof(sa_family_t));
    CHECK_EQ(peer_name(fd), "./sock");
    CHECK_EQ(peer_size(fd), offsetof(sockaddr_un, sun_path) + 7);
    write_all(fd, "!");
    CHECK_EQ(read_to_end(fd), "");
  }, [](int fd) {
    CHECK_EQ(read_exactly(fd, 1), "!");
    CHECK_EQ(local_name(fd), "./sock");
    CHECK_EQ(peer_name(fd), "");
    CHECK_EQ(peer_size(fd), sizeof(sa_family_t));
  });
}

TEST("an abstract name is told byte by byte") {
  std::string name = abstract_name() + std::string("\0mid\0", 5);
  UnixPair p = unix_pair(name);
  CHECK_EQ(peer_name(p.client), name);
  CHECK_EQ(local_name(p.server), name);
  CHECK_EQ(peer_size(p.client), offsetof(sockaddr_un, sun_path) + name.size());
}

TEST("abstract names that differ in length only are different") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  int fd = unix_socket();
  CHECK_ERRNO(try_connect(fd, name + std::string(1, '\0')), ECONNREFUSED);
  CHECK_ERRNO(try_connect(fd, name.substr(0, name.size() - 1)), ECONNREFUSED);
  CHECK_OK(try_connect(fd, name));
  close(listener);
}

TEST("the longest names work") {
  std::string name = abstract_name();
  name.resize(sizeof(sockaddr_un::sun_path), 'x');
  UnixPair p = unix_pair(name);
  CHECK_EQ(peer_name(p.client), name);
  Directory d;
  std::string path(sizeof(sockaddr_un::sun_path) - 1, 'p');
  UnixPair q = unix_pair(path);
  write_all(q.client, "!");
  CHECK_EQ(read_exactly(q.server, 1), "!");
  CHECK_EQ(peer_name(q.client), path);
}

TEST("a short buffer gets a part of the name and its whole length") {
  Directory d;
  UnixPair p = unix_pair("socket");
  UnixAddress a;
  memset(a.storage.sun_path, '#', sizeof a.storage.sun_path);
  a.size = 4;
  CHECK_OK(getpeername(p.client, a.get(), &a.size));
  CHECK_EQ(a.size, offsetof(sockaddr_un, sun_path) + 7);
  CHECK_EQ(std::string(a.storage.sun_path, 3), "so#");
}

TEST("accept tells an unnamed address") {
  Directory d;
  int listener = unix_listen("s");
  unix_connect("s");
  UnixAddress a;
  CHECK_OK(accept(listener, a.get(), &a.size));
  CHECK_EQ(a.size, sizeof(sa_family_t));
  CHECK_EQ(a.storage.sun_family, AF_UNIX);
}

TEST("a client that is bound shows its name") {
  Directory d;
  int listener = unix_listen("s");
  int fd = unix_socket();
  bind_to(fd, "client");
  CHECK_OK(try_connect(fd, "s"));
  int server = accept_one(listener);
  CHECK_EQ(peer_name(server), "client");
  write_all(fd, "!");
  CHECK_EQ(read_exactly(server, 1), "!");
}

TEST("recvfrom tells the server's name to a client and nothing to the server") {
  Directory d;
  UnixPair p = unix_pair("s");
  write_all(p.server, "a");
  write_all(p.client, "b");
  char byte;
  UnixAddress a;
  CHECK_EQ(recvfrom(p.client, &byte, 1, 0, a.get(), &a.size), 1);
  CHECK_EQ(a.name(), "s");
  UnixAddress b;
  CHECK_EQ(recvfrom(p.server, &byte, 1, 0, b.get(), &b.size), 1);
  CHECK_EQ(b.size, 0);
}

// ---- files ----------------------------------------------------------------------------------

TEST("a symbolic link leads to the socket") {
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(symlink("s", "link"));
  int fd = unix_connect("link");
  CHECK_EQ(peer_name(fd), "s");
  accept_one(listener);
}

TEST("a renamed socket is found under its new name only") {
  Directory d;
  int listener = unix_listen("old");
  unix_connect("old");
  accept_one(listener);
  CHECK_OK(rename("old", "new"));
  int fd = unix_connect("new");
  CHECK_EQ(peer_name(fd), "old");
  CHECK_ERRNO(try_connect(unix_socket(), "old"), ENOENT);
}

TEST("a hard link leads to the socket") {
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(link("s", "other"));
  CHECK_OK(unlink("s"));
  unix_connect("other");
  accept_one(listener);
}

TEST("an unlinked socket is not found, and what is connected goes on") {
  Directory d;
  UnixPair p = unix_pair("s");
  int listener = unix_listen("t");
  CHECK_OK(unlink("t"));
  CHECK_ERRNO(try_connect(unix_socket(), "t"), ENOENT);
  CHECK_OK(unlink("s"));
  write_all(p.client, "!");
  CHECK_EQ(read_exactly(p.server, 1), "!");
  close(listener);
}

TEST("a name that is bound anew leads to the new listener") {
  Directory d;
  int first = unix_listen("s");
  unix_connect("s");
  CHECK_OK(unlink("s"));
  int second = unix_listen("s");
  int fd = unix_connect("s");
  write_all(fd, "!");
  int server = accept_one(second);
  CHECK_EQ(read_exactly(server, 1), "!");
  CHECK_EQ(ready(second, POLLIN), 0);
  accept_one(first);
}

TEST("many rounds of bind, connect and unlink") {
  Directory d;
  for (int i = 0; i < 50; ++i) {
    UnixPair p = unix_pair("s");
    write_all(p.client, std::to_string(i));
    close(p.client);
    CHECK_EQ(read_to_end(p.server), std::to_string(i));
    close(p.server);
    CHECK_OK(unlink("s"));
  }
}

TEST("nobody listens: ECONNREFUSED for a file that is left, ENOENT for none") {
  Directory d;
  int listener = unix_listen("s");
  unix_connect("s");
  close(listener);
  CHECK_ERRNO(try_connect(unix_socket(), "s"), ECONNREFUSED);
  CHECK_ERRNO(try_connect(unix_socket(), "absent"), ENOENT);
  int bound = unix_socket();
  bind_to(bound, "bound");
  CHECK_ERRNO(try_connect(unix_socket(), "bound"), ECONNREFUSED);
  CHECK_ERRNO(try_connect(unix_socket(), abstract_name()), ECONNREFUSED);
}

TEST("a file that is no socket refuses") {
  Directory d;
  CHECK_OK(open("file", O_CREAT | O_WRONLY, 0666));
  CHECK_ERRNO(try_connect(unix_socket(), "file"), ECONNREFUSED);
  CHECK_ERRNO(try_connect(unix_socket(), "file/s"), ENOTDIR);
}

TEST("a socket of another type is of the wrong type") {
  Directory d;
  int dgram = CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
  bind_to(dgram, "d");
  CHECK_ERRNO(try_connect(unix_socket(), "d"), EPROTOTYPE);
}

TEST("binding twice is an error") {
  Directory d;
  int listener = unix_listen("s");
  UnixAddress a("s");
  CHECK_ERRNO(bind(unix_socket(), a.get(), a.size), EADDRINUSE);
  close(listener);
}

TEST("a socket that failed to connect can connect later") {
  Directory d;
  int fd = unix_socket();
  CHECK_ERRNO(try_connect(fd, "s"), ENOENT);
  int listener = unix_listen("s");
  CHECK_OK(try_connect(fd, "s"));
  write_all(fd, "!");
  CHECK_EQ(read_exactly(accept_one(listener), 1), "!");
}

// ---- permissions ----------------------------------------------------------------------------

namespace {

constexpr uid_t kUid = 65534, kOtherUid = 65533;
constexpr gid_t kGid = 65534;

// In a child that is somebody else.
void as(uid_t uid, gid_t gid, const std::vector<gid_t>& groups, const std::function<void()>& body) {
  pid_t child = in_child([&] {
    CHECK_OK(setgroups(groups.size(), groups.data()));
    CHECK_OK(setresgid(gid, gid, gid));
    CHECK_OK(setresuid(uid, uid, uid));
    body();
  });
  CHECK_EQ(wait_exit(child), 0);
}

bool is_root() { return geteuid() == 0; }

}  // namespace

TEST("another user needs the right to write") {
  if (!is_root()) return;
  Directory d;
  int listener = unix_listen("s");
  for (auto [mode, error] : {std::pair{0700, EACCES}, {0755, EACCES}, {0722, 0}, {0777, 0}, {0770, EACCES}}) {
    CHECK_OK(chmod("s", mode_t(mode)));
    as(kUid, kGid, {}, [&, error = error] {
      int fd = unix_socket();
      if (error != 0) CHECK_ERRNO(try_connect(fd, "s"), error);
      else CHECK_OK(try_connect(fd, "s"));
    });
  }
  close(listener);
}

TEST("rights that are taken away while connected hold for the next connect") {
  if (!is_root()) return;
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(chmod("s", 0777));
  as(kUid, kGid, {}, [&] {
    for (int i = 0; i < 3; ++i) unix_connect("s");
  });
  Turns turns;
  pid_t child = in_child([&] {
    CHECK_OK(setgroups(0, nullptr));
    CHECK_OK(setresuid(kUid, kUid, kUid));
    for (int i = 0; i < 3; ++i) unix_connect("s");
    turns.give(0);
    turns.await(1);
    CHECK_ERRNO(try_connect(unix_socket(), "s"), EACCES);
  });
  turns.await(0);
  CHECK_OK(chmod("s", 0700));
  turns.give(1);
  CHECK_EQ(wait_exit(child), 0);
  close(listener);
}

TEST("groups count, and the owner's and the group's bits come first") {
  if (!is_root()) return;
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(chown("s", kOtherUid, 4242));
  CHECK_OK(chmod("s", 0720));
  as(kUid, 4242, {}, [] { unix_connect("s"); });
  as(kUid, kGid, {4242}, [] { unix_connect("s"); });
  as(kUid, kGid, {}, [] { CHECK_ERRNO(try_connect(unix_socket(), "s"), EACCES); });
  as(kOtherUid, kGid, {}, [] { unix_connect("s"); });
  CHECK_OK(chmod("s", 0702));  // the group may not, though everybody else may
  as(kUid, 4242, {}, [] { CHECK_ERRNO(try_connect(unix_socket(), "s"), EACCES); });
  as(kUid, kGid, {}, [] { unix_connect("s"); });
  CHECK_OK(chmod("s", 0577));  // nor the owner
  as(kOtherUid, kGid, {}, [] { CHECK_ERRNO(try_connect(unix_socket(), "s"), EACCES); });
  close(listener);
}

TEST("who may not search the directory does not get in") {
  if (!is_root()) return;
  Directory d;
  CHECK_OK(mkdir("private", 0700));
  int listener = unix_listen("private/s");
  CHECK_OK(chmod("private/s", 0777));
  unix_connect("private/s");
  as(kUid, kGid, {}, [] { CHECK_ERRNO(try_connect(unix_socket(), "private/s"), EACCES); });
  close(listener);
}

TEST("root connects whatever the mode") {
  if (!is_root()) return;
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(chmod("s", 0));
  unix_connect("s");
  accept_one(listener);
}

TEST("a process that drops its rights is whom it became") {
  if (!is_root()) return;
  Directory d;
  int listener = unix_listen("s");
  CHECK_OK(chmod("s", 0777));
  Turns turns;
  pid_t child = in_child([&] {
    int as_root = unix_connect("s");
    turns.await(0);
    CHECK_OK(setgroups(0, nullptr));
    CHECK_OK(setresgid(kGid, kGid, kGid));
    CHECK_OK(setresuid(kUid, kUid, kUid));
    int as_other = unix_connect("s");
    turns.await(1);
    close(as_root);
    close(as_other);
  });
  ucred c = credentials_of(accept_one(listener));
  CHECK_EQ(c.uid, 0);
  CHECK_EQ(c.pid, child);
  turns.give(0);
  c = credentials_of(accept_one(listener));
  CHECK_EQ(c.uid, kUid);
  CHECK_EQ(c.gid, kGid);
  CHECK_EQ(c.pid, child);
  turns.give(1);
  CHECK_EQ(wait_exit(child), 0);
}

// ---- credentials ----------------------------------------------------------------------------

TEST_EVERYWHERE("SO_PEERCRED tells who listened and who connected") {
  Turns turns;
  pid_t parent = getpid();
  auto is_other = [&](int fd) {
    ucred c = credentials_of(fd);
    CHECK_EQ(c.uid, geteuid());
    CHECK_EQ(c.gid, getegid());
    if (where == Where::kSameProcess) CHECK_EQ(c.pid, parent);
    else CHECK_TRUE(c.pid != getpid() && c.pid > 0);
    if (where != Where::kSameProcess && getpid() != parent) CHECK_EQ(c.pid, parent);
  };
  meet(where, abstract_name(), [&](int fd) {
    is_other(fd);
    turns.give(0);
    turns.await(1);
  }, [&](int fd) {
    is_other(fd);
    turns.give(1);
    turns.await(0);
  });
}

TEST("SO_PEERCRED of a worker's connection names the process that listened") {
  std::string name = abstract_name();
  Turns turns;
  pid_t master = in_child([&] {
    int listener = unix_listen(name);
    pid_t worker = in_child([&] {
      turns.give(0);
      int fd = accept_one(listener);
      turns.await(1);
      close(fd);
    });
    CHECK_EQ(wait_exit(worker), 0);
  });
  turns.await(0);
  int fd = unix_connect(name);
  CHECK_EQ(credentials_of(fd).pid, master);
  turns.give(1);
  CHECK_EQ(wait_exit(master), 0);
}

TEST("a socket that is not connected has no peer") {
  ucred c = credentials_of(unix_socket());
  CHECK_EQ(c.pid, 0);
  CHECK_EQ(c.uid, uid_t(-1));
}

// ---- connecting and accepting ---------------------------------------------------------------

TEST("a connection is made before anybody accepts it, also without waiting") {
  Directory d;
  int listener = unix_listen("s");
  int fd = unix_socket(SOCK_NONBLOCK);
  CHECK_OK(try_connect(fd, "s"));
  CHECK_ERRNO(try_connect(fd, "s"), EISCONN);
  CHECK_TRUE((ready(fd, POLLOUT) & POLLOUT) != 0);
  write_all(fd, "early");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(read_to_end(accept_one(listener)), "early");
}

TEST("a full backlog is EAGAIN without waiting, and a blocking connect waits") {
  Directory d;
  int listener = unix_listen("s", 1);
  int last = 0;
  for (int i = 0; i < 16 && last == 0; ++i) {
    int fd = unix_socket(SOCK_NONBLOCK);
    last = try_connect(fd, "s") == 0 ? 0 : errno;
  }
  CHECK_EQ(last, EAGAIN);
  Worker worker([] { unix_connect("s"); });
  worker.await_sleep();
  accept_one(listener);
  set_nonblocking(listener);
  eventually([&] {
    int fd = accept(listener, nullptr, nullptr);
    return worker.done() || (fd < 0 && errno != EAGAIN);
  });
}

TEST("accepted connections have the defaults of AF_UNIX") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  int usual = option(listener, SOL_SOCKET, SO_SNDBUF);
  timeval t{3, 0};
  linger l{1, 5};
  CHECK_OK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  CHECK_OK(setsockopt(listener, SOL_SOCKET, SO_LINGER, &l, sizeof l));
  set_option(listener, SOL_SOCKET, SO_SNDBUF, 20'000);
  set_option(listener, SOL_SOCKET, SO_RCVLOWAT, 7);
  set_option(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  unix_connect(name);
  int server = accept_one(listener);
  socklen_t size = sizeof t;
  CHECK_OK(getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &t, &size));
  CHECK_EQ(t.tv_sec, 0);
  size = sizeof l;
  CHECK_OK(getsockopt(server, SOL_SOCKET, SO_LINGER, &l, &size));
  CHECK_EQ(l.l_onoff, 0);
  CHECK_EQ(option(server, SOL_SOCKET, SO_SNDBUF), usual);
  CHECK_EQ(option(server, SOL_SOCKET, SO_RCVLOWAT), 1);
  CHECK_EQ(option(server, SOL_SOCKET, SO_KEEPALIVE), 0);
}

TEST("no address of AF_UNIX is EINVAL on a connected socket too") {
  UnixPair p = unix_pair(abstract_name());
  sockaddr unspecified{AF_UNSPEC, {}};
  CHECK_ERRNO(connect(p.client, &unspecified, sizeof unspecified), EINVAL);
  write_all(p.client, "!");
  CHECK_EQ(read_exactly(p.server, 1), "!");
}

TEST("recvmmsg goes on at the end, and vectors without bytes do nothing") {
  UnixPair p = unix_pair(abstract_name());
  write_all(p.client, "ab");
  close(p.client);
  char room[3][8];
  iovec in[3], none{nullptr, 0};
  mmsghdr got[3] = {};
  for (int i = 0; i < 3; ++i) in[i] = {room[i], 8}, got[i].msg_hdr.msg_iov = &in[i], got[i].msg_hdr.msg_iovlen = 1;
  CHECK_EQ(preadv2(p.server, &none, 1, -1, 0), 0);
  CHECK_EQ(recvmmsg(p.server, got, 3, 0, nullptr), 3);
  CHECK_EQ(got[0].msg_len, 2);
  CHECK_EQ(got[1].msg_len + got[2].msg_len, 0);
  CHECK_EQ(writev(p.server, &none, 1), 0);  // not EPIPE
}

TEST("what waits for accept when the listener closes is reset") {
  Directory d;
  int listener = unix_listen("s");
  int fd = unix_connect("s");
  write_all(fd, "!");
  close(listener);
  char byte;
  CHECK_ERRNO(recv(fd, &byte, 1, 0), ECONNRESET);
  CHECK_EQ(recv(fd, &byte, 1, 0), 0);
}

TEST("listening needs a name, and a listener does not connect") {
  Directory d;
  CHECK_ERRNO(listen(unix_socket(), 5), EINVAL);
  int listener = unix_listen("s");
  CHECK_ERRNO(try_connect(listener, "s"), EINVAL);
  CHECK_ERRNO(accept(unix_socket(), nullptr, nullptr), EINVAL);
}

TEST("a listener that is shut down refuses") {
  Directory d;
  int listener = unix_listen("s");
  unix_connect("s");
  accept_one(listener);
  CHECK_OK(shutdown(listener, SHUT_RDWR));
  CHECK_ERRNO(try_connect(unix_socket(), "s"), ECONNREFUSED);
  CHECK_ERRNO(accept(listener, nullptr, nullptr), EINVAL);
}

TEST("unconnected sockets give the errors of AF_UNIX") {
  char byte = 0;
  CHECK_ERRNO(send(unix_socket(), &byte, 1, MSG_NOSIGNAL), ENOTCONN);
  CHECK_ERRNO(recv(unix_socket(), &byte, 1, 0), EINVAL);
  UnixAddress a("nowhere");
  CHECK_ERRNO(sendto(unix_socket(), &byte, 1, MSG_NOSIGNAL, a.get(), a.size), EOPNOTSUPP);
  CHECK_ERRNO(getpeername(unix_socket(), a.get(), &a.size), ENOTCONN);
}

TEST("sending to an address over a connection is EISCONN") {
  UnixPair p = unix_pair(abstract_name());
  UnixAddress a("nowhere");
  CHECK_ERRNO(sendto(p.client, "!", 1, 0, a.get(), a.size), EISCONN);
}

TEST("a socket registered with epoll before it connects is heard afterwards") {
  Directory d;
  int listener = unix_listen("s");
  int set = CHECK_OK(epoll_create1(0));
  int fd = unix_socket(SOCK_NONBLOCK);
  epoll_event e{EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, {}};
  e.data.fd = fd;
  CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e));
  epoll_event got[4];
  CHECK_OK(epoll_wait(set, got, 4, 0));  // whatever it is before
  CHECK_OK(try_connect(fd, "s"));
  int server = accept_one(listener);
  CHECK_OK(epoll_wait(set, got, 4, 0));  // connecting need not be an edge
  write_all(server, "x");
  CHECK_EQ(epoll_wait(set, got, 4, -1), 1);
  CHECK_EQ(got[0].events, EPOLLIN | EPOLLOUT);
  CHECK_EQ(epoll_wait(set, got, 4, 0), 0);
  close(server);
  CHECK_EQ(epoll_wait(set, got, 4, -1), 1);
  CHECK_EQ(got[0].events, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP);
}

TEST_EVERYWHERE("a level-triggered set reports until it is read, an edge once per arrival") {
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    write_all(fd, "a");
    turns.await(0);
    write_all(fd, "b");
    turns.await(1);
  }, [&](int fd) {
    int level = CHECK_OK(epoll_create1(0)), edge = CHECK_OK(epoll_create1(0));
    epoll_event l{EPOLLIN, {}}, e{EPOLLIN | EPOLLET, {}}, got;
    CHECK_OK(epoll_ctl(level, EPOLL_CTL_ADD, fd, &l));
    CHECK_OK(epoll_ctl(edge, EPOLL_CTL_ADD, fd, &e));
    CHECK_EQ(epoll_wait(level, &got, 1, -1), 1);
    CHECK_EQ(epoll_wait(level, &got, 1, -1), 1);
    CHECK_EQ(epoll_wait(edge, &got, 1, -1), 1);
    CHECK_EQ(epoll_wait(edge, &got, 1, 0), 0);
    turns.give(0);
    CHECK_EQ(epoll_wait(edge, &got, 1, -1), 1);
    CHECK_EQ(read_exactly(fd, 2), "ab");
    CHECK_EQ(epoll_wait(level, &got, 1, 0), 0);
    turns.give(1);
  });
}

TEST("a listener in an epoll set reports connections of either kind") {
  Directory d;
  int listener = unix_listen("s", 16, SOCK_NONBLOCK);
  int set = CHECK_OK(epoll_create1(0));
  epoll_event e{EPOLLIN, {}}, got;
  CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &e));
  CHECK_EQ(epoll_wait(set, &got, 1, 0), 0);
  int bound = unix_socket();
  bind_to(bound, "client");
  for (int i = 0; i < 2; ++i) {
    if (i == 0) unix_connect("s");
    else CHECK_OK(try_connect(bound, "s"));
    CHECK_EQ(epoll_wait(set, &got, 1, -1), 1);
    accept_one(listener);
    CHECK_EQ(epoll_wait(set, &got, 1, 0), 0);
  }
}

// ---- ending ---------------------------------------------------------------------------------

TEST_EVERYWHERE("after the peer has closed, bytes, then the end, and sending is EPIPE") {
  on_signal(SIGPIPE, count_signal);
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    turns.await(0);
    CHECK_EQ(await(fd, POLLIN | POLLRDHUP) & (POLLHUP | POLLRDHUP), POLLRDHUP);  // shut down
    turns.give(2);
    turns.await(1);
    eventually([&] { return (ready(fd, POLLIN) & POLLHUP) != 0; });
    CHECK_EQ(read_to_end(fd), "last words");
    int before = signals_seen;
    CHECK_ERRNO(send(fd, "x", 1, 0), EPIPE);
    CHECK_EQ(signals_seen - before, 1);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(signals_seen - before, 1);
    CHECK_EQ(socket_error(fd), 0);
    CHECK_TRUE(!peer_name(fd).empty());
  }, [&](int fd) {
    write_all(fd, "last words");
    CHECK_OK(shutdown(fd, SHUT_WR));
    turns.give(0);
    turns.await(2);
    close(fd);
    turns.give(1);
  });
}

TEST_EVERYWHERE("closing with unread bytes resets the peer") {
  Turns turns;
  meet(where, abstract_name(), [&](int fd) {
    write_all(fd, "never read");
    turns.give(0);
    turns.await(1);
    short e = await(fd, POLLIN);
    CHECK_EQ(e & (POLLIN | POLLERR | POLLHUP), POLLIN | POLLERR | POLLHUP);
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(read_exactly(fd, 3), "abc");  // what was sent before that
    char byte;
    CHECK_ERRNO(recv(fd, &byte, 1, 0), ECONNRESET);
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
  }, [&](int fd) {
    write_all(fd, "abc");
    turns.await(0);
    close(fd);
    turns.give(1);
  });
}

TEST("SO_RCVLOWAT keeps nothing from poll, and what can be written is POLLWRBAND, too") {
  UnixPair p = unix_pair(abstract_name());
  int many = 100;
  CHECK_OK(setsockopt(p.server, SOL_SOCKET, SO_RCVLOWAT, &many, sizeof many));
  write_all(p.client, "few");
  CHECK_EQ(ready(p.server, POLLIN | POLLWRBAND), POLLIN | POLLWRBAND);
  CHECK_ERRNO(send(p.client, "", 0, MSG_OOB), EOPNOTSUPP);
  CHECK_EQ(read_exactly(p.server, 3), "few");
  for (int i = 0; i < 20; ++i) {
    Worker poller([&] {
      pollfd f{p.server, POLLIN, 0};
      uint64_t before = now_ms();
      CHECK_EQ(poll(&f, 1, 10'000), 1);
      CHECK_TRUE(now_ms() - before < 2000);
    });
    if (i % 2 == 0) poller.await_sleep();
    write_all(p.client, "few");
    poller.join();
    CHECK_EQ(read_exactly(p.server, 3), "few");
  }
}

TEST("shutdown of reading stops the peer's writing") {
  UnixPair p = unix_pair(abstract_name());
  write_all(p.client, "kept");
  CHECK_OK(shutdown(p.server, SHUT_RD));
  CHECK_ERRNO(send(p.client, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(read_exactly(p.server, 4), "kept");
  CHECK_EQ(read_once(p.server), "");
  write_all(p.server, "still");
  CHECK_EQ(read_exactly(p.client, 5), "still");
  CHECK_OK(shutdown(p.server, SHUT_WR));
  CHECK_EQ(read_once(p.client), "");
  CHECK_TRUE((ready(p.client, POLLIN) & POLLHUP) != 0);
  CHECK_OK(shutdown(p.server, SHUT_RDWR));
  CHECK_OK(shutdown(p.client, SHUT_RDWR));
}

TEST_EVERYWHERE("shutdown of reading wakes a peer that waits to write") {
  on_signal(SIGPIPE, SIG_IGN);
  Turns turns;
  pid_t parent = getpid();
  meet(where, abstract_name(), [&](int fd) {
    std::string much(4 << 20, 'x');
    ssize_t n = 1;
    turns.give(0);
    while (n > 0) n = send(fd, much.data(), much.size(), 0);
    CHECK_ERRNO(n, EPIPE);
    turns.give(1);
  }, [&](int fd) {
    turns.await(0);
    (void)parent;
    pause_ms(20);
    CHECK_OK(shutdown(fd, SHUT_RD));
    turns.await(1);
  });
}

TEST("shutting down an unconnected socket works") {
  int fd = unix_socket();
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_ERRNO(shutdown(fd, 7), EINVAL);
}

TEST_EVERYWHERE("a peer that is killed has closed") {
  std::string name = abstract_name();
  Turns turns;
  pid_t child = in_child([&] {
    int listener = unix_listen(name);
    turns.give(0);
    int fd = accept_one(listener);
    CHECK_EQ(read_exactly(fd, 1), "a");
    write_all(fd, "bye");
    turns.give(1);
    turns.await(2);
  });
  turns.await(0);
  int fd = unix_connect(name);
  write_all(fd, "a");
  turns.await(1);
  if (where == Where::kPeerConnects) write_all(fd, "unread");
  kill(child, SIGKILL);
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  CHECK_EQ(read_exactly(fd, 3), "bye");
  char byte;
  if (where == Where::kPeerConnects) CHECK_ERRNO(recv(fd, &byte, 1, 0), ECONNRESET);
  CHECK_EQ(recv(fd, &byte, 1, 0), 0);
  CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_ERRNO(try_connect(unix_socket(), name), ECONNREFUSED);
}

TEST("what a client that is gone has sent can still be accepted and read") {
  std::string name = abstract_name();
  int listener = unix_listen(name);
  pid_t child = in_child([&] { write_all(unix_connect(name), "testament"); });
  CHECK_EQ(wait_exit(child), 0);
  int fd = accept_one(listener);
  CHECK_EQ(credentials_of(fd).pid, child);
  CHECK_EQ(read_to_end(fd), "testament");
}

// ---- reading and writing --------------------------------------------------------------------

TEST("FIONREAD and SIOCOUTQ tell what is under way") {
  UnixPair p = unix_pair(abstract_name());
  int n = -1;
  CHECK_OK(ioctl(p.client, SIOCOUTQ, &n));
  CHECK_EQ(n, 0);
  write_all(p.client, "12345");
  CHECK_EQ(unread(p.server), 5);
  CHECK_OK(ioctl(p.client, SIOCOUTQ, &n));
  CHECK_TRUE(n > 0);
  CHECK_EQ(read_exactly(p.server, 5), "12345");
  CHECK_OK(ioctl(p.client, SIOCOUTQ, &n));
  CHECK_EQ(n, 0);
}

TEST("a full socket is EAGAIN and not writable until it is read") {
  UnixPair p = unix_pair(abstract_name());
  set_nonblocking(p.client);
  size_t n = fill(p.client);
  CHECK_TRUE(n >= 64 * 1024);
  CHECK_EQ(ready(p.client, POLLOUT), 0);
  for (size_t left = n; left > 0;) left -= read_once(p.server).size();
  CHECK_EQ(await(p.client, POLLOUT), POLLOUT);
}

TEST("MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL and MSG_TRUNC") {
  UnixPair p = unix_pair(abstract_name());
  char b[8] = {};
  CHECK_ERRNO(recv(p.server, b, 8, MSG_DONTWAIT), EAGAIN);
  write_all(p.client, "abcdef");
  CHECK_EQ(recv(p.server, b, 3, MSG_PEEK), 3);
  CHECK_EQ(recv(p.server, b, 2, MSG_TRUNC), 2);
  CHECK_EQ(std::string(b, 2), "ab");
  Worker worker([&] { write_all(p.client, "gh"); });
  CHECK_EQ(recv(p.server, b, 6, MSG_WAITALL), 6);
  CHECK_EQ(std::string(b, 6), "cdefgh");
  CHECK_ERRNO(recv(p.server, b, 8, MSG_DONTWAIT | MSG_ERRQUEUE), EAGAIN);
}

TEST("urgent bytes as in TCP") {
  UnixPair p = unix_pair(abstract_name());
  char b[8];
  CHECK_ERRNO(recv(p.server, b, 1, MSG_OOB), EINVAL);
  CHECK_EQ(send(p.client, "ab!", 3, MSG_OOB), 3);
  CHECK_TRUE((ready(p.server, POLLPRI) & POLLPRI) != 0);
  CHECK_EQ(recv(p.server, b, 1, MSG_OOB), 1);
  CHECK_EQ(b[0], '!');
  CHECK_EQ(read_once(p.server), "ab");
}

TEST("a receive time-out ends a wait") {
  UnixPair p = unix_pair(abstract_name());
  timeval t{0, 20'000};
  CHECK_OK(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  char b;
  CHECK_ERRNO(recv(p.server, &b, 1, 0), EAGAIN);
}

// ---- options --------------------------------------------------------------------------------

TEST("options say what the socket is") {
  Directory d;
  int listener = unix_listen("s");
  int client = unix_connect("s"), server = accept_one(listener);
  for (int fd : {listener, client, server}) {
    CHECK_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), 0);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_ACCEPTCONN), fd == listener);
    CHECK_TRUE(option(fd, SOL_SOCKET, SO_SNDBUF) > 0);
    int value = 1;
    socklen_t size = sizeof value;
    CHECK_ERRNO(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), EOPNOTSUPP);
    CHECK_ERRNO(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), EOPNOTSUPP);
  }
  set_option(client, SOL_SOCKET, SO_SNDBUF, 32768);
  CHECK_EQ(option(client, SOL_SOCKET, SO_SNDBUF), 65536);
  write_all(client, "!");
  CHECK_EQ(read_exactly(server, 1), "!");
}

TEST("fstat tells sockets, each its own") {
  UnixPair p = unix_pair(abstract_name());
  struct stat a, b;
  CHECK_OK(fstat(p.client, &a));
  CHECK_OK(fstat(p.server, &b));
  CHECK_TRUE(S_ISSOCK(a.st_mode) && S_ISSOCK(b.st_mode) && a.st_ino != b.st_ino);
  write_all(p.client, "!");
  CHECK_EQ(read_exactly(p.server, 1), "!");
}

TEST("SO_PEEK_OFF moves what is peeked at") {
  int listener = unix_listen(abstract_name());
  std::string name = local_name(listener);
  int fd = unix_socket();
  set_option(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
  CHECK_OK(try_connect(fd, name));
  write_all(accept_one(listener), "abcd");
  char b[2];
  CHECK_EQ(recv(fd, b, 2, MSG_PEEK), 2);
  CHECK_EQ(std::string(b, 2), "ab");
  CHECK_EQ(recv(fd, b, 2, MSG_PEEK), 2);
  CHECK_EQ(std::string(b, 2), "cd");
}

// ---- duplicates and forks -------------------------------------------------------------------

TEST("a duplicate made before connecting is the same socket") {
  Directory d;
  int listener = unix_listen("s");
  int fd = unix_socket();
  int copy = CHECK_OK(dup(fd));
  CHECK_OK(try_connect(fd, "s"));
  close(fd);
  write_all(copy, "!");
  CHECK_EQ(read_exactly(accept_one(listener), 1), "!");
}

TEST("a forked child goes on with the connection") {
  UnixPair p = unix_pair(abstract_name());
  pid_t child = in_child([&] {
    close(p.server);
    CHECK_EQ(read_exactly(p.client, 2), "hi");
    write_all(p.client, "child");
    CHECK_EQ(credentials_of(p.client).pid, getppid());
  });
  close(p.client);
  write_all(p.server, "hi");
  CHECK_EQ(read_to_end(p.server), "child");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a server that forks for each connection") {
  std::string name = abstract_name();
  Turns turns;
  pid_t server = in_child([&] {
    int listener = unix_listen(name);
    turns.give(0);
    for (int i = 0; i < 20; ++i) {
      int fd = accept_one(listener);
      pid_t child = in_child([&] { write_all(fd, read_exactly(fd, 5)); });
      close(fd);
      CHECK_EQ(wait_exit(child), 0);
    }
  });
  turns.await(0);
  for (int i = 0; i < 20; ++i) {
    int fd = unix_connect(name);
    write_all(fd, "hello");
    CHECK_EQ(read_to_end(fd), "hello");
    close(fd);
  }
  CHECK_EQ(wait_exit(server), 0);
}

TEST("workers that inherit a listener share its connections") {
  Directory d;
  Turns turns;
  int listener = unix_listen("s");
  std::vector<pid_t> workers;
  for (int w = 0; w < 3; ++w)
    workers.push_back(in_child([&] {
      set_nonblocking(listener);
      int set = CHECK_OK(epoll_create1(0));
      epoll_event e{EPOLLIN | EPOLLEXCLUSIVE, {}}, got;
      CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &e));
      turns.give(0);
      for (;;) {
        CHECK_EQ(epoll_wait(set, &got, 1, -1), 1);
        int fd = accept(listener, nullptr, nullptr);
        if (fd < 0) continue;
        write_all(fd, read_exactly(fd, 4));
        close(fd);
      }
    }));
  for (int w = 0; w < 3; ++w) turns.await(0);
  close(listener);
  for (int i = 0; i < 60; ++i) {
    int fd = unix_connect("s");
    write_all(fd, "echo");
    CHECK_EQ(read_to_end(fd), "echo");
    close(fd);
  }
  for (pid_t w : workers) kill(w, SIGKILL);
  for (pid_t w : workers) CHECK_EQ(wait_exit(w), 128 + SIGKILL);
}

TEST("a connection that waits for a busy worker goes to an idle one") {
  std::string name = abstract_name();
  Turns turns;
  int listener = unix_listen(name);
  pid_t busy = in_child([&] {
    int fd = accept_one(listener);
    write_all(fd, "first");
    turns.await(0);
  });
  int first = unix_connect(name);
  CHECK_EQ(read_exactly(first, 5), "first");
  pid_t idle = in_child([&] {
    int fd = accept_one(listener);
    write_all(fd, "second");
  });
  close(listener);
  int second = unix_connect(name);
  CHECK_EQ(read_exactly(second, 6), "second");
  turns.give(0);
  CHECK_EQ(wait_exit(busy), 0);
  CHECK_EQ(wait_exit(idle), 0);
}

// ---- programs without the shim --------------------------------------------------------------

PROGRAM(unix_echo_client) {
  int fd = unix_connect(args[0]);
  write_all(fd, "ping");
  return read_exactly(fd, 4) == "pong" ? 0 : 1;
}

PROGRAM(unix_echo_server) {
  int listener = unix_listen(args[0]);
  write_all(STDOUT_FILENO, "ready");
  int fd = accept_one(listener);
  if (read_exactly(fd, 4) != "ping") return 1;
  write_all(fd, "pong");
  return 0;
}

namespace {

// With LD_PRELOAD only if `preloaded`.
pid_t spawn(const char* name, const std::string& path, bool preloaded, int out = -1) {
  if (preloaded && out < 0) return spawn_program(name, {path});
  return in_child([&] {
    if (!preloaded) unsetenv("LD_PRELOAD");
    if (out >= 0) dup2(out, STDOUT_FILENO);
    _exit(wait_exit(spawn_program(name, {path})));
  });
}

}  // namespace

TEST("clients with and without the shim connect to one listener") {
  Directory d;
  int listener = unix_listen("s");
  for (bool preloaded : {false, true, false}) {
    pid_t client = spawn("unix_echo_client", "s", preloaded);
    int fd = accept_one(listener);
    CHECK_EQ(read_exactly(fd, 4), "ping");
    write_all(fd, "pong");
    CHECK_EQ(wait_exit(client), 0);
    close(fd);
  }
}

TEST("servers with and without the shim are connected to") {
  Directory d;
  for (bool preloaded : {false, true}) {
    int out[2];
    CHECK_OK(pipe(out));
    pid_t server = spawn("unix_echo_server", preloaded ? "p" : "n", preloaded, out[1]);
    CHECK_EQ(read_exactly(out[0], 5), "ready");
    int fd = unix_connect(preloaded ? "p" : "n");
    write_all(fd, "ping");
    CHECK_EQ(read_exactly(fd, 4), "pong");
    CHECK_EQ(wait_exit(server), 0);
  }
}

PROGRAM(unix_inherited_server) {
  int fd = accept_one(atoi(args[0].c_str()));
  if (read_exactly(fd, 4) != "ping") return 1;
  write_all(fd, "pong");
  return 0;
}

TEST("a listener is passed on by exec") {
  Directory d;
  int listener = unix_listen("s");
  pid_t server = spawn_program("unix_inherited_server", {std::to_string(listener)}, {listener});
  close(listener);
  int fd = unix_connect("s");
  write_all(fd, "ping");
  CHECK_EQ(read_exactly(fd, 4), "pong");
  CHECK_EQ(wait_exit(server), 0);
}
