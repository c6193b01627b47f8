// Pipes between processes: pipe(7), pipe(2).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <map>
#include <vector>

#include "harness.h"
#include "raw_calls.h"
#include "sockets.h"

using namespace conformance;

extern char** environ;

namespace {

struct Pipe {
  int in, out;  // to read from, to write to
  explicit Pipe(int flags = 0) {
    int ends[2];
    CHECK_OK(pipe2(ends, flags));
    in = ends[0];
    out = ends[1];
  }
  void keep_reading() {
    CHECK_OK(close(out));
    out = -1;
  }
  void keep_writing() {
    CHECK_OK(close(in));
    in = -1;
  }
};

// A child that has only the end it needs.
template <class Body>
pid_t reader_child(Pipe& p, Body body) {
  return in_child([&p, body] {
    p.keep_reading();
    body(p.in);
  });
}
template <class Body>
pid_t writer_child(Pipe& p, Body body) {
  return in_child([&p, body] {
    p.keep_writing();
    body(p.out);
  });
}

void echo(int from, int to) {
  for (std::string piece; !(piece = read_once(from)).empty();) write_all(to, piece);
}

// Bytes go to and fro until both sides have surely looked for each other.
void warm_up(int to, int from, int rounds = 200) {
  for (int i = 0; i < rounds; i++) {
    write_all(to, "ping");
    CHECK_EQ(read_exactly(from, 4), "ping");
  }
}

// write() may take any part of it: the other writers of the tests loop as well.
int write_pattern(int fd, uint64_t total, size_t chunk) {
  std::vector<char> buffer(chunk);
  for (uint64_t at = 0; at < total;) {
    size_t n = std::min<uint64_t>(chunk, total - at);
    fill_pattern(buffer.data(), n, at);
    for (size_t done = 0; done < n;) {
      ssize_t k = write(fd, buffer.data() + done, n - done);
      if (k <= 0) return -errno;
      done += size_t(k);
    }
    at += n;
  }
  return 0;
}
int read_pattern(int fd, uint64_t total, size_t chunk) {
  std::vector<char> buffer(chunk);
  for (uint64_t at = 0; at < total;) {
    ssize_t k = read(fd, buffer.data(), std::min<uint64_t>(chunk, total - at));
    if (k <= 0) return k == 0 ? -ENODATA : -errno;
    if (!matches_pattern(buffer.data(), size_t(k), at)) return -EILSEQ;
    at += uint64_t(k);
  }
  return 0;
}

// Writes until EAGAIN.
size_t fill_pipe(int fd) {
  std::string piece(4096, 'x');
  size_t total = 0;
  for (ssize_t n; (n = write(fd, piece.data(), piece.size())) > 0;) total += size_t(n);
  CHECK_EQ(errno, EAGAIN);
  return total;
}

void expect_broken(int fd) {
  signal(SIGPIPE, SIG_IGN);
  CHECK_ERRNO(write(fd, "x", 1), EPIPE);
}

}  // namespace

// ---- bytes --------------------------------------------------------------------------------

TEST("messages go to and fro between parent and child") {
  Pipe there, back;
  pid_t child = in_child([&] {
    there.keep_reading();
    back.keep_writing();
    echo(there.in, back.out);
  });
  there.keep_writing();
  back.keep_reading();
  warm_up(there.out, back.in, 20'000);
  CHECK_OK(close(there.out));
  CHECK_EQ(read_once(back.in), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("long transfers keep every byte in order, whatever the sizes") {
  for (auto [wrote, reads] : {std::pair{1 << 16, 1 << 16}, {4096, 1 << 17}, {100'003, 4096}, {1 << 20, 70'001}, {13, 65536}, {65536, 17}}) {
    Pipe p;
    uint64_t total = std::min(wrote, reads) < 100 ? 1 << 20 : 48 << 20;
    pid_t child = writer_child(p, [=](int fd) { CHECK_EQ(write_pattern(fd, total, size_t(wrote)), 0); });
    p.keep_reading();
    CHECK_EQ(read_pattern(p.in, total, size_t(reads)), 0);
    CHECK_EQ(read_once(p.in), "");
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("a slow reader and a slow writer lose nothing") {
  for (bool slow_reader : {true, false}) {
    Pipe p;
    constexpr uint64_t kTotal = 3 << 20;
    pid_t child = writer_child(p, [=](int fd) {
      std::vector<char> piece(8192);
      for (uint64_t at = 0; at < kTotal; at += piece.size()) {
        fill_pattern(piece.data(), piece.size(), at);
        write_all(fd, {piece.data(), piece.size()});
        if (!slow_reader && at % (1 << 16) == 0) pause_ms(1);
      }
    });
    p.keep_reading();
    std::vector<char> piece(8192);
    uint64_t at = 0;
    while (ssize_t n = CHECK_OK(read(p.in, piece.data(), piece.size()))) {
      CHECK_TRUE(matches_pattern(piece.data(), size_t(n), at));
      at += uint64_t(n);
      if (slow_reader && at % (1 << 16) < 8192) pause_ms(1);
    }
    CHECK_EQ(at, kTotal);
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("writes of PIPE_BUF bytes by several processes are not mixed") {
  Pipe p;
  constexpr int kWriters = 4, kRecords = 3000;
  std::vector<pid_t> children;
  for (int w = 0; w < kWriters; w++) {
    children.push_back(writer_child(p, [w](int fd) {
      for (int i = 0; i < kRecords; i++) {
        std::string record(PIPE_BUF, char('a' + w));
        memcpy(record.data(), &i, sizeof i);
        CHECK_EQ(write(fd, record.data(), record.size()), PIPE_BUF);
      }
    }));
  }
  p.keep_reading();
  int next[kWriters] = {};
  for (std::string record; !(record = read_exactly(p.in, 1)).empty();) {
    record += read_exactly(p.in, PIPE_BUF - 1);
    int w = record[10] - 'a', i;
    CHECK_TRUE(w >= 0 && w < kWriters);
    memcpy(&i, record.data(), sizeof i);
    CHECK_EQ(i, next[w]++);
    CHECK_EQ(record.find_first_not_of(char('a' + w), sizeof i), std::string::npos);
    if (next[0] + next[1] + next[2] + next[3] == kWriters * kRecords) break;
  }
  for (pid_t child : children) CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(read_once(p.in), "");
}

TEST("each token goes to one of several readers") {
  Pipe tokens, got;
  constexpr int kReaders = 4, kTokens = 20'000;
  std::vector<pid_t> children;
  for (int r = 0; r < kReaders; r++) {
    children.push_back(in_child([&] {
      tokens.keep_reading();
      got.keep_writing();
      for (char c; CHECK_OK(read(tokens.in, &c, 1)) == 1;) write_all(got.out, {&c, 1});
    }));
  }
  tokens.keep_writing();
  got.keep_reading();
  pid_t counting = in_child([&] {
    CHECK_OK(close(tokens.out));
    std::map<char, int> seen;
    for (std::string s; !(s = read_once(got.in)).empty();)
      for (char c : s) seen[c]++;
    for (int c = 0; c < 100; c++) CHECK_EQ(seen[char(c)], kTokens / 100);
  });
  CHECK_OK(close(got.in));
  for (int i = 0; i < kTokens; i++) {
    char c = char(i % 100);
    write_all(tokens.out, {&c, 1});
  }
  CHECK_OK(close(tokens.out));
  for (pid_t child : children) CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(wait_exit(counting), 0);
}

TEST("two threads read the same pipe") {
  Pipe p;
  constexpr uint64_t kTotal = 4 << 20;
  pid_t child = writer_child(p, [](int fd) { CHECK_EQ(write_pattern(fd, kTotal, 777), 0); });
  p.keep_reading();
  std::atomic<uint64_t> got{0};
  auto body = [&] {
    char buffer[1000];
    while (ssize_t n = CHECK_OK(read(p.in, buffer, sizeof buffer))) got += uint64_t(n);
  };
  Worker one(body), two(body);
  one.join();
  two.join();
  CHECK_EQ(got.load(), kTotal);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("readv and writev, preadv2 and pwritev2 at the current position") {
  Pipe there, back;
  pid_t child = in_child([&] {
    there.keep_reading();
    back.keep_writing();
    echo(there.in, back.out);
  });
  there.keep_writing();
  back.keep_reading();
  warm_up(there.out, back.in);
  char a[] = "ab", b[] = "", c[] = "cdef";
  iovec parts[] = {{a, 2}, {b, 0}, {c, 4}};
  for (int i = 0; i < 100; i++) {
    if (i % 2) CHECK_EQ(writev(there.out, parts, 3), 6);
    else CHECK_EQ(pwritev2(there.out, parts, 3, -1, 0), 6);
    std::string got = read_exactly(back.in, 3);
    char x[2], y[4] = {};
    iovec into[] = {{x, 2}, {y, 4}};
    ssize_t n = i % 2 ? readv(back.in, into, 2) : preadv2(back.in, into, 2, -1, 0);
    CHECK_TRUE(n > 0);
    got.append(x, std::min<size_t>(size_t(n), 2));
    if (n > 2) got.append(y, size_t(n) - 2);
    got += read_exactly(back.in, 6 - got.size());
    CHECK_EQ(got, "abcdef");
  }
  CHECK_ERRNO(preadv2(back.in, parts, 3, 0, 0), ESPIPE);
  CHECK_ERRNO(pread(back.in, a, 1, 0), ESPIPE);
  CHECK_ERRNO(readv(back.in, parts, -1), EINVAL);
  CHECK_ERRNO(writev(there.out, parts, 1025), EINVAL);
  CHECK_OK(close(there.out));
  CHECK_EQ(wait_exit(child), 0);
}

TEST("nothing is read or written of no bytes") {
  Pipe p;
  pid_t child = reader_child(p, [](int fd) {
    CHECK_EQ(read_exactly(fd, 1), "x");
    CHECK_EQ(read(fd, nullptr, 0), 0);
    CHECK_EQ(read_once(fd), "y");
  });
  p.keep_writing();
  CHECK_EQ(write(p.out, nullptr, 0), 0);
  write_all(p.out, "x");
  await_sleep(child);
  write_all(p.out, "y");
  CHECK_EQ(wait_exit(child), 0);
}

// ---- ends ---------------------------------------------------------------------------------

TEST("the end comes when the last writer is gone, however it went") {
  for (int how = 0; how < 4; how++) {
    Pipe p;
    pid_t child = writer_child(p, [how](int fd) {
      write_all(fd, "last words");
      if (how == 0) CHECK_OK(close(fd));
      if (how == 1) _exit(0);
      if (how == 2) kill(getpid(), SIGKILL);
      if (how == 3) execl("/bin/true", "true", nullptr);
    });
    p.keep_reading();
    CHECK_EQ(read_exactly(p.in, 10), "last words");
    CHECK_EQ(read_once(p.in), "");
    CHECK_EQ(read_once(p.in), "");
    CHECK_EQ(wait_exit(child), how == 2 ? 128 + SIGKILL : 0);
  }
}

TEST("a reader that waits hears the end") {
  Pipe p;
  pid_t first = writer_child(p, [](int) { pause(); });
  pid_t second = writer_child(p, [](int) { pause(); });
  p.keep_reading();
  Worker reader([&] { CHECK_EQ(read_once(p.in), ""); });
  await_sleep(reader.id());
  CHECK_OK(kill(first, SIGKILL));
  CHECK_EQ(wait_exit(first), 128 + SIGKILL);
  CHECK_TRUE(!reader.done());
  CHECK_OK(kill(second, SIGTERM));
  CHECK_EQ(wait_exit(second), 128 + SIGTERM);
  reader.join();
}

TEST("writing fails when the last reader is gone, however it went") {
  for (int how = 0; how < 4; how++) {
    Pipe p;
    Pipe done;
    pid_t child = in_child([&] {
      p.keep_reading();
      done.keep_writing();
      for (int i = 0; i < 100; i++) CHECK_EQ(read_exactly(p.in, 1), "x");
      if (how == 0) CHECK_OK(close(p.in));
      write_all(done.out, "!");
      if (how == 1) _exit(0);
      if (how == 2) kill(getpid(), SIGKILL);
      if (how == 3) exit(0);
      pause();
    });
    p.keep_writing();
    done.keep_reading();
    for (int i = 0; i < 100; i++) write_all(p.out, "x");
    CHECK_EQ(read_exactly(done.in, 1), "!");
    if (how != 0) wait_exit(child);
    expect_broken(p.out);
    if (how == 0) {
      CHECK_OK(kill(child, SIGKILL));
      wait_exit(child);
    }
  }
}

TEST("a writer that waits for space hears that the reader is gone") {
  Pipe p;
  pid_t child = reader_child(p, [](int fd) {
    CHECK_EQ(read_exactly(fd, 5), "hello");
    pause();
  });
  p.keep_writing();
  write_all(p.out, "hello");
  await_sleep(child);
  signal(SIGPIPE, SIG_IGN);
  Worker writer([&] {
    std::string much(1 << 20, 'x');
    ssize_t n;
    while ((n = write(p.out, much.data(), much.size())) > 0) {
    }
    CHECK_EQ(errno, EPIPE);
  });
  await_sleep(writer.id());
  CHECK_OK(kill(child, SIGKILL));
  writer.join();
  CHECK_EQ(wait_exit(child), 128 + SIGKILL);
}

TEST("SIGPIPE kills a writer that does not ignore it") {
  Pipe p, done;
  pid_t child = writer_child(p, [&](int fd) {
    for (;;) write_all(fd, "yes\n");
  });
  p.keep_reading();
  CHECK_EQ(read_exactly(p.in, 4000).substr(0, 4), "yes\n");
  CHECK_OK(close(p.in));
  CHECK_EQ(wait_exit(child), 128 + SIGPIPE);
}

TEST("what a killed writer has written is read, then the end") {
  for (int round = 0; round < 20; round++) {
    Pipe p;
    pid_t child = writer_child(p, [](int fd) {
      write_pattern(fd, uint64_t{1} << 40, 3001);
    });
    p.keep_reading();
    uint64_t at = 0;
    char buffer[5000];
    while (at < uint64_t(round) * 30'000 + 1) {
      ssize_t n = CHECK_OK(read(p.in, buffer, sizeof buffer));
      CHECK_TRUE(matches_pattern(buffer, size_t(n), at));
      at += uint64_t(n);
    }
    CHECK_OK(kill(child, SIGKILL));
    while (ssize_t n = CHECK_OK(read(p.in, buffer, sizeof buffer))) {
      CHECK_TRUE(matches_pattern(buffer, size_t(n), at));
      at += uint64_t(n);
    }
    CHECK_EQ(wait_exit(child), 128 + SIGKILL);
  }
}

TEST("a reader killed in its midst leaves the rest to the next") {
  Pipe p;
  pid_t first = reader_child(p, [](int fd) {
    for (;;) read_once(fd, 100);
  });
  pid_t writer = writer_child(p, [](int fd) {
    for (int i = 0; i < 20'000; i++) write_all(fd, "0123456789");
    write_all(fd, "end");
  });
  p.keep_reading();
  pause_ms(3);
  CHECK_OK(kill(first, SIGKILL));
  CHECK_EQ(wait_exit(first), 128 + SIGKILL);
  CHECK_EQ(read_to_end(p.in).substr(0, 0), "");
  CHECK_EQ(wait_exit(writer), 0);
}

TEST("duplicates keep an end open") {
  Pipe p;
  pid_t child = writer_child(p, [](int fd) {
    int copy = CHECK_OK(dup(fd));
    int other = CHECK_OK(fcntl(fd, F_DUPFD, 100));
    CHECK_OK(dup2(fd, 50));
    CHECK_OK(close(fd));
    write_all(copy, "a");
    write_all(other, "b");
    write_all(50, "c");
    CHECK_OK(close(copy));
    CHECK_OK(close_range(50, 200, 0));
    pause();
  });
  p.keep_reading();
  CHECK_EQ(read_exactly(p.in, 3), "abc");
  CHECK_EQ(read_once(p.in), "");
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

TEST("the wrong end, and what is not a pipe any more") {
  Pipe p;
  char c;
  pid_t child = in_child([&] {
    CHECK_ERRNO(read(p.out, &c, 1), EBADF);
    CHECK_ERRNO(write(p.in, &c, 1), EBADF);
    CHECK_ERRNO(lseek(p.in, 0, SEEK_CUR), ESPIPE);
    struct stat st;
    CHECK_OK(fstat(p.in, &st));
    CHECK_TRUE(S_ISFIFO(st.st_mode));
    int file = CHECK_OK(open("/dev/null", O_RDWR));
    CHECK_OK(dup2(file, p.in));
    CHECK_EQ(read(p.in, &c, 1), 0);
    CHECK_OK(dup2(file, p.out));
    CHECK_EQ(write(p.out, "x", 1), 1);
  });
  CHECK_EQ(wait_exit(child), 0);
  CHECK_OK(close(p.out));
  CHECK_EQ(read(p.in, &c, 1), 0);
}

// ---- modes --------------------------------------------------------------------------------

TEST("a non-blocking reader and writer get EAGAIN") {
  Pipe there, back;
  pid_t child = in_child([&] {
    there.keep_reading();
    back.keep_writing();
    echo(there.in, back.out);
  });
  there.keep_writing();
  back.keep_reading();
  warm_up(there.out, back.in);
  set_nonblocking(back.in);
  char c;
  for (int i = 0; i < 1000; i++) {
    CHECK_ERRNO(read(back.in, &c, 1), EAGAIN);
    write_all(there.out, "x");
    CHECK_EQ(await(back.in, POLLIN), POLLIN);
    CHECK_EQ(read(back.in, &c, 1), 1);
  }
  set_nonblocking(back.in, false);
  warm_up(there.out, back.in);
  CHECK_OK(close(there.out));
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a pipe that nobody reads takes what F_GETPIPE_SZ says") {
  Pipe p;
  pid_t child = reader_child(p, [](int fd) {
    CHECK_EQ(read_exactly(fd, 5), "hello");
    pause();
  });
  p.keep_writing();
  write_all(p.out, "hello");
  await_sleep(child);
  pause_ms(5);
  int size = CHECK_OK(fcntl(p.out, F_GETPIPE_SZ));
  CHECK_EQ(size, 65536);
  set_nonblocking(p.out);
  CHECK_EQ(fill_pipe(p.out), size_t(size));
  CHECK_ERRNO(write(p.out, "x", 1), EAGAIN);
  CHECK_EQ(unread(p.out), size);
  CHECK_EQ(CHECK_OK(fcntl(p.out, F_SETPIPE_SZ, 1 << 18)), 1 << 18);
  CHECK_EQ(fill_pipe(p.out), size_t((1 << 18) - size));
  CHECK_ERRNO(fcntl(p.out, F_SETPIPE_SZ, 4096), EBUSY);
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

TEST("O_NONBLOCK that another process sets counts here too") {
  Pipe p, go;
  pid_t child = in_child([&] {
    CHECK_EQ(read_exactly(go.in, 1), "!");
    set_nonblocking(p.in);
    write_all(p.out, "now");
    pause();
  });
  char c[3];
  write_all(go.out, "!");
  CHECK_EQ(read_exactly(p.in, 3), "now");
  CHECK_ERRNO(read(p.in, c, 1), EAGAIN);
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

TEST("poll, select and epoll see bytes after blocking reads") {
  for (int how = 0; how < 3; how++) {
    Pipe there, back;
    pid_t child = in_child([&] {
      there.keep_reading();
      back.keep_writing();
      echo(there.in, back.out);
    });
    there.keep_writing();
    back.keep_reading();
    for (int i = 0; i < 300; i++) {
      warm_up(there.out, back.in, 2);
      write_all(there.out, "x");
      if (how == 0) CHECK_EQ(await(back.in, POLLIN), POLLIN);
      if (how == 1) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(back.in, &set);
        CHECK_EQ(select(back.in + 1, &set, nullptr, nullptr, nullptr), 1);
      }
      if (how == 2) {
        int epfd = CHECK_OK(epoll_create1(0));
        epoll_event e{EPOLLIN, {}};
        CHECK_OK(epoll_ctl(epfd, EPOLL_CTL_ADD, back.in, &e));
        CHECK_EQ(epoll_wait(epfd, &e, 1, -1), 1);
        CHECK_OK(close(epfd));
      }
      CHECK_EQ(read_exactly(back.in, 1), "x");
    }
    CHECK_OK(close(there.out));
    CHECK_EQ(await(back.in, POLLIN) & POLLHUP, POLLHUP);
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("bytes that came before the first poll are seen by it") {
  Pipe p, done;
  pid_t child = writer_child(p, [&](int fd) {
    for (int i = 0; i < 30; i++) write_all(fd, "0123456789");
    write_all(done.out, "!");
    pause();
  });
  CHECK_EQ(read_exactly(p.in, 10), "0123456789");
  CHECK_EQ(read_exactly(done.in, 1), "!");
  CHECK_EQ(unread(p.in), 290);
  CHECK_EQ(ready(p.in, POLLIN), POLLIN);
  CHECK_EQ(unread(p.in), 290);
  for (int i = 0; i < 29; i++) CHECK_EQ(read_exactly(p.in, 10), "0123456789");
  CHECK_EQ(ready(p.in, POLLIN), 0);
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

TEST("a pipe that was registered before the fork is seen by epoll") {
  Pipe p;
  int epfd = CHECK_OK(epoll_create1(0));
  epoll_event e{EPOLLIN, {}};
  CHECK_OK(epoll_ctl(epfd, EPOLL_CTL_ADD, p.in, &e));
  pid_t child = in_child([&] {
    for (int i = 0; i < 300; i++) write_all(p.out, "x");
    pause();
  });
  for (int i = 0; i < 300; i++) {
    CHECK_EQ(epoll_wait(epfd, &e, 1, -1), 1);
    CHECK_EQ(read_exactly(p.in, 1), "x");
  }
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

// ---- signals ------------------------------------------------------------------------------

TEST("a handler interrupts a read that waits; with SA_RESTART it goes on") {
  for (bool restart : {false, true}) {
    Pipe p;
    pid_t child = writer_child(p, [](int fd) {
      for (int i = 0; i < 10; i++) write_all(fd, "x");
      pause();
    });
    p.keep_reading();
    CHECK_EQ(read_exactly(p.in, 10), "xxxxxxxxxx");
    on_signal(SIGUSR1, count_signal, restart ? SA_RESTART : 0);
    int seen = signals_seen;
    Worker reader([&] {
      char c;
      ssize_t n = read(p.in, &c, 1);
      if (restart) CHECK_EQ(n, 0);
      else CHECK_ERRNO(n, EINTR);
    });
    await_sleep(reader.id());
    CHECK_OK(syscall(SYS_tgkill, getpid(), reader.id(), SIGUSR1));
    eventually([&] { return signals_seen > seen; });
    if (restart) {
      CHECK_TRUE(!reader.done());
      CHECK_OK(kill(child, SIGKILL));
    }
    reader.join();
    CHECK_OK(kill(child, SIGKILL));
    wait_exit(child);
  }
}

TEST("a handler interrupts a write that waits; what went in is told") {
  Pipe p;
  pid_t child = reader_child(p, [](int fd) {
    CHECK_EQ(read_exactly(fd, 5), "hello");
    pause();
  });
  p.keep_writing();
  write_all(p.out, "hello");
  on_signal(SIGUSR1, count_signal);
  Worker writer([&] {
    std::string much(1 << 20, 'x');
    ssize_t n = write(p.out, much.data(), much.size());
    CHECK_TRUE(n > 0 && n < 1 << 20);
    CHECK_ERRNO(write(p.out, "x", 1), EINTR);
  });
  for (int i = 0; i < 2; i++) {
    await_sleep(writer.id());
    int seen = signals_seen;
    CHECK_OK(syscall(SYS_tgkill, getpid(), writer.id(), SIGUSR1));
    eventually([&] { return signals_seen > seen; });
  }
  writer.join();
  CHECK_OK(kill(child, SIGKILL));
  wait_exit(child);
}

namespace {
int handler_writes_to = -1;
void write_in_handler(int) { (void)!write(handler_writes_to, "h", 1); }
}  // namespace

TEST("a handler may write to the pipe that its thread is writing to") {
  Pipe p;
  static constexpr int kBytes = 2'000'000;
  pid_t child = reader_child(p, [](int fd) {
    int n = 0;
    std::string all = read_to_end(fd);
    for (char c : all) n += c == 'm';
    CHECK_EQ(n, kBytes);
    CHECK_TRUE(all.size() > kBytes);
  });
  p.keep_writing();
  handler_writes_to = p.out;
  on_signal(SIGALRM, write_in_handler, SA_RESTART);
  itimerval each{{0, 200}, {0, 200}};
  CHECK_OK(setitimer(ITIMER_REAL, &each, nullptr));
  std::string piece(50, 'm');
  for (int done = 0; done < kBytes;) {
    ssize_t n = write(p.out, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    CHECK_EQ(n, 50);
    done += int(n);
  }
  each = {};
  CHECK_OK(setitimer(ITIMER_REAL, &each, nullptr));
  write_all(p.out, "h");
  CHECK_OK(close(p.out));
  CHECK_EQ(wait_exit(child), 0);
}

// ---- who does not use libc's calls ----------------------------------------------------------

TEST("bytes written and read by system calls of one's own arrive") {
  for (int who = 1; who < 4; who++) {
    Pipe p;
    pid_t child = writer_child(p, [who](int fd) {
      for (int i = 0; i < 5000; i++) {
        if (who & 1) CHECK_EQ(raw_write(fd, "0123456789", 10), 10);
        else write_all(fd, "0123456789");
      }
    });
    p.keep_reading();
    for (int i = 0; i < 5000; i++) {
      std::string got(10, 0);
      for (long n = 0; n < 10;) {
        long k = who & 2 ? raw_read(p.in, got.data() + n, size_t(10 - n)) : read(p.in, got.data() + n, size_t(10 - n));
        CHECK_TRUE(k > 0);
        n += k;
      }
      CHECK_EQ(got, "0123456789");
    }
    CHECK_EQ(read_once(p.in), "");
    CHECK_EQ(wait_exit(child), 0);
  }
}

TEST("one writer after another, of both kinds, keeps their order") {
  Pipe p;
  pid_t reading = reader_child(p, [](int fd) {
    for (int i = 0; i < 500; i++) CHECK_EQ(read_exactly(fd, 4), "abcd");
    CHECK_EQ(read_once(fd), "");
  });
  p.keep_writing();
  for (int i = 0; i < 500; i++) {
    write_all(p.out, "a");
    CHECK_EQ(wait_exit(in_child([&] { CHECK_EQ(raw_write(p.out, "b", 1), 1); })), 0);
    write_all(p.out, "c");
    CHECK_EQ(wait_exit(in_child([&] { write_all(p.out, "d"); })), 0);
  }
  CHECK_OK(close(p.out));
  CHECK_EQ(wait_exit(reading), 0);
}

TEST("stdio on both ends") {
  Pipe p;
  pid_t child = writer_child(p, [](int fd) {
    FILE* f = fdopen(fd, "w");
    for (int i = 0; i < 20'000; i++) CHECK_TRUE(fprintf(f, "line %d\n", i) > 0);
    CHECK_EQ(fclose(f), 0);
    CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
  });
  p.keep_reading();
  FILE* f = fdopen(p.in, "r");
  char line[64];
  for (int i = 0; i < 20'000; i++) {
    CHECK_TRUE(fgets(line, sizeof line, f) != nullptr);
    CHECK_EQ(std::string(line), "line " + std::to_string(i) + "\n");
  }
  CHECK_TRUE(fgets(line, sizeof line, f) == nullptr);
  CHECK_EQ(wait_exit(child), 0);
}

// ---- splice -------------------------------------------------------------------------------

TEST("splice, tee, vmsplice and sendfile move what is there, in order") {
  Pipe there, back;
  pid_t child = in_child([&] {
    there.keep_reading();
    back.keep_writing();
    echo(there.in, back.out);
  });
  there.keep_writing();
  back.keep_reading();
  Pipe local, copy;
  for (int i = 0; i < 100; i++) {
    warm_up(there.out, back.in, 3);
    write_all(there.out, "one ");
    char two[] = "two ";
    iovec part{two, 4};
    CHECK_EQ(vmsplice(there.out, &part, 1, 0), 4);
    write_all(local.out, "three ");
    CHECK_EQ(splice(local.in, nullptr, there.out, nullptr, 6, 0), 6);
    write_all(there.out, "four ");
    std::string got;
    while (got.size() < 19) {
      ssize_t n = CHECK_OK(splice(back.in, nullptr, local.out, nullptr, 100, 0));
      CHECK_EQ(tee(local.in, copy.out, size_t(n), 0), n);
      got += read_exactly(local.in, size_t(n));
      read_exactly(copy.in, size_t(n));
    }
    CHECK_EQ(got, "one two three four ");
  }
  char name[] = "/tmp/pipes-XXXXXX";
  int file = CHECK_OK(mkstemp(name));
  CHECK_OK(unlink(name));
  write_all(file, "a file");
  CHECK_OK(lseek(file, 0, SEEK_SET));
  warm_up(there.out, back.in, 3);
  CHECK_EQ(sendfile(there.out, file, nullptr, 6), 6);
  write_all(there.out, ", and more");
  CHECK_EQ(read_exactly(back.in, 16), "a file, and more");
  CHECK_OK(close(there.out));
  CHECK_EQ(wait_exit(child), 0);
}

// ---- exec, spawn, passing -------------------------------------------------------------------

PROGRAM(copy_input) {
  echo(0, 1);
  return 0;
}

PROGRAM(copy_some_input) {  // and no more than asked for
  write_all(1, read_exactly(0, size_t(std::stoul(args[0]))));
  return 0;
}

PROGRAM(raw_copy_input) {
  char buffer[1000];
  for (long n; (n = raw_read(0, buffer, sizeof buffer)) > 0;) CHECK_EQ(raw_write(1, buffer, size_t(n)), n);
  return 0;
}

namespace {

// A stage of a pipeline: fork, dup2, exec of a Program, as a shell does it.
pid_t start_stage(const char* program, int in, int out, const std::vector<int>& to_close, std::string argument = "") {
  pid_t pid = CHECK_OK(fork());
  if (pid != 0) return pid;
  CHECK_OK(dup2(in, 0));
  CHECK_OK(dup2(out, 1));
  for (int fd : to_close) close(fd);
  std::string option = std::string("--program=") + program;
  execl("/proc/self/exe", "exe", option.c_str(), argument.empty() ? nullptr : argument.c_str(), nullptr);
  _exit(127);
}

}  // namespace

TEST("a pipeline of programs carries every byte") {
  for (const char* middle : {"copy_input", "raw_copy_input"}) {
    Pipe first, second, last;
    std::vector<int> all = {first.in, first.out, second.in, second.out, last.in, last.out};
    pid_t a = start_stage("copy_input", first.in, second.out, all);
    pid_t b = start_stage(middle, second.in, last.out, all);
    CHECK_OK(close(first.in));
    CHECK_OK(close(second.in));
    CHECK_OK(close(second.out));
    CHECK_OK(close(last.out));
    constexpr uint64_t kTotal = 24 << 20;
    Worker writer([&] {
      CHECK_EQ(write_pattern(first.out, kTotal, 40'000), 0);
      CHECK_OK(close(first.out));
    });
    CHECK_EQ(read_pattern(last.in, kTotal, 50'000), 0);
    CHECK_EQ(read_once(last.in), "");
    writer.join();
    CHECK_EQ(wait_exit(a), 0);
    CHECK_EQ(wait_exit(b), 0);
  }
}

TEST("a program takes up where its predecessor stopped reading") {
  for (const char* next : {"copy_input", "raw_copy_input"}) {
    Pipe p, out;
    pid_t writing = in_child([&] {
      p.keep_writing();
      CHECK_OK(close(out.in));
      CHECK_OK(close(out.out));
      CHECK_EQ(write_pattern(p.out, 200'000, 100), 0);
    });
    CHECK_OK(close(p.out));
    // This process reads some, then a child execs and reads the rest.
    CHECK_EQ(read_pattern(p.in, 5000, 500), 0);
    pid_t rest = start_stage(next, p.in, out.out, {p.in, out.in, out.out});
    CHECK_OK(close(out.out));
    CHECK_OK(close(p.in));
    std::string got = read_to_end(out.in);
    CHECK_EQ(got.size(), 195'000u);
    CHECK_TRUE(matches_pattern(got.data(), got.size(), 5000));
    CHECK_EQ(wait_exit(rest), 0);
    CHECK_EQ(wait_exit(writing), 0);
  }
}

TEST("programs that share their input read on one after the other") {
  Pipe p, out;
  pid_t writing = in_child([&] {
    p.keep_writing();
    CHECK_EQ(write_pattern(p.out, 100'000, 64), 0);
  });
  CHECK_OK(close(p.out));
  std::string got;
  for (int i = 0; i < 20; i++) {
    pid_t stage = start_stage("copy_some_input", p.in, out.out, {p.in, out.in, out.out}, "2500");
    got += read_exactly(out.in, 2500);
    CHECK_EQ(wait_exit(stage), 0);
    char own[2500];
    std::string mine = read_exactly(p.in, sizeof own);
    got += mine;
  }
  CHECK_EQ(got.size(), 100'000u);
  CHECK_TRUE(matches_pattern(got.data(), got.size(), 0));
  CHECK_EQ(wait_exit(writing), 0);
}

TEST("commands by popen, system, posix_spawn and vfork write where they should") {
  Pipe p;
  pid_t child = writer_child(p, [](int fd) {
    CHECK_OK(dup2(fd, 1));
    CHECK_OK(close(fd));
    for (int i = 0; i < 30; i++) {
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
  p.keep_reading();
  for (int i = 0; i < 30; i++) CHECK_EQ(read_exactly(p.in, 6), "abcdef");
  CHECK_EQ(read_once(p.in), "");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("an end goes to another process in a message") {
  Pipe p;
  int channel[2];
  CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  pid_t child = in_child([&] {
    CHECK_OK(close(p.in));
    CHECK_OK(close(p.out));
    char c;
    iovec part{&c, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr m{};
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    CHECK_EQ(recvmsg(channel[1], &m, 0), 1);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    CHECK_EQ(read_to_end(fd), "before after");
  });
  // It has been read from here, between processes.
  CHECK_EQ(wait_exit(in_child([&] { write_all(p.out, "warm before "); })), 0);
  CHECK_EQ(read_exactly(p.in, 5), "warm ");
  char c = '!';
  iovec part{&c, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* h = CMSG_FIRSTHDR(&m);
  *h = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(h), &p.in, sizeof(int));
  CHECK_EQ(sendmsg(channel[0], &m, 0), 1);
  CHECK_OK(close(p.in));
  write_all(p.out, "after");
  CHECK_OK(close(p.out));
  CHECK_EQ(wait_exit(child), 0);
}
