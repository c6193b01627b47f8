// poll, ppoll, select and pselect over connections and kernel descriptors.
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

constexpr short kAll = POLLIN | POLLOUT | POLLRDHUP | POLLPRI;

// The three sets of select() over one descriptor, as a string like "r-x".
std::string selected(int fd, const char* wanted, timeval* timeout) {
  fd_set sets[3];
  for (int i = 0; i < 3; i++) {
    FD_ZERO(&sets[i]);
    if (wanted[i] != '-') FD_SET(fd, &sets[i]);
  }
  int count = CHECK_OK(select(fd + 1, &sets[0], &sets[1], &sets[2], timeout));
  std::string got = "---";
  for (int i = 0; i < 3; i++)
    if (FD_ISSET(fd, &sets[i])) got[i] = "rwx"[i], count--;
  CHECK_EQ(count, 0);
  return got;
}

std::string selected_now(int fd, const char* wanted = "rwx") {
  timeval now{0, 0};
  return selected(fd, wanted, &now);
}

sigset_t only(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

}  // namespace

TEST_EVERYWHERE("poll: writable, then readable, then ended") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(ready(fd, kAll), POLLOUT);
  CHECK_EQ(ready(fd, POLLIN), 0);
  peer.send("x");
  CHECK_EQ(await(fd, POLLIN), POLLIN);
  CHECK_EQ(ready(fd, kAll), POLLIN | POLLOUT);
  CHECK_EQ(read_once(fd), "x");
  CHECK_EQ(ready(fd, kAll), POLLOUT);
  peer.shutdown(SHUT_WR);
  CHECK_EQ(await(fd, POLLIN), POLLIN);
  CHECK_EQ(ready(fd, kAll), POLLIN | POLLOUT | POLLRDHUP);
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(ready(fd, 0), POLLHUP);
  CHECK_EQ(ready(fd, kAll), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST_EVERYWHERE("poll: normal bytes are RDNORM and WRNORM as well") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  CHECK_EQ(await(fd, POLLRDNORM), POLLRDNORM);
  CHECK_EQ(ready(fd, POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND), POLLRDNORM | POLLWRNORM);
}

TEST_EVERYWHERE("poll: a blocked poll wakes when bytes arrive") {
  auto [fd, peer] = connect_peer(where);
  Worker waiter([fd = fd] { CHECK_EQ(await(fd, POLLIN), POLLIN); });
  waiter.await_sleep();
  peer.send("x");
}

TEST_EVERYWHERE("poll: a blocked poll wakes when space returns") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  CHECK_EQ(ready(fd, POLLOUT), 0);
  Worker waiter([fd = fd] { CHECK_EQ(await(fd, POLLOUT), POLLOUT); });
  waiter.await_sleep();
  peer.start_receiving(sent, 65'536);
  waiter.join();
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("poll: POLLRDHUP alone wakes at the peer's half-close") {
  auto [fd, peer] = connect_peer(where);
  Worker waiter([fd = fd] { CHECK_EQ(await(fd, POLLRDHUP), POLLRDHUP); });
  waiter.await_sleep();
  peer.send("not that");
  peer.shutdown(SHUT_WR);
}

TEST_EVERYWHERE("poll: a reset shows even when nothing is asked for") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  CHECK_EQ(await(fd, 0), POLLERR | POLLHUP);
  CHECK_EQ(ready(fd, kAll), POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
}

TEST("poll: a listener is readable while a connection waits, never writable") {
  Listener listener = make_listener();
  CHECK_EQ(ready(listener.fd, kAll), 0);
  Worker waiter([&] { CHECK_EQ(await(listener.fd, kAll), POLLIN); });
  waiter.await_sleep();
  connect_to(listener.port);
  waiter.join();
  CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(ready(listener.fd, kAll), 0);
}

TEST("poll: a blocked poll on a listener wakes when another program connects") {
  Listener listener = make_listener();
  Worker waiter([&] { CHECK_EQ(await(listener.fd, POLLIN), POLLIN); });
  waiter.await_sleep();
  spawn_client(listener.port);
}

TEST("poll: an unconnected socket is hung up and writable") {
  int fd = make_socket();
  CHECK_EQ(ready(fd, kAll), POLLOUT | POLLHUP);
  CHECK_EQ(ready(fd, 0), POLLHUP);
}

TEST("poll: closed descriptors are invalid, negative ones ignored") {
  auto [client, server] = make_pair();
  write_all(client, "x");
  await(server, POLLIN);
  int closed = CHECK_OK(dup(server));
  CHECK_OK(close(closed));
  pollfd entries[] = {{closed, POLLIN, 0}, {-1, POLLIN, 77}, {server, POLLIN, 0}, {~server, 1, 7}};
  CHECK_EQ(poll(entries, 4, -1), 2);
  CHECK_EQ(entries[0].revents, POLLNVAL);
  CHECK_EQ(entries[1].revents, 0);
  CHECK_EQ(entries[2].revents, POLLIN);
  CHECK_EQ(entries[3].revents, 0);
}

TEST("poll: one descriptor in several entries is counted in each") {
  auto [client, server] = make_pair();
  write_all(client, "x");
  await(server, POLLIN);
  pollfd entries[] = {{server, POLLIN, 0}, {server, POLLOUT, 0}, {server, POLLPRI, 9}};
  CHECK_EQ(poll(entries, 3, 0), 2);
  CHECK_EQ(entries[0].revents, POLLIN);
  CHECK_EQ(entries[1].revents, POLLOUT);
  CHECK_EQ(entries[2].revents, 0);
}

TEST_EVERYWHERE("poll: kernel descriptors and connections wake one wait") {
  auto [fd, peer] = connect_peer(where);
  int event = CHECK_OK(eventfd(0, 0)), ends[2];
  CHECK_OK(pipe(ends));
  pollfd entries[] = {{event, POLLIN, 0}, {fd, POLLIN, 0}, {ends[0], POLLIN, 0}};
  CHECK_EQ(poll(entries, 3, 0), 0);
  auto wakes = [&](int index, auto trigger) {
    Worker waiter([&] { CHECK_EQ(poll(entries, 3, -1), 1); });
    waiter.await_sleep();
    trigger();
    waiter.join();
    CHECK_EQ(entries[index].revents, POLLIN);
    char buffer[8];
    CHECK_OK(read(entries[index].fd, buffer, 8));
  };
  wakes(0, [&] { CHECK_OK(eventfd_write(event, 1)); });
  wakes(1, [&, peer = peer]() mutable { peer.send("x"); });
  wakes(2, [&] { write_all(ends[1], "x"); });
}

TEST("poll: time-outs pass in full") {
  auto [client, server] = make_pair();
  pollfd entry{server, POLLIN, 0};
  CHECK_EQ(poll(&entry, 1, 0), 0);
  uint64_t start = now_ms();
  CHECK_EQ(poll(&entry, 1, 50), 0);
  CHECK_TRUE(now_ms() - start >= 50);
  timespec brief{0, 50'000'000};
  start = now_ms();
  CHECK_EQ(ppoll(&entry, 1, &brief, nullptr), 0);
  CHECK_TRUE(now_ms() - start >= 49);
  CHECK_EQ(brief.tv_nsec, 50'000'000);
  start = now_ms();
  CHECK_EQ(poll(nullptr, 0, 20), 0);
  CHECK_TRUE(now_ms() - start >= 20);
}

TEST("poll: a signal interrupts, even with SA_RESTART") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  auto [client, server] = make_pair();
  Worker waiter([server = server] {
    pollfd entry{server, POLLIN, 0};
    CHECK_ERRNO(poll(&entry, 1, -1), EINTR);
  });
  waiter.await_sleep();
  waiter.signal_until_done(SIGUSR1);
}

TEST("ppoll and pselect let a blocked signal in for the wait only") {
  on_signal(SIGUSR1, count_signal);
  sigset_t blocked = only(SIGUSR1), none;
  sigemptyset(&none);
  CHECK_OK(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  auto [client, server] = make_pair();
  pollfd entry{server, POLLIN, 0};
  raise(SIGUSR1);
  CHECK_ERRNO(ppoll(&entry, 1, nullptr, &none), EINTR);
  CHECK_EQ(signals_seen, 1);
  raise(SIGUSR1);
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(server, &readable);
  CHECK_ERRNO(pselect(server + 1, &readable, nullptr, nullptr, nullptr, &none), EINTR);
  CHECK_EQ(signals_seen, 2);
  raise(SIGUSR1);
  write_all(client, "x");
  await(server, POLLIN);
  CHECK_EQ(ppoll(&entry, 1, nullptr, nullptr), 1);
  CHECK_EQ(signals_seen, 2);
}

TEST("poll: too many entries for RLIMIT_NOFILE are refused") {
  auto [client, server] = make_pair();
  rlimit limit{64, 64};
  CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
  std::vector<pollfd> entries(65, pollfd{server, POLLOUT, 0});
  CHECK_ERRNO(poll(entries.data(), 65, 0), EINVAL);
  CHECK_EQ(poll(entries.data(), 64, 0), 64);
}

TEST("poll: 300 connections, one of them ready") {
  Listener listener = make_listener();
  std::vector<Pair> pairs;
  std::vector<pollfd> entries;
  for (int i = 0; i < 300; i++) {
    pairs.push_back(make_pair(listener));
    entries.push_back({pairs.back().server, POLLIN, 0});
  }
  for (int i = 0; i < 300; i += 13) {
    write_all(pairs[i].client, "x");
    CHECK_EQ(poll(entries.data(), entries.size(), -1), 1);
    CHECK_EQ(entries[i].revents, POLLIN);
    CHECK_EQ(read_once(pairs[i].server), "x");
  }
}

TEST_EVERYWHERE("select: writable, then readable, then ended") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(selected_now(fd), "-w-");
  peer.send("x");
  CHECK_EQ(selected(fd, "r--", nullptr), "r--");
  CHECK_EQ(selected_now(fd), "rw-");
  CHECK_EQ(read_once(fd), "x");
  CHECK_EQ(selected_now(fd, "r-x"), "---");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(selected(fd, "r--", nullptr), "r--");
  CHECK_OK(shutdown(fd, SHUT_WR));
  CHECK_EQ(selected_now(fd), "rw-");
}

TEST_EVERYWHERE("select: a full socket is not writable until space returns") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  CHECK_EQ(selected_now(fd), "---");
  peer.start_receiving(sent, 65'536);
  CHECK_EQ(selected(fd, "-w-", nullptr), "-w-");
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("select: a reset is readable and writable, not exceptional") {
  auto [fd, peer] = connect_peer(where);
  peer.reset();
  await(fd, POLLERR);
  CHECK_EQ(selected_now(fd), "rw-");
}

TEST_EVERYWHERE("select: a blocked select wakes when bytes arrive") {
  auto [fd, peer] = connect_peer(where);
  Worker waiter([fd = fd] { CHECK_EQ(selected(fd, "r-x", nullptr), "r--"); });
  waiter.await_sleep();
  peer.send("x");
}

TEST("select: a listener, and an unconnected socket") {
  Listener listener = make_listener();
  CHECK_EQ(selected_now(listener.fd), "---");
  connect_to(listener.port);
  CHECK_EQ(selected(listener.fd, "rwx", nullptr), "r--");
  CHECK_EQ(selected_now(make_socket()), "rw-");
}

TEST("select: urgent bytes are exceptional") {
  auto [client, server] = make_pair();
  CHECK_EQ(send(client, "!", 1, MSG_OOB), 1);
  CHECK_EQ(selected(server, "--x", nullptr), "--x");
}

TEST("select: sets are rewritten, bits at nfds and above are left alone") {
  auto [client, server] = make_pair();
  int low = std::min(client, server), high = std::max(client, server);
  fd_set readable, writable;
  FD_ZERO(&readable);
  FD_ZERO(&writable);
  for (int fd : {low, high}) {
    FD_SET(fd, &readable);
    FD_SET(fd, &writable);
  }
  timeval now{0, 0};
  CHECK_EQ(select(high + 1, &readable, &writable, nullptr, &now), 2);
  CHECK_TRUE(!FD_ISSET(low, &readable) && !FD_ISSET(high, &readable));
  CHECK_TRUE(FD_ISSET(low, &writable) && FD_ISSET(high, &writable));
  FD_SET(900, &writable);
  CHECK_EQ(select(low + 1, nullptr, &writable, nullptr, &now), 1);
  CHECK_TRUE(FD_ISSET(low, &writable) && FD_ISSET(900, &writable));
}

TEST_EVERYWHERE("select: kernel descriptors and connections mix") {
  auto [fd, peer] = connect_peer(where);
  int event = CHECK_OK(eventfd(0, 0));
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(fd, &readable);
  FD_SET(event, &readable);
  peer.send("x");
  await(fd, POLLIN);
  int limit = std::max(fd, event) + 1;
  CHECK_EQ(select(limit, &readable, nullptr, nullptr, nullptr), 1);
  CHECK_TRUE(FD_ISSET(fd, &readable) && !FD_ISSET(event, &readable));
  FD_SET(event, &readable);
  CHECK_OK(eventfd_write(event, 1));
  CHECK_EQ(select(limit, &readable, nullptr, nullptr, nullptr), 2);
}

TEST("select: a closed descriptor gives EBADF, wrong arguments EINVAL") {
  auto [client, server] = make_pair();
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(server, &readable);
  CHECK_OK(close(server));
  timeval now{0, 0}, wrong{-1, 0};
  CHECK_ERRNO(select(server + 1, &readable, nullptr, nullptr, &now), EBADF);
  CHECK_ERRNO(select(-1, nullptr, nullptr, nullptr, &now), EINVAL);
  CHECK_ERRNO(select(0, nullptr, nullptr, nullptr, &wrong), EINVAL);
}

TEST("select: time-outs pass in full, and the time left is told") {
  auto [client, server] = make_pair();
  uint64_t start = now_ms();
  timeval brief{0, 50'000};
  CHECK_EQ(selected(server, "r--", &brief), "---");
  CHECK_TRUE(now_ms() - start >= 50);
  CHECK_EQ(brief.tv_sec * 1'000'000 + brief.tv_usec, 0);
  timeval hour{3600, 0};
  write_all(client, "x");
  CHECK_EQ(selected(server, "r--", &hour), "r--");
  CHECK_TRUE(hour.tv_sec > 0 && hour.tv_sec <= 3600);
  timespec fixed{0, 20'000'000};
  CHECK_EQ(pselect(0, nullptr, nullptr, nullptr, &fixed, nullptr), 0);
  CHECK_EQ(fixed.tv_nsec, 20'000'000);
}

TEST("select: a signal interrupts, even with SA_RESTART") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  auto [client, server] = make_pair();
  Worker waiter([server = server] {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(server, &readable);
    CHECK_ERRNO(select(server + 1, &readable, nullptr, nullptr, nullptr), EINTR);
  });
  waiter.await_sleep();
  waiter.signal_until_done(SIGUSR1);
}
