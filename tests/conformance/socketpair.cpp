// Socket pairs of streams between processes: socketpair(2), unix(7). What happens over fork and exec, and to bytes
// when a process dies, is in socketpair_life.cpp.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "harness.h"
#include "raw_calls.h"
#include "socket_pairs.h"
#include "sockets.h"

using namespace conformance;

// ---- bytes --------------------------------------------------------------------------------

TEST("messages go to and fro between parent and child") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here, 20'000);
  hang_up(p, child);
}

TEST("both directions carry long transfers at once, whatever the sizes") {
  for (auto [wrote, reads] : {std::pair{1 << 16, 1 << 16}, {4096, 1 << 17}, {100'003, 4096}, {1 << 20, 70'001}, {13, 65536}, {65536, 17}}) {
    SocketPair p;
    uint64_t total = std::min(wrote, reads) < 100 ? 1 << 19 : 24 << 20;
    auto both = [=](int fd) {
      Worker writer([=] { CHECK_EQ(send_pattern(fd, total, size_t(wrote)), 0); });
      CHECK_EQ(receive_pattern(fd, total, size_t(reads)), 0);
      writer.join();
    };
    pid_t child = other_end(p, both);
    both(p.here);
    CHECK_EQ(read_once(p.here), "");
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("a slow reader and a slow writer lose nothing") {
  for (bool slow_reader : {true, false}) {
    SocketPair p;
    constexpr uint64_t kTotal = 3 << 20;
    pid_t child = other_end(p, [=](int fd) {
      std::vector<char> piece(8192);
      for (uint64_t at = 0; at < kTotal; at += piece.size()) {
        fill_pattern(piece.data(), piece.size(), at);
        write_all(fd, {piece.data(), piece.size()});
        if (!slow_reader && at % (1 << 16) == 0) pause_ms(1);
      }
    });
    std::vector<char> piece(8192);
    uint64_t at = 0;
    while (ssize_t n = CHECK_OK(read(p.here, piece.data(), piece.size()))) {
      CHECK_TRUE(matches_pattern(piece.data(), size_t(n), at));
      at += uint64_t(n);
      if (slow_reader && at % (1 << 16) < 8192) pause_ms(1);
    }
    CHECK_EQ(at, kTotal);
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("both ends in one process, in one thread and in two") {
  SocketPair p;
  for (int round = 0; round < 2; round++) {
    write_all(p.here, "there");
    CHECK_EQ(read_once(p.there), "there");
    Worker other([&] { echo(p.there); });
    warm_up(p.here, 2000);
    CHECK_OK(shutdown(p.here, SHUT_WR));
    other.join();
    // And the same when another process has both ends, too, and leaves them alone.
    p = SocketPair();
    if (round == 0) CHECK_EQ(wait_exit(in_child([] {})), 0);
  }
}

TEST("all calls that send and receive meet each other") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  char a[] = "ab", b[] = "", c[] = "cdef", got[7] = {};
  iovec parts[] = {{a, 2}, {b, 0}, {c, 4}};
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = 3;
  mmsghdr many[1]{};
  many[0].msg_hdr = m;
  FILE* stream = fdopen(dup(p.here), "r+");
  for (int i = 0; i < 700; i++) {
    switch (i % 7) {
      case 0: CHECK_EQ(write(p.here, "abcdef", 6), 6); break;
      case 1: CHECK_EQ(writev(p.here, parts, 3), 6); break;
      case 2: CHECK_EQ(send(p.here, "abcdef", 6, MSG_NOSIGNAL), 6); break;
      case 3: CHECK_EQ(sendto(p.here, "abcdef", 6, 0, nullptr, 0), 6); break;
      case 4: CHECK_EQ(sendmsg(p.here, &m, 0), 6); break;
      case 5: CHECK_EQ(sendmmsg(p.here, many, 1, 0), 1); break;
      case 6: CHECK_EQ(fputs("abcdef", stream), 1); CHECK_EQ(fflush(stream), 0); break;
    }
    size_t n = 0;
    for (int k = i; n < 6; k++) {
      iovec into[] = {{got + n, 1}, {got + n + 1, 5 - n}};
      msghdr to{};
      to.msg_iov = into;
      to.msg_iovlen = 2;
      char name[32];
      to.msg_name = name;
      to.msg_namelen = sizeof name;
      to.msg_flags = ~0;
      socklen_t length = sizeof name;
      ssize_t k_bytes = 0;
      switch (k % 5) {
        case 0: k_bytes = read(p.here, got + n, 6 - n); break;
        case 1: k_bytes = readv(p.here, into, 2); break;
        case 2: k_bytes = recv(p.here, got + n, 6 - n, 0); break;
        case 3: k_bytes = recvfrom(p.here, got + n, 6 - n, 0, reinterpret_cast<sockaddr*>(name), &length);
          CHECK_EQ(length, 0u);
          break;
        case 4: k_bytes = recvmsg(p.here, &to, 0);
          CHECK_EQ(to.msg_flags, 0);
          CHECK_EQ(to.msg_namelen, 0u);
          break;
      }
      CHECK_TRUE(k_bytes > 0);
      n += size_t(k_bytes);
    }
    CHECK_EQ(std::string(got, 6), "abcdef");
  }
  write_all(p.here, "line\n");
  char line[16];
  CHECK_EQ(std::string(fgets(line, sizeof line, stream)), "line\n");
  fclose(stream);
  hang_up(p, child);
}

TEST("nothing is read or written of no bytes") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  char c;
  CHECK_EQ(write(p.here, nullptr, 0), 0);
  CHECK_EQ(send(p.here, nullptr, 0, 0), 0);
  CHECK_EQ(read(p.here, &c, 0), 0);
  warm_up(p.here);
  hang_up(p, child);
}

TEST("bad pointers are EFAULT, and lose nothing") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  char* volatile nowhere = reinterpret_cast<char*>(16);
  char* bad = nowhere;
  CHECK_ERRNO(write(p.here, bad, 5), EFAULT);
  write_all(p.here, "abc");
  CHECK_EQ(await(p.here, POLLIN), POLLIN);
  CHECK_ERRNO(read(p.here, bad, 3), EFAULT);
  CHECK_EQ(read_exactly(p.here, 3), "abc");
  warm_up(p.here);
  hang_up(p, child);
}

// ---- flags and modes ----------------------------------------------------------------------

TEST("MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT and MSG_TRUNC between blocking calls") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  char got[64];
  for (int i = 0; i < 200; i++) {
    warm_up(p.here, 3);
    CHECK_ERRNO(recv(p.here, got, sizeof got, MSG_DONTWAIT), EAGAIN);
    CHECK_ERRNO(recv(p.here, got, sizeof got, MSG_DONTWAIT | MSG_PEEK), EAGAIN);
    write_all(p.here, "abc");
    CHECK_EQ(recv(p.here, got, 1, MSG_PEEK), 1);
    CHECK_EQ(got[0], 'a');
    write_all(p.here, "defgh");
    CHECK_EQ(recv(p.here, got, 8, MSG_WAITALL), 8);
    CHECK_EQ(std::string(got, 8), "abcdefgh");
    CHECK_EQ(send(p.here, "xy", 2, MSG_DONTWAIT), 2);
    CHECK_EQ(recv(p.here, got, 2, MSG_WAITALL | MSG_TRUNC), 2);
    CHECK_EQ(std::string(got, 2), "xy");
  }
  hang_up(p, child);
}

TEST("MSG_OOB is what the kernel makes of it") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    CHECK_EQ(send(fd, "1234", 4, MSG_OOB), 4);
    write_all(fd, "5");
    CHECK_EQ(read_once(fd), "");
  });
  warm_up(p.here, 100);
  char got[8];
  eventually([&] { return ready(p.here, POLLPRI) == POLLPRI; });
  CHECK_EQ(recv(p.here, got, 1, MSG_OOB), 1);
  CHECK_EQ(got[0], '4');
  CHECK_EQ(read_exactly(p.here, 4), "1235");
  hang_up(p, child);
}

TEST("a non-blocking end gets EAGAIN, and the kernel's room") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  set_nonblocking(p.here);
  char c;
  for (int i = 0; i < 500; i++) {
    CHECK_ERRNO(read(p.here, &c, 1), EAGAIN);
    write_all(p.here, "x");
    CHECK_EQ(await(p.here, POLLIN), POLLIN);
    CHECK_EQ(read(p.here, &c, 1), 1);
  }
  set_nonblocking(p.here, false);
  warm_up(p.here);
  int on = 1;
  CHECK_OK(ioctl(p.here, FIONBIO, &on));
  CHECK_ERRNO(read(p.here, &c, 1), EAGAIN);
  on = 0;
  CHECK_OK(ioctl(p.here, FIONBIO, &on));
  warm_up(p.here);
  hang_up(p, child);
}

TEST("what nobody reads is bounded by SO_SNDBUF") {
  SocketPair p, go;
  set_option(p.here, SOL_SOCKET, SO_SNDBUF, 20'000);
  pid_t child = other_end(p, [&](int fd) {
    echo_some(fd, 400);
    CHECK_EQ(read_exactly(go.there, 1), "!");
    echo(fd);
  });
  warm_up(p.here, 100);
  set_nonblocking(p.here);
  size_t filled = fill(p.here, 1000);
  SocketPair native(SOCK_NONBLOCK);
  set_option(native.here, SOL_SOCKET, SO_SNDBUF, 20'000);
  CHECK_EQ(filled, fill(native.here, 1000));
  int queued = 0;
  CHECK_OK(ioctl(p.here, SIOCOUTQ, &queued));
  CHECK_TRUE(queued >= int(filled));
  CHECK_EQ(ready(p.here, POLLOUT), 0);
  set_nonblocking(p.here, false);
  write_all(go.here, "!");
  CHECK_EQ(receive_pattern(p.here, filled, 777), 0);
  hang_up(p, child);
}

TEST("time-outs of both directions") {
  SocketPair p, done;
  pid_t child = other_end(p, [&](int fd) {
    echo_some(fd, 400);
    CHECK_EQ(read_exactly(done.there, 1), "!");
  });
  warm_up(p.here, 100);
  timeval t{0, 20'000};
  CHECK_OK(setsockopt(p.here, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  CHECK_OK(setsockopt(p.here, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
  char c;
  uint64_t before = now_ms();
  CHECK_ERRNO(read(p.here, &c, 1), EAGAIN);
  CHECK_TRUE(now_ms() - before >= 19);
  std::string much(1 << 20, 'x');
  CHECK_TRUE(write(p.here, much.data(), much.size()) < ssize_t(much.size()));
  CHECK_ERRNO(write(p.here, much.data(), much.size()), EAGAIN);
  write_all(done.here, "!");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("FIONREAD and SO_RCVLOWAT") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  for (int i = 0; i < 100; i++) {
    warm_up(p.here, 3);
    CHECK_EQ(unread(p.here), 0);
    write_all(p.here, "abc");
    eventually([&] { return unread(p.here) == 3; });
    CHECK_EQ(read_once(p.here), "abc");
  }
  set_option(p.here, SOL_SOCKET, SO_RCVLOWAT, 5);
  for (int i = 0; i < 100; i++) {
    for (const char* piece : {"ab", "cd", "e"}) write_all(p.here, piece);
    CHECK_EQ(read_once(p.here), "abcde");
  }
  hang_up(p, child);
}

TEST("it is a socket without a name") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  struct stat st;
  CHECK_OK(fstat(p.here, &st));
  CHECK_TRUE(S_ISSOCK(st.st_mode));
  CHECK_EQ(option(p.here, SOL_SOCKET, SO_TYPE), int{SOCK_STREAM});
  CHECK_EQ(option(p.here, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
  sockaddr_un name;
  socklen_t length = sizeof name;
  CHECK_OK(getpeername(p.here, reinterpret_cast<sockaddr*>(&name), &length));
  CHECK_EQ(length, sizeof name.sun_family);
  ucred who;
  length = sizeof who;
  CHECK_OK(getsockopt(p.here, SOL_SOCKET, SO_PEERCRED, &who, &length));
  CHECK_EQ(who.pid, getpid());
  CHECK_ERRNO(listen(p.here, 1), EINVAL);
  CHECK_ERRNO(lseek(p.here, 0, SEEK_CUR), ESPIPE);
  hang_up(p, child);
}

// ---- readiness ----------------------------------------------------------------------------

TEST("poll, select and epoll see bytes after blocking reads, and the end") {
  for (int how = 0; how < 4; how++) {
    SocketPair p;
    pid_t child = other_end(p, echo);
    int set = CHECK_OK(epoll_create1(0));
    epoll_event e{EPOLLIN | (how == 3 ? EPOLLET : 0u), {}};
    if (how >= 2) CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, p.here, &e));
    for (int i = 0; i < 300; i++) {
      warm_up(p.here, 2);
      if (how == 3) (void)epoll_wait(set, &e, 1, 0);
      CHECK_EQ(ready(p.here, POLLIN | POLLOUT), POLLOUT);
      write_all(p.here, "x");
      if (how == 0) CHECK_EQ(await(p.here, POLLIN), POLLIN);
      if (how == 1) {
        fd_set in;
        FD_ZERO(&in);
        FD_SET(p.here, &in);
        CHECK_EQ(select(p.here + 1, &in, nullptr, nullptr, nullptr), 1);
      }
      if (how >= 2) CHECK_EQ(epoll_wait(set, &e, 1, -1), 1);
      CHECK_EQ(read_once(p.here), "x");
    }
    CHECK_OK(kill(child, SIGKILL));
    CHECK_EQ(wait_exit(child), 128 + SIGKILL);
    CHECK_EQ(ready(p.here, POLLIN | POLLRDHUP), POLLIN | POLLHUP | POLLRDHUP);
    CHECK_EQ(read_once(p.here), "");
  }
}

TEST("a process that polls its end wakes for each message of a blocking peer") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    char c;
    for (;;) {
      CHECK_EQ(await(fd, POLLIN) & POLLIN, POLLIN);
      ssize_t n = CHECK_OK(recv(fd, &c, 1, MSG_DONTWAIT));
      if (n == 0) return;
      CHECK_EQ(send(fd, &c, 1, MSG_DONTWAIT), 1);
    }
  });
  for (int i = 0; i < 3000; i++) {
    write_all(p.here, "q");
    CHECK_EQ(read_exactly(p.here, 1), "q");
  }
  hang_up(p, child);
}

// ---- ends ---------------------------------------------------------------------------------

TEST("shutdown of either half, after all bytes before it") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    CHECK_EQ(read_to_end(fd).size(), 100'000u);
    write_all(fd, "still here");
    CHECK_OK(shutdown(fd, SHUT_WR));
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(read_once(fd), "");
  });
  warm_up(p.here, 100);
  write_all(p.here, std::string(100'000, 'x'));
  CHECK_OK(shutdown(p.here, SHUT_WR));
  CHECK_ERRNO(send(p.here, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(read_to_end(p.here), "still here");
  CHECK_EQ(read_once(p.here), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("SHUT_RD gives the end here and EPIPE there") {
  SocketPair p, done;
  pid_t child = other_end(p, [&](int fd) {
    echo_some(fd, 400);
    CHECK_EQ(read_exactly(done.there, 1), "!");
    CHECK_ERRNO(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(read_exactly(fd, 2), "on");
  });
  warm_up(p.here, 100);
  CHECK_OK(shutdown(p.here, SHUT_RD));
  CHECK_EQ(read_once(p.here), "");
  write_all(done.here, "!");
  write_all(p.here, "on");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a reader that waits hears of shutdown in its own process, and the writer of EPIPE") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    while (send(fd, "x", 1, MSG_NOSIGNAL) == 1) {
    }
    CHECK_EQ(errno, EPIPE);
  });
  warm_up(p.here, 100);
  CHECK_EQ(read_exactly(p.here, 1000), std::string(1000, 'x'));
  Worker reader([&] { (void)read_to_end(p.here); });
  pause_ms(1);
  CHECK_OK(shutdown(p.here, SHUT_RD));
  reader.join();
  CHECK_EQ(wait_exit(child), 0);
}

TEST("SIGPIPE kills a writer that does not ignore it") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    signal(SIGPIPE, SIG_DFL);
    echo_some(fd, 400);
    CHECK_EQ(read_once(fd), "");
    write_all(fd, "x");
  });
  warm_up(p.here, 100);
  CHECK_OK(close(p.here));
  CHECK_EQ(wait_exit(child), 128 + SIGPIPE);
}

TEST("a writer that waits for room hears that the peer is gone, and so does a reader") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    pause();
  });
  warm_up(p.here, 100);
  Worker writer([&] {
    std::string much(1 << 20, 'x');
    while (send(p.here, much.data(), much.size(), MSG_NOSIGNAL) > 0) {
    }
    CHECK_TRUE(errno == EPIPE || errno == ECONNRESET);
  });
  Worker reader([&] {
    char c;
    ssize_t n = read(p.here, &c, 1);
    CHECK_TRUE(n == 0 || errno == ECONNRESET);
  });
  await_sleep(writer.id());
  await_sleep(reader.id());
  CHECK_OK(kill(child, SIGKILL));
  writer.join();
  reader.join();
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
}

TEST("what the dead left unread is a reset, once") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    write_all(fd, "bye");
    raise(SIGSTOP);
  });
  warm_up(p.here, 100);
  CHECK_EQ(read_exactly(p.here, 3), "bye");
  eventually([&] { return is_stopped(child); });
  write_all(p.here, "unread");
  CHECK_OK(kill(child, SIGKILL));
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  char c;
  CHECK_ERRNO(read(p.here, &c, 1), ECONNRESET);
  CHECK_EQ(read(p.here, &c, 1), 0);
  CHECK_ERRNO(send(p.here, "x", 1, MSG_NOSIGNAL), EPIPE);
}

// ---- signals and threads ------------------------------------------------------------------

TEST("a signal ends a blocking read, or restarts it") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  on_signal(SIGUSR1, count_signal);
  Worker reader([&] {
    char c;
    CHECK_ERRNO(read(p.here, &c, 1), EINTR);
  });
  reader.signal_until_done(SIGUSR1);
  reader.join();
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  int before = signals_seen;
  Worker second([&] { CHECK_EQ(read_once(p.here), "x"); });
  second.await_sleep();
  second.signal(SIGUSR1);
  eventually([&] { return signals_seen > before; });
  write_all(p.here, "x");
  second.join();
  hang_up(p, child);
}

namespace {
sigjmp_buf out_of_the_call;
int handlers_fd = -1;
void jump(int) { siglongjmp(out_of_the_call, 1); }
void answer(int) {
  int error = errno;
  write_all(handlers_fd, "h");
  errno = error;
}
}  // namespace

TEST("a handler that jumps out of a read leaves nothing behind") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  on_signal(SIGALRM, jump);
  static int left;
  for (left = 300; left > 0; left--) {
    warm_up(p.here, 2);
    itimerval t{{0, 0}, {0, 30 + left % 40}};
    if (sigsetjmp(out_of_the_call, 1) == 0) {
      CHECK_OK(setitimer(ITIMER_REAL, &t, nullptr));
      char c;
      CHECK_EQ(read(p.here, &c, 1), -2);
    }
    write_all(p.here, "abc");
    CHECK_EQ(await(p.here, POLLIN), POLLIN);
    CHECK_EQ(read_exactly(p.here, 3), "abc");
  }
  hang_up(p, child);
}

TEST("a handler writes to the end that its thread waits at") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  handlers_fd = p.here;
  on_signal(SIGALRM, answer, SA_RESTART);
  for (int i = 0; i < 300; i++) {
    warm_up(p.here, 2);
    itimerval t{{0, 0}, {0, 20 + i % 50}};
    CHECK_OK(setitimer(ITIMER_REAL, &t, nullptr));
    CHECK_EQ(read_once(p.here), "h");
  }
  hang_up(p, child);
}

TEST("threads that read the same end share its bytes, threads that write it lose none") {
  SocketPair p;
  constexpr int kThreads = 3, kEach = 5000;
  pid_t child = other_end(p, echo);
  std::atomic<int> got{0};
  {
    std::vector<std::unique_ptr<Worker>> all;
    for (int i = 0; i < kThreads; i++) {
      all.push_back(std::make_unique<Worker>([&] {
        for (int k = 0; k < kEach; k++) write_all(p.here, "1234567");
      }));
      all.push_back(std::make_unique<Worker>([&] {
        char buffer[7000];
        while (ssize_t n = CHECK_OK(read(p.here, buffer, sizeof buffer))) got += int(n);
      }));
    }
    eventually([&] { return got == kThreads * kEach * 7; });
    CHECK_OK(shutdown(p.here, SHUT_WR));
  }
  CHECK_EQ(wait_exit(child), 0);
}

// ---- ancillary data -----------------------------------------------------------------------

TEST("descriptors and credentials keep their place among the bytes") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    for (int i = 0; i < 200; i++) {
      Received r = receive_with_control(fd, 1);
      CHECK_EQ(r.bytes, "<");
      r = receive_with_control(fd, 100);
      CHECK_EQ(r.bytes, "f");
      write_all(r.fd, "through it");
      CHECK_OK(close(r.fd));
      CHECK_EQ(read_exactly(fd, 1), ">");
      write_all(fd, "done");
    }
    CHECK_EQ(read_once(fd), "");
  });
  warm_up(p.here, 100);
  for (int i = 0; i < 200; i++) {
    SocketPair passed;
    write_all(p.here, "<");
    send_with_descriptor(p.here, "f", passed.there);
    write_all(p.here, ">");
    CHECK_OK(close(passed.there));
    CHECK_EQ(read_exactly(passed.here, 10), "through it");
    CHECK_EQ(read_exactly(p.here, 4), "done");
    CHECK_OK(close(passed.here));
  }
  hang_up(p, child);
}

TEST("SO_PASSCRED tells who has sent what comes after it") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  warm_up(p.here);
  set_option(p.here, SOL_SOCKET, SO_PASSCRED, 1);
  for (int i = 0; i < 100; i++) {
    write_all(p.here, "who");
    Received r = receive_with_control(p.here, 100);
    CHECK_EQ(r.bytes, "who");
    CHECK_EQ(r.sender, child);
  }
  hang_up(p, child);
}

// ---- bytes from elsewhere -----------------------------------------------------------------

TEST("splice and sendfile keep the order") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  int ends[2];
  CHECK_OK(pipe(ends));
  FILE* file = tmpfile();
  CHECK_EQ(fputs("file", file), 1);
  CHECK_EQ(fflush(file), 0);
  for (int i = 0; i < 200; i++) {
    warm_up(p.here, 2);
    write_all(p.here, "a");
    write_all(ends[1], "pipe");
    CHECK_EQ(splice(ends[0], nullptr, p.here, nullptr, 4, 0), 4);
    write_all(p.here, "b");
    off_t at = 0;
    CHECK_EQ(sendfile(p.here, fileno(file), &at, 4), 4);
    write_all(p.here, "c");
    CHECK_EQ(read_exactly(p.here, 9), "apipebfil");
    ssize_t n = 0;
    for (int got = 0; got < 2; got += int(n)) n = CHECK_OK(splice(p.here, nullptr, ends[1], nullptr, size_t(2 - got), 0));
    CHECK_EQ(read_exactly(ends[0], 2), "ec");
  }
  hang_up(p, child);
}

TEST("system calls of the program's own find all bytes") {
  SocketPair p;
  pid_t child = other_end(p, echo);
  for (int i = 0; i < 300; i++) {
    warm_up(p.here, 3);
    write_all(p.here, "abcdef");
    std::string got;
    char piece[4];
    while (got.size() < 6) {
      long n = raw_call(SYS_read, p.here, long(piece), sizeof piece);
      CHECK_TRUE(n > 0);
      got.append(piece, size_t(n));
    }
    CHECK_EQ(got, "abcdef");
  }
  hang_up(p, child);
}

TEST("records and datagrams are the kernel's") {
  for (int type : {SOCK_SEQPACKET, SOCK_DGRAM}) {
    int ends[2];
    CHECK_OK(socketpair(AF_UNIX, type, 0, ends));
    pid_t child = in_child([&] {
      for (int i = 0; i < 100; i++) {
        std::string got = read_once(ends[1]);
        CHECK_EQ(write(ends[1], got.data(), got.size()), got.size());
      }
    });
    for (int i = 0; i < 100; i++) {
      CHECK_EQ(write(ends[0], "abc", 3), 3);
      char got[2];
      CHECK_EQ(recv(ends[0], got, 2, MSG_TRUNC), 3);
    }
    CHECK_EQ(wait_exit(child), 0);
  }
  int ends[2];
  CHECK_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 77, ends), EPROTONOSUPPORT);
  CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, ends), EOPNOTSUPP);
}
