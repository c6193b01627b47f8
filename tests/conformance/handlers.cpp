// Signal handlers that use connections, whatever the thread was doing when they came.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

std::atomic<int> shared_fd;
std::atomic<uint64_t> written, nested;

// A byte for each signal, as long as there is space.
void write_byte(int) {
  int error = errno;
  if (write(shared_fd, "s", 1) == 1) written++;
  errno = error;
}

void every_us(int us) {
  itimerval interval{{0, us}, {0, us}};
  CHECK_OK(setitimer(ITIMER_REAL, &interval, nullptr));
}

void stop_timer() {
  itimerval none{};
  CHECK_OK(setitimer(ITIMER_REAL, &none, nullptr));
}

// Connects, accepts, talks, waits and closes.
void be_busy(Listener listener) {
  int client = make_socket();
  while (connect(client, loopback(AF_INET, listener.port).get(), sizeof(sockaddr_in)) != 0) CHECK_EQ(errno, EINTR);
  int server;
  while ((server = accept(listener.fd, nullptr, nullptr)) < 0) CHECK_EQ(errno, EINTR);
  EpollSet set;
  set.add(server, EPOLLIN);
  write_all(client, "x");
  epoll_event event;
  while (epoll_wait(set.fd, &event, 1, -1) < 0) CHECK_EQ(errno, EINTR);
  char byte;
  CHECK_EQ(read(server, &byte, 1), 1);
  int copy = CHECK_OK(dup(server));
  CHECK_OK(epoll_ctl(set.fd, EPOLL_CTL_DEL, server, nullptr));
  close(server);
  close(client);
  CHECK_EQ(read(copy, &byte, 1), 0);
  close(copy);
  close(set.fd);
}

void check_handler_writes(Where where, bool with_threads) {
  auto [fd, peer] = connect_peer(where);
  shared_fd = fd;
  set_nonblocking(fd);
  Listener listener = make_listener();
  peer.start_receiving(UINT64_MAX / 2, 65536);  // until the end
  std::unique_ptr<Worker> second;
  std::atomic<bool> stop{false};
  on_signal(SIGALRM, write_byte, SA_RESTART);
  if (with_threads)
    second = std::make_unique<Worker>([&] {
      while (!stop) be_busy(listener);
    });
  every_us(100);
  for (uint64_t end = now_ms() + 1200; now_ms() < end;) be_busy(listener);
  stop = true;
  if (second) second->join();
  stop_timer();
  CHECK_TRUE(written > 100);
}

}  // namespace

TEST_EVERYWHERE("a handler every 100 us writes while connections come and go") { check_handler_writes(where, false); }

TEST_EVERYWHERE("the same with a second thread") { check_handler_writes(where, true); }

TEST_EVERYWHERE("a handler reads and writes the connection that its thread is writing to") {
  auto [fd, peer] = connect_peer(where);
  shared_fd = fd;
  on_signal(SIGALRM, [](int) {
    char byte;
    (void)!recv(shared_fd, &byte, 1, MSG_DONTWAIT);
    pollfd p{shared_fd, POLLOUT, 0};
    poll(&p, 1, 0);
    nested++;
  }, SA_RESTART);
  constexpr uint64_t kTotal = 400 << 20;
  peer.start_receiving(kTotal, 65536);
  every_us(100);
  CHECK_EQ(send_pattern(fd, kTotal, 8192), 0);
  stop_timer();
  CHECK_EQ(peer.finish(), 0);
  CHECK_TRUE(nested > 10);
}

TEST_EVERYWHERE("a handler gets the sender, the value and the mask that belong to its signal") {
  auto [fd, peer] = connect_peer(where);
  static std::atomic<int> good, bad;
  struct sigaction action {};
  action.sa_sigaction = [](int number, siginfo_t* info, void*) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, nullptr, &now);
    bool right = number == SIGUSR1 && info->si_code == SI_QUEUE && info->si_pid == getpid() && info->si_value.sival_int == 42 &&
                 sigismember(&now, SIGUSR2) == 1 && sigismember(&now, SIGUSR1) == 1;
    (right ? good : bad)++;
  };
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaddset(&action.sa_mask, SIGUSR2);
  CHECK_OK(sigaction(SIGUSR1, &action, nullptr));
  pthread_t self = pthread_self();
  std::atomic<bool> stop{false};
  Worker sender([&] {
    while (!stop) {
      sigval value{};
      value.sival_int = 42;
      pthread_sigqueue(self, SIGUSR1, value);
      usleep(50);
    }
  });
  Listener listener = make_listener();
  for (uint64_t end = now_ms() + 500; now_ms() < end;) be_busy(listener);
  stop = true;
  sender.join();
  CHECK_EQ(bad, 0);
  CHECK_TRUE(good > 10);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK_EQ(sigismember(&now, SIGUSR1), 0);
  peer.send("x");
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("SA_RESETHAND and SA_NODEFER hold") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  CHECK_EQ(read_once(fd), "x");  // so that the shim is at work
  on_signal(SIGUSR1, count_signal, int(SA_RESETHAND));
  raise(SIGUSR1);
  CHECK_EQ(signals_seen, 1);
  struct sigaction now;
  CHECK_OK(sigaction(SIGUSR1, nullptr, &now));
  CHECK_TRUE(now.sa_handler == SIG_DFL);
  static int depth;
  on_signal(SIGUSR2, [](int) {
    if (++depth < 3) raise(SIGUSR2);
  }, SA_NODEFER);
  raise(SIGUSR2);
  CHECK_EQ(depth, 3);
}

TEST_EVERYWHERE("a child that is forked while signals come has them unblocked") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGALRM, count_signal, SA_RESTART);
  every_us(100);
  for (int i = 0; i < 100; i++) {
    pid_t child = in_child([] {
      sigset_t now;
      sigprocmask(SIG_BLOCK, nullptr, &now);
      CHECK_EQ(sigismember(&now, SIGALRM), 0);
      raise(SIGALRM);
    });
    CHECK_EQ(wait_exit(child), 0);
  }
  stop_timer();
  peer.send("x");
  CHECK_EQ(read_once(fd), "x");
}
