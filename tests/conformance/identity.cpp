// Processes that become somebody else, or somewhere else, after they have begun to use the network.
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

void check_pair(Pair pair) {
  write_all(pair.client, "ping");
  CHECK_EQ(read_exactly(pair.server, 4), "ping");
  write_all(pair.server, "pong");
  CHECK_EQ(read_exactly(pair.client, 4), "pong");
}

// A namespace whose only interface is lo. False: this user may not.
bool enter_new_network() {
  if (unshare(CLONE_NEWNET) != 0) return false;
  int fd = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
  ifreq request{};
  std::string("lo").copy(request.ifr_name, 2);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  CHECK_OK(ioctl(fd, SIOCSIFFLAGS, &request));
  close(fd);
  return true;
}

long resident_kib() {
  FILE* f = fopen("/proc/self/statm", "r");
  long size, resident;
  CHECK_EQ(fscanf(f, "%ld %ld", &size, &resident), 2);
  fclose(f);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

void in_process(const std::function<void()>& body) { CHECK_EQ(wait_exit(in_child(body)), 0); }

int try_connect(uint16_t port) {
  int fd = make_socket();
  int r = connect(fd, loopback(AF_INET, port).get(), sizeof(sockaddr_in));
  int error = r == 0 ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace

TEST("a listener of another network namespace is out of reach") {
  check_pair(make_pair());
  Listener listener = make_listener();
  in_process([&] {
    if (!enter_new_network()) return;
    CHECK_EQ(try_connect(listener.port), ECONNREFUSED);
  });
}

TEST("the same port in two network namespaces is two listeners") {
  Listener outside = make_listener();
  check_pair(make_pair(outside));
  in_process([&] {
    if (!enter_new_network()) return;
    int inside = make_socket();
    CHECK_OK(bind(inside, loopback(AF_INET, outside.port).get(), sizeof(sockaddr_in)));
    CHECK_OK(listen(inside, 10));
    check_pair(make_pair(Listener{inside, outside.port}));
    set_nonblocking(outside.fd);
    CHECK_ERRNO(accept(outside.fd, nullptr, nullptr), EAGAIN);
  });
}

TEST("a socket made before unshare belongs to the namespace it was made in") {
  check_pair(make_pair());
  Listener listener = make_listener();
  in_process([&] {
    int before = make_socket(), bound = make_socket();
    Pair established = make_pair(listener);
    if (!enter_new_network()) return;
    check_pair(established);
    CHECK_OK(bind(bound, loopback(AF_INET).get(), sizeof(sockaddr_in)));
    for (int fd : {before, bound}) {
      CHECK_OK(connect(fd, loopback(AF_INET, listener.port).get(), sizeof(sockaddr_in)));
      check_pair({fd, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
    }
  });
}

TEST("a thread that returns to its namespace finds its listeners again") {
  check_pair(make_pair());
  Listener listener = make_listener();
  in_process([&] {
    int home = CHECK_OK(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!enter_new_network()) return;
    CHECK_EQ(try_connect(listener.port), ECONNREFUSED);
    CHECK_OK(setns(home, CLONE_NEWNET));
    check_pair(make_pair(listener));
    CHECK_OK(setns(home, 0));
    check_pair(make_pair(listener));
  });
}

TEST("a process in a new namespace before its first socket") {
  Listener listener = make_listener();
  in_process([&] {
    if (!enter_new_network()) return;
    CHECK_EQ(try_connect(listener.port), ECONNREFUSED);
    check_pair(make_pair());
    in_process([&] { CHECK_EQ(try_connect(listener.port), ECONNREFUSED); });
  });
}

TEST("connections outlive setuid, and new ones work") {
  check_pair(make_pair());
  Listener listener = make_listener();
  in_process([&] {
    Pair established = make_pair(listener);
    if (geteuid() == 0) {
      CHECK_OK(setgid(65534));
      CHECK_OK(setuid(65534));
    }
    check_pair(established);
    check_pair(make_pair(listener));
    check_pair(make_pair());
    in_process([&] { check_pair(make_pair()); });
  });
}

TEST("a process that changes its user before its first socket") {
  Listener listener = make_listener();
  in_process([&] {
    if (geteuid() == 0) CHECK_OK(setuid(65534));
    check_pair(make_pair());
    check_pair(make_pair(listener));
  });
}

TEST("connections outlive chroot, and new ones work") {
  check_pair(make_pair());
  Listener listener = make_listener();
  char directory[] = "/tmp/conformance.XXXXXX";
  CHECK_TRUE(mkdtemp(directory) != nullptr);
  pid_t child = in_child([&] {
    Pair established = make_pair(listener);
    if (chroot(directory) == 0) CHECK_OK(chdir("/"));
    check_pair(established);
    check_pair(make_pair(listener));
    check_pair(make_pair());
    in_process([&] { check_pair(make_pair()); });
  });
  int status = wait_exit(child);
  rmdir(directory);
  CHECK_EQ(status, 0);
}

TEST("a huge RLIMIT_NOFILE costs no memory") {
  rlimit limit;
  CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
  long before = resident_kib();
  for (rlim_t most : {rlim_t{1} << 30, rlim_t{1} << 20, limit.rlim_max}) {
    rlimit wanted{most, most > limit.rlim_max ? most : limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) break;
  }
  check_pair(make_pair());
  CHECK_TRUE(resident_kib() - before < 16 * 1024);
}

TEST_EVERYWHERE("/proc/self/fd and fstat show a connection as a socket") {
  auto [fd, peer] = connect_peer(where);
  char target[64] = {};
  CHECK_OK(readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target - 1));
  CHECK_EQ(std::string(target).substr(0, 8), "socket:[");
  struct stat st, again;
  CHECK_OK(fstat(fd, &st));
  CHECK_TRUE(S_ISSOCK(st.st_mode));
  CHECK_OK(fstat(CHECK_OK(dup(fd)), &again));
  CHECK_EQ(st.st_ino, again.st_ino);
  CHECK_OK(readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target - 1));
  CHECK_EQ(std::string(target), "socket:[" + std::to_string(st.st_ino) + "]");
}

// ---- connect with AF_UNSPEC ---------------------------------------------------------------

TEST("AF_UNSPEC on a socket without connection changes nothing") {
  Listener listener = make_listener();
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  int fd = make_socket();
  CHECK_OK(connect(fd, &nothing, sizeof nothing));
  CHECK_OK(connect(fd, loopback(AF_INET, listener.port).get(), sizeof(sockaddr_in)));
  check_pair({fd, CHECK_OK(accept(listener.fd, nullptr, nullptr))});
}

TEST("AF_UNSPEC ends a listener") {
  Listener listener = make_listener();
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  CHECK_OK(connect(listener.fd, &nothing, sizeof nothing));
  CHECK_EQ(option(listener.fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
  CHECK_EQ(try_connect(listener.port), ECONNREFUSED);
}

TEST("AF_UNSPEC wakes who reads, keeps duplicates, options and epoll registrations") {
  Listener listener = make_listener();
  Pair pair = make_pair(listener);
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  set_option(pair.client, SOL_SOCKET, SO_KEEPALIVE, 1);
  int copy = CHECK_OK(dup(pair.client));
  EpollSet set;
  set.add(copy, EPOLLIN);
  Worker reader([&] {
    char byte;
    CHECK_EQ(recv(pair.client, &byte, 1, 0), -1);  // ECONNRESET, or EPIPE in some kernels
  });
  reader.await_sleep();
  CHECK_OK(connect(pair.client, &nothing, sizeof nothing));
  reader.join();
  (void)socket_error(pair.client);
  CHECK_EQ(option(copy, SOL_SOCKET, SO_KEEPALIVE), 1);
  CHECK_OK(connect(copy, loopback(AF_INET, listener.port).get(), sizeof(sockaddr_in)));
  int server = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  check_pair({pair.client, server});
  write_all(server, "event");
  CHECK_EQ(set.wait_one(copy), EPOLLIN);
}
