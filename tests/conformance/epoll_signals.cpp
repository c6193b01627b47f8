// epoll waits and signals. Part of epoll.
#include <signal.h>
#include <unistd.h>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

void check_interrupted(int flags) {
  on_signal(SIGUSR1, count_signal, flags);
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, EPOLLIN);
  Worker waiter([&] {
    epoll_event event;
    CHECK_ERRNO(epoll_wait(set.fd, &event, 1, -1), EINTR);
  });
  waiter.await_sleep();
  waiter.signal_until_done(SIGUSR1);
  CHECK_TRUE(signals_seen > 0);
}

sigset_t only(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

}  // namespace

TEST("a signal interrupts a wait") { check_interrupted(0); }

TEST("a signal interrupts a wait even with SA_RESTART") { check_interrupted(SA_RESTART); }

TEST("epoll_pwait lets a blocked signal in for the wait only") {
  on_signal(SIGUSR1, count_signal);
  sigset_t blocked = only(SIGUSR1), none;
  sigemptyset(&none);
  CHECK_OK(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, EPOLLIN);
  raise(SIGUSR1);
  epoll_event event;
  CHECK_ERRNO(epoll_pwait(set.fd, &event, 1, -1, &none), EINTR);
  CHECK_EQ(signals_seen, 1);
  raise(SIGUSR1);
  CHECK_EQ(signals_seen, 1);
  write_all(client, "x");
  eventually([&, server = server] { return unread(server) == 1; });
  CHECK_EQ(epoll_pwait(set.fd, &event, 1, -1, nullptr), 1);
  CHECK_EQ(signals_seen, 1);
}

TEST("epoll_pwait reports what is ready rather than a pending signal") {
  on_signal(SIGUSR1, count_signal);
  sigset_t blocked = only(SIGUSR1), none;
  sigemptyset(&none);
  CHECK_OK(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, EPOLLIN);
  write_all(client, "x");
  set.wait_one(server);
  raise(SIGUSR1);
  epoll_event event;
  CHECK_EQ(epoll_pwait(set.fd, &event, 1, -1, &none), 1);
  CHECK_EQ(signals_seen, 0);  // still pending: the mask was open only while it would have slept
}

TEST("epoll_pwait keeps a signal out") {
  on_signal(SIGUSR1, count_signal);
  sigset_t blocked = only(SIGUSR1);
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, EPOLLIN);
  Worker waiter([&] {
    epoll_event event;
    CHECK_EQ(epoll_pwait(set.fd, &event, 1, -1, &blocked), 1);
    eventually([] { return signals_seen == 1; });
  });
  waiter.await_sleep();
  waiter.signal(SIGUSR1);
  pause_ms(20);
  CHECK_EQ(signals_seen, 0);
  write_all(client, "x");
}

TEST("a handler's write to a connection in the set ends the wait") {
  static int self_pipe;
  auto [client, server] = make_pair();
  self_pipe = client;
  on_signal(SIGALRM, [](int) { (void)!write(self_pipe, "!", 1); });
  EpollSet set;
  set.add(server, EPOLLIN);
  ualarm(5'000, 0);
  epoll_event event;
  int count;
  while ((count = epoll_wait(set.fd, &event, 1, -1)) < 0) CHECK_EQ(errno, EINTR);
  CHECK_EQ(count, 1);
  CHECK_EQ(read_once(server), "!");
}
