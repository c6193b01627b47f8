// Socket pairs over fork, exec and messages, and when a process dies with bytes under way.
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "harness.h"
#include "raw_calls.h"
#include "socket_pairs.h"
#include "sockets.h"

using namespace conformance;

extern char** environ;

// ---- fork ---------------------------------------------------------------------------------

TEST("several processes at one end: each token goes to one of them, and no message is torn") {
  SocketPair p;
  constexpr int kProcesses = 4, kTokens = 8000;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; i++) {
    children.push_back(in_child([&] {
      CHECK_OK(close(p.here));
      for (char c; CHECK_OK(read(p.there, &c, 1)) == 1;) write_all(p.there, {&c, 1});
    }));
  }
  CHECK_OK(close(p.there));
  Worker writer([&] {
    for (int i = 0; i < kTokens; i++) {
      char c = char(i % 100);
      write_all(p.here, {&c, 1});
    }
    CHECK_OK(shutdown(p.here, SHUT_WR));
  });
  std::map<char, int> seen;
  for (char c : read_to_end(p.here)) seen[c]++;
  for (int c = 0; c < 100; c++) CHECK_EQ(seen[char(c)], kTokens / 100);
  writer.join();
  for (pid_t child : children) CHECK_EQ(wait_exit(child), 0);
}

TEST("processes that take turns at one end keep the order") {
  SocketPair p, turn;
  pid_t sink = other_end(p, [](int fd) { CHECK_EQ(receive_pattern(fd, 60'000, 700), 0); });
  pid_t second = in_child([&] {
    CHECK_OK(close(turn.here));
    char piece[100];
    for (uint64_t at = 100; at < 60'000; at += 200) {
      CHECK_EQ(read_exactly(turn.there, 1), "t");
      fill_pattern(piece, sizeof piece, at);
      write_all(p.here, {piece, sizeof piece});
      write_all(turn.there, "t");
    }
  });
  CHECK_OK(close(turn.there));
  char piece[100];
  for (uint64_t at = 0; at < 60'000; at += 200) {
    fill_pattern(piece, sizeof piece, at);
    write_all(p.here, {piece, sizeof piece});
    write_all(turn.here, "t");
    CHECK_EQ(read_exactly(turn.here, 1), "t");
  }
  CHECK_EQ(wait_exit(second), 0);
  CHECK_EQ(wait_exit(sink), 0);
}

TEST("the end comes when the last process has let go, however it went") {
  for (int how = 0; how < 4; how++) {
    SocketPair p;
    pid_t child = other_end(p, [how](int fd) {
      echo_some(fd, 400);
      write_all(fd, "last words");
      if (how == 0) CHECK_OK(close(fd));
      if (how == 1) _exit(0);
      if (how == 2) kill(getpid(), SIGKILL);
      if (how == 3) execl("/bin/true", "true", nullptr);
    });
    warm_up(p.here, 100);
    CHECK_EQ(read_exactly(p.here, 10), "last words");
    CHECK_EQ(read_once(p.here), "");
    CHECK_EQ(read_once(p.here), "");
    CHECK_EQ(wait_exit(child), how == 2 ? 128 + SIGKILL : 0);
    CHECK_ERRNO(send(p.here, "x", 1, MSG_NOSIGNAL), EPIPE);
  }
}

TEST("duplicates keep an end open") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    int copy = CHECK_OK(dup(fd));
    int other = CHECK_OK(fcntl(fd, F_DUPFD, 100));
    CHECK_OK(dup2(fd, 50));
    CHECK_OK(close(fd));
    echo_some(copy, 400);
    CHECK_OK(close(copy));
    echo_some(other, 400);
    CHECK_OK(close(other));
    echo_some(50, 400);
    CHECK_OK(close_range(50, 60, 0));
    pause();
  });
  warm_up(p.here, 400);
  CHECK_EQ(read_once(p.here), "");
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

TEST("a number that is another file's now") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    int file = CHECK_OK(open("/dev/null", O_RDWR));
    CHECK_OK(dup2(file, fd));
    char c;
    CHECK_EQ(read(fd, &c, 1), 0);
    CHECK_EQ(write(fd, "x", 1), 1);
  });
  warm_up(p.here, 100);
  CHECK_EQ(read_once(p.here), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a child in a process id namespace of its own") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    if (unshare(CLONE_NEWPID) != 0) return echo(fd);  // takes privileges
    pid_t inner = in_child([fd] { echo(fd); });
    CHECK_EQ(wait_exit(inner), 0);
  });
  warm_up(p.here, 2000);
  hang_up(p, child);
}

// In seccomp(2)'s strict mode there are read, write and exit.
TEST("a child that forbids itself all other system calls reads and writes on") {
  for (bool by_number : {false, true}) {
    SocketPair p;
    pid_t child = other_end(p, [by_number](int fd) {
      echo_some(fd, 400);
      if (by_number) CHECK_OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, nullptr));
      else CHECK_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
      char piece[64];
      for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
        if (write(fd, piece, size_t(n)) != n) break;
      (void)raw_call(SYS_exit, 0, 0, 0);
    });
    warm_up(p.here, 3000);
    hang_up(p, child);
  }
}

// ---- exec ---------------------------------------------------------------------------------

PROGRAM(echo_end) {
  if (args.size() > 1) unsetenv("LD_PRELOAD");
  echo(std::stoi(args[0]));
  return 0;
}
PROGRAM(poll_end) {
  int fd = std::stoi(args[0]);
  set_nonblocking(fd);
  for (char buffer[100];;) {
    CHECK_EQ(await(fd, POLLIN) & POLLIN, POLLIN);
    ssize_t n = CHECK_OK(read(fd, buffer, sizeof buffer));
    if (n == 0) return 0;
    CHECK_EQ(write(fd, buffer, size_t(n)), n);
  }
}

TEST("a program that is started with an end, by fork and exec, after bytes went through it") {
  for (const char* program : {"echo_end", "poll_end"}) {
    SocketPair p;
    pid_t child = spawn_program(program, {std::to_string(p.there)}, {p.there});
    // The parent uses the same end first: what is not read yet is for the program.
    CHECK_OK(close(p.there));
    warm_up(p.here, 3000);
    hang_up(p, child);
  }
}

TEST("a program without the shim gets what it is sent, before and after exec") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    CHECK_OK(dup2(fd, 0));
    CHECK_OK(dup2(fd, 1));
    char environment[] = "SLUICE_DIR=";
    char* no_shim[] = {environment, nullptr};
    char* argv[] = {const_cast<char*>("cat"), nullptr};
    CHECK_OK(close(fd));
    execve("/bin/cat", argv, no_shim);
  });
  warm_up(p.here, 100);
  for (int i = 0; i < 500; i++) {
    write_all(p.here, "through cat");
    CHECK_EQ(read_exactly(p.here, 11), "through cat");
  }
  hang_up(p, child);
}

TEST("commands by system, popen, posix_spawn and vfork write where they should") {
  SocketPair p;
  pid_t child = other_end(p, [](int fd) {
    echo_some(fd, 400);
    CHECK_OK(dup2(fd, 1));
    CHECK_OK(close(fd));
    for (int i = 0; i < 20; i++) {
      write_all(1, "a");
      CHECK_EQ(system("printf b"), 0);
      write_all(1, "c");
      FILE* f = popen("cat", "w");
      CHECK_EQ(fputs("d", f), 1);
      CHECK_EQ(pclose(f), 0);
      pid_t pid;
      const char* argv[] = {"printf", "e", nullptr};
      CHECK_EQ(posix_spawnp(&pid, "printf", nullptr, nullptr, const_cast<char**>(argv), environ), 0);
      CHECK_EQ(wait_exit(pid), 0);
      argv[1] = "f";
      pid = vfork();
      if (pid == 0) {
        execvp("printf", const_cast<char**>(argv));
        _exit(127);
      }
      CHECK_EQ(wait_exit(pid), 0);
    }
  });
  warm_up(p.here, 100);
  for (int i = 0; i < 20; i++) CHECK_EQ(read_exactly(p.here, 6), "abcdef");
  CHECK_EQ(read_once(p.here), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("programs that share their input read on one after the other") {
  SocketPair p, out;
  pid_t writing = other_end(p, [](int fd) { CHECK_EQ(send_pattern(fd, 50'000, 64), 0); });
  std::string got;
  for (int i = 0; i < 10; i++) {
    pid_t stage = in_child([&] {
      CHECK_OK(close(out.here));
      for (int k = 0; k < 25; k++) write_all(out.there, read_exactly(p.here, 100));
    });
    got += read_exactly(out.here, 2500);
    CHECK_EQ(wait_exit(stage), 0);
    got += read_exactly(p.here, 2500);
  }
  CHECK_EQ(got.size(), 50'000u);
  CHECK_TRUE(matches_pattern(got.data(), got.size(), 0));
  CHECK_EQ(read_once(p.here), "");
  CHECK_EQ(wait_exit(writing), 0);
}

// ---- messages -----------------------------------------------------------------------------

TEST("an end that is passed on has all bytes, in both directions") {
  for (int round = 0; round < 30; round++) {
    SocketPair p, channel;
    pid_t taker = in_child([&] {
      CHECK_OK(close(p.here));
      CHECK_OK(close(p.there));
      CHECK_OK(close(channel.here));
      Received r = receive_with_control(channel.there, 10);
      echo(r.fd);
    });
    CHECK_OK(close(channel.there));
    pid_t child = other_end(p, [&](int fd) {
      echo_some(fd, 400);
      send_with_descriptor(channel.here, "!", fd);
    });
    warm_up(p.here, 100);
    write_all(p.here, "not read before");
    CHECK_EQ(wait_exit(child), 0);
    CHECK_EQ(read_exactly(p.here, 15), "not read before");
    warm_up(p.here, 20);
    hang_up(p, taker);
  }
}

// ---- death --------------------------------------------------------------------------------

TEST("what a killed writer has written is read, then the end") {
  for (int round = 0; round < 30; round++) {
    SocketPair p;
    pid_t child = other_end(p, [](int fd) { (void)send_pattern(fd, uint64_t{1} << 40, 3001); });
    uint64_t at = 0;
    char buffer[5000];
    auto take = [&] {
      ssize_t n = CHECK_OK(read(p.here, buffer, sizeof buffer));
      CHECK_TRUE(matches_pattern(buffer, size_t(n), at));
      at += uint64_t(n);
      return n > 0;
    };
    while (at < uint64_t(round) * 30'000 + 1) take();
    CHECK_OK(kill(child, SIGKILL));
    while (take()) {
    }
    CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  }
}

TEST("a killed reader's sibling goes on with the rest") {
  for (int round = 0; round < 20; round++) {
    SocketPair p;
    pid_t first = in_child([&] {
      CHECK_OK(close(p.here));
      for (;;) read_once(p.there, 100);
    });
    pid_t second = in_child([&] {
      CHECK_OK(close(p.here));
      while (!read_once(p.there, 100).empty()) {
      }
    });
    CHECK_OK(close(p.there));
    for (int i = 0; i < 500; i++) write_all(p.here, "0123456789");
    CHECK_OK(kill(first, SIGKILL));
    for (int i = 0; i < 500; i++) write_all(p.here, "0123456789");
    CHECK_EQ(wait_exit(first), 128 + SIGKILL);
    CHECK_OK(shutdown(p.here, SHUT_WR));
    CHECK_EQ(wait_exit(second), 0);
  }
}

TEST("a writer learns at once that its reader was killed, and a stopped reader keeps what it is sent") {
  for (int round = 0; round < 20; round++) {
    SocketPair p;
    pid_t child = other_end(p, echo);
    warm_up(p.here, 300);
    CHECK_OK(kill(child, SIGSTOP));
    eventually([&] { return is_stopped(child); });
    write_all(p.here, "kept");
    CHECK_OK(kill(child, SIGCONT));
    CHECK_EQ(read_exactly(p.here, 4), "kept");
    CHECK_OK(kill(child, SIGKILL));
    CHECK_EQ(wait_exit(child), 128 + SIGKILL);
    CHECK_ERRNO(send(p.here, "x", 1, MSG_NOSIGNAL), EPIPE);
  }
}
