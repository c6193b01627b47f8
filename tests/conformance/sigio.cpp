// Signals that sockets send: F_SETOWN, F_SETSIG, O_ASYNC, SIGURG.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

std::atomic<int> last_code, last_fd, last_band, last_number;

void note_information(int number, siginfo_t* info, void*) {
  last_code = info->si_code;
  last_fd = info->si_fd;
  last_band = int(info->si_band);
  last_number = number;
}

void catch_information(int number) {
  struct sigaction action {};
  action.sa_sigaction = note_information;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  CHECK_OK(sigaction(number, &action, nullptr));
}

void set_async(int fd, bool on = true) {
  int flags = CHECK_OK(fcntl(fd, F_GETFL));
  CHECK_OK(fcntl(fd, F_SETFL, on ? flags | O_ASYNC : flags & ~O_ASYNC));
}

}  // namespace

TEST_EVERYWHERE("F_SETSIG tells which descriptor has what") {
  auto [fd, peer] = connect_peer(where);
  catch_information(SIGRTMIN + 3);
  CHECK_OK(fcntl(fd, F_SETOWN, getpid()));
  CHECK_OK(fcntl(fd, F_SETSIG, SIGRTMIN + 3));
  CHECK_EQ(fcntl(fd, F_GETSIG), SIGRTMIN + 3);
  set_async(fd);
  for (int i = 0; i < 20; i++) {
    last_number = 0;
    peer.send("x");
    eventually([] { return last_number != 0; });
    CHECK_EQ(last_fd, fd);
    CHECK_EQ(last_code, POLL_IN);
    CHECK_TRUE((last_band & POLLIN) != 0);
    CHECK_EQ(read_once(fd), "x");
  }
}

TEST_EVERYWHERE("the end of a connection raises SIGIO") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGIO, count_signal);
  CHECK_OK(fcntl(fd, F_SETOWN, getpid()));
  set_async(fd);
  peer.close();
  eventually([] { return signals_seen > 0; });
}

TEST_EVERYWHERE("a thread that computes is told") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGIO, count_signal);
  CHECK_OK(fcntl(fd, F_SETOWN, getpid()));
  set_async(fd);
  peer.send("x");
  while (signals_seen == 0) {
  }
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("without O_ASYNC there is no SIGIO any more") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGIO, count_signal);
  CHECK_OK(fcntl(fd, F_SETOWN, getpid()));
  set_async(fd);
  peer.send("x");
  eventually([] { return signals_seen > 0; });
  set_async(fd, false);
  CHECK_EQ(fcntl(fd, F_GETFL) & O_ASYNC, 0);
  CHECK_EQ(read_once(fd), "x");
  pause_ms(20);
  int before = signals_seen;
  peer.send("y");
  await(fd, POLLIN);
  pause_ms(20);
  CHECK_EQ(signals_seen, before);
}

TEST_EVERYWHERE("the signal goes to the process that F_SETOWN names") {
  auto [fd, peer] = connect_peer(where);
  int ends[2];
  CHECK_OK(pipe(ends));
  sigset_t io;
  sigemptyset(&io);
  sigaddset(&io, SIGIO);
  sigprocmask(SIG_BLOCK, &io, nullptr);
  pid_t child = in_child([&] {
    int number;
    CHECK_EQ(write(ends[1], "r", 1), 1);
    CHECK_EQ(sigwait(&io, &number), 0);
    CHECK_EQ(number, SIGIO);
  });
  char byte;
  CHECK_EQ(read(ends[0], &byte, 1), 1);
  CHECK_OK(fcntl(fd, F_SETOWN, child));
  set_async(fd);
  peer.send("x");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("an urgent byte raises SIGURG for the owner") {
  auto [client, server] = make_pair();
  on_signal(SIGURG, count_signal);
  CHECK_OK(fcntl(server, F_SETOWN, getpid()));
  CHECK_OK(send(client, "u", 1, MSG_OOB));
  eventually([] { return signals_seen > 0; });
}

TEST("SIGURG comes once for each urgent byte, also if that is read inline") {
  auto [client, server] = make_pair();
  on_signal(SIGURG, count_signal, SA_RESTART);
  int on = 1;
  CHECK_OK(setsockopt(server, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
  CHECK_OK(fcntl(server, F_SETOWN, getpid()));
  CHECK_OK(send(client, "u", 1, MSG_OOB));
  eventually([] { return signals_seen == 1; });
  for (int i = 0; i < 5; ++i) {
    write_all(client, "more");
    pause_ms(2);
  }
  CHECK_OK(send(client, "u", 1, MSG_OOB));
  eventually([] { return signals_seen >= 2; });
  pause_ms(10);
  CHECK_EQ(int(signals_seen), 2);
}

TEST("O_ASYNC before connect and on a listener") {
  on_signal(SIGIO, count_signal, SA_RESTART);
  Listener listener = make_listener();
  CHECK_OK(fcntl(listener.fd, F_SETOWN, getpid()));
  set_async(listener.fd);
  int client = make_socket();
  CHECK_OK(fcntl(client, F_SETOWN, getpid()));
  int on = 1;
  CHECK_OK(ioctl(client, FIOASYNC, &on));
  CHECK_OK(connect(client, loopback(AF_INET, listener.port).get(), sizeof(sockaddr_in)));
  eventually([] { return signals_seen > 0; });
  int server;
  while ((server = accept(listener.fd, nullptr, nullptr)) < 0) CHECK_EQ(errno, EINTR);
  int before = signals_seen;
  write_all(server, "x");
  eventually([before] { return signals_seen > before; });
  CHECK_EQ(read_once(client), "x");
}
