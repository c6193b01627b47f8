// Blocking calls meet signals, other threads and cancellation.
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

void set_timeout(int fd, int name, int ms) {
  timeval time{ms / 1000, ms % 1000 * 1000};
  CHECK_OK(setsockopt(fd, SOL_SOCKET, name, &time, sizeof time));
}

// Signals a sleeping worker until its handler has run `times` more times.
void pester(Worker& worker, int number, int times) {
  for (int i = 0; i < times; i++) {
    worker.await_sleep();
    int before = signals_seen;
    worker.signal(number);
    eventually([before] { return signals_seen > before; });
  }
}

}  // namespace

TEST_EVERYWHERE("a signal without SA_RESTART interrupts a blocked recv") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] {
    char byte;
    CHECK_ERRNO(recv(fd, &byte, 1, 0), EINTR);
  });
  reader.await_sleep();
  reader.signal_until_done(SIGUSR1);
  peer.send("x");
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("a signal with SA_RESTART does not interrupt a blocked recv") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_once(fd), "x"); });
  pester(reader, SIGUSR1, 5);
  peer.send("x");
}

TEST_EVERYWHERE("a signal interrupts a blocked write, which tells what it wrote") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  std::string bytes(64 << 20, 0);
  fill_pattern(bytes.data(), bytes.size(), 0);
  ssize_t written = 0;
  Worker writer([&, fd = fd] { written = write(fd, bytes.data(), bytes.size()); });
  writer.await_sleep();
  writer.signal_until_done(SIGUSR1);
  CHECK_TRUE(written > 0 && written < static_cast<ssize_t>(bytes.size()));
  peer.start_receiving(written, 65'536);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("a signal interrupts a write that could not begin") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  fill(fd);
  set_nonblocking(fd, false);
  Worker writer([fd = fd] { CHECK_ERRNO(write(fd, "x", 1), EINTR); });
  writer.await_sleep();
  writer.signal_until_done(SIGUSR1);
}

TEST_EVERYWHERE("a signal with SA_RESTART lets a blocked write that had not begun go on") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd);
  set_nonblocking(fd, false);
  char next;
  fill_pattern(&next, 1, sent);
  Worker writer([&, fd = fd] { CHECK_EQ(write(fd, &next, 1), 1); });
  pester(writer, SIGUSR1, 3);
  peer.start_receiving(sent + 1, 65'536);
  CHECK_EQ(peer.finish(), 0);
}

TEST("a signal interrupts accept without SA_RESTART") {
  on_signal(SIGUSR1, count_signal);
  Listener listener = make_listener();
  Worker acceptor([&] { CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EINTR); });
  acceptor.await_sleep();
  acceptor.signal_until_done(SIGUSR1);
  make_pair(listener);
}

TEST("a signal with SA_RESTART does not interrupt accept") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  Listener listener = make_listener();
  Worker acceptor([&] { CHECK_OK(accept(listener.fd, nullptr, nullptr)); });
  pester(acceptor, SIGUSR1, 3);
  connect_to(listener.port);
}

TEST_EVERYWHERE("with SO_RCVTIMEO a signal interrupts even with SA_RESTART") {
  on_signal(SIGUSR1, count_signal, SA_RESTART);
  auto [fd, peer] = connect_peer(where);
  set_timeout(fd, SO_RCVTIMEO, 600'000);
  Worker reader([fd = fd] {
    char byte;
    CHECK_ERRNO(recv(fd, &byte, 1, 0), EINTR);
  });
  reader.await_sleep();
  reader.signal_until_done(SIGUSR1);
}

TEST_EVERYWHERE("MSG_WAITALL interrupted gives what it has") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  peer.send("abc");
  Worker reader([fd = fd] {
    char buffer[10];
    CHECK_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 3);
  });
  eventually([fd = fd] { return unread(fd) == 0; });
  reader.await_sleep();
  reader.signal_until_done(SIGUSR1);
}

TEST_EVERYWHERE("an ignored signal interrupts nothing") {
  on_signal(SIGUSR1, SIG_IGN);
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_once(fd), "x"); });
  for (int i = 0; i < 5; i++) {
    reader.await_sleep();
    reader.signal(SIGUSR1);
  }
  peer.send("x");
}

TEST_EVERYWHERE("2,000 signals sent while it is about to sleep are all taken") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  std::atomic<int> interrupted{0};
  Worker reader([&, fd = fd] {
    char byte;
    while (recv(fd, &byte, 1, 0) < 0) {
      CHECK_EQ(errno, EINTR);
      interrupted++;
    }
  });
  for (int i = 0; i < 2'000; i++) {
    int before = signals_seen;
    reader.signal(SIGUSR1);
    while (signals_seen == before) sched_yield();
  }
  peer.send("x");
  reader.join();
  CHECK_TRUE(interrupted > 0);
}

TEST_EVERYWHERE("2,000 bytes and signals race, no byte is lost and nobody sleeps for ever") {
  on_signal(SIGUSR1, count_signal);
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  std::atomic<bool> stop{false};
  Worker reader([&, fd = fd] {
    EpollSet set;
    set.add(fd, EPOLLIN | EPOLLET);
    for (int i = 0; i < 2'000; i++) {
      char byte = i;
      while (write(fd, &byte, 1) < 0) CHECK_EQ(errno, EINTR);
      epoll_event event;
      while (epoll_wait(set.fd, &event, 1, -1) < 0) CHECK_EQ(errno, EINTR);
      while (read(fd, &byte, 1) < 0) CHECK_EQ(errno, EINTR);
      CHECK_EQ(int(byte), int(static_cast<char>(i)));
    }
    stop = true;
  });
  while (!stop) {
    reader.signal(SIGUSR1);
    for (int i = 0; i < 50; i++) sched_yield();
  }
}

TEST("another process's signals and a self-pipe wake an event loop each time") {
  static int self_pipe[2];
  CHECK_OK(pipe(self_pipe));
  on_signal(
      SIGUSR1, [](int) { (void)!write(self_pipe[1], "!", 1); }, SA_RESTART);
  auto [client, server] = make_pair();
  EpollSet set;
  set.add(server, EPOLLIN);
  set.add(self_pipe[0], EPOLLIN);
  int go[2];
  CHECK_OK(pipe(go));
  pid_t parent = getpid(), child = in_child([&] {
                             for (char byte; read(go[0], &byte, 1) == 1 && byte == '+';)
                               CHECK_OK(kill(parent, SIGUSR1));
                           });
  for (int i = 0; i < 500; i++) {
    write_all(go[1], "+");
    epoll_event event;
    while (epoll_wait(set.fd, &event, 1, -1) < 0) CHECK_EQ(errno, EINTR);
    CHECK_EQ(event.data.fd, self_pipe[0]);
    CHECK_EQ(read_once(self_pipe[0], 1), "!");
  }
  write_all(go[1], ".");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a handler may use connections itself") {
  static Pair beside;
  beside = make_pair();
  on_signal(
      SIGUSR1,
      [](int) {
        char byte;
        (void)!write(beside.client, "h", 1);
        (void)!read(beside.server, &byte, 1);
        signals_seen++;
      },
      SA_RESTART);
  Connection connection = connect_peer(Where::kSameProcess);
  connection.peer.start_echo();
  Worker talker([&] {
    for (int i = 0; i < 1'000 || signals_seen < 100; i++) {
      write_all(connection.fd, "ping");
      CHECK_EQ(read_exactly(connection.fd, 4), "ping");
    }
  });
  talker.signal_until_done(SIGUSR1);
}

TEST("a handler may leave a blocked recv by siglongjmp") {
  static sigjmp_buf back;
  auto [client, server] = make_pair();
  on_signal(SIGALRM, [](int) { siglongjmp(back, 1); });
  static int rounds = 0;
  if (sigsetjmp(back, 1) >= 0 && rounds++ < 5) {
    ualarm(20'000, 0);
    char byte;
    (void)!recv(server, &byte, 1, 0);
    CHECK_TRUE(!"recv returned");
  }
  write_all(client, "x");
  CHECK_EQ(read_once(server), "x");
}

TEST_EVERYWHERE("one thread reads and another writes the same socket") {
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  Worker writer([fd = fd] { CHECK_EQ(send_pattern(fd, 8 << 20, 12'345), 0); });
  Worker reader([fd = fd] { CHECK_EQ(receive_pattern(fd, 8 << 20, 54'321), 0); });
}

TEST_EVERYWHERE("a blocked recv does not stop a send on the same socket") {
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_exactly(fd, 4), "pong"); });
  reader.await_sleep();
  write_all(fd, "ping");
  CHECK_EQ(peer.receive(4), "ping");
  peer.send("pong");
}

TEST_EVERYWHERE("four writers lose nothing, and small writes stay whole") {
  auto [fd, peer] = connect_peer(where);
  constexpr int kRounds = 2'000;
  peer.start_echo();
  std::vector<std::unique_ptr<Worker>> writers;
  for (char letter : {'a', 'b', 'c', 'd'})
    writers.push_back(std::make_unique<Worker>([fd = fd, letter] {
      std::string word(16, letter);
      for (int i = 0; i < kRounds; i++) CHECK_EQ(write(fd, word.data(), 16), 16);
    }));
  int counts[4] = {};
  for (int i = 0; i < 4 * kRounds; i++) {
    std::string word = read_exactly(fd, 16);
    CHECK_EQ(word, std::string(16, word[0]));
    counts[word[0] - 'a']++;
  }
  for (int count : counts) CHECK_EQ(count, kRounds);
}

TEST_EVERYWHERE("four readers get every byte once") {
  auto [fd, peer] = connect_peer(where);
  constexpr uint64_t kTotal = 4 << 20;
  std::atomic<uint64_t> bytes{0}, sum{0};
  auto take = [&, fd = fd] {
    for (std::string piece; !(piece = read_once(fd, 3'001)).empty();) {
      uint64_t part = 0;
      for (unsigned char c : piece) part += c;
      sum += part;
      bytes += piece.size();
    }
  };
  {
    Worker a(take), b(take), c(take), d(take);
    peer.start_sending(kTotal, 5'003);
    CHECK_EQ(peer.finish(), 0);
    peer.shutdown(SHUT_WR);
  }
  CHECK_EQ(bytes, kTotal);
  std::string sent(kTotal, 0);
  fill_pattern(sent.data(), sent.size(), 0);
  uint64_t expected = 0;
  for (unsigned char c : sent) expected += c;
  CHECK_EQ(sum, expected);
}

TEST_EVERYWHERE("shutdown in another thread wakes a blocked recv") {
  auto [fd, peer] = connect_peer(where);
  Worker reader([fd = fd] { CHECK_EQ(read_once(fd), ""); });
  reader.await_sleep();
  CHECK_OK(shutdown(fd, SHUT_RD));
}

TEST_EVERYWHERE("shutdown in another thread wakes a blocked write") {
  on_signal(SIGPIPE, SIG_IGN);
  auto [fd, peer] = connect_peer(where);
  Worker writer([fd = fd] { CHECK_EQ(send_pattern(fd, 1ull << 40, 65'536), -EPIPE); });
  writer.await_sleep();
  CHECK_OK(shutdown(fd, SHUT_WR));
}

TEST("shutdown in another thread wakes a blocked accept") {
  Listener listener = make_listener();
  Worker acceptor([&] { CHECK_ERRNO(accept(listener.fd, nullptr, nullptr), EINVAL); });
  acceptor.await_sleep();
  CHECK_OK(shutdown(listener.fd, SHUT_RDWR));
}

TEST("two threads accept on one listener") {
  Listener listener = make_listener();
  std::atomic<int> served{0};
  auto serve = [&] {
    for (int fd; (fd = accept(listener.fd, nullptr, nullptr)) >= 0; served++) {
      write_all(fd, read_once(fd));
      CHECK_OK(close(fd));
    }
  };
  Worker first(serve), second(serve);
  for (int i = 0; i < 100; i++) {
    int client = connect_to(listener.port);
    write_all(client, "x");
    CHECK_EQ(read_to_end(client), "x");
    CHECK_OK(close(client));
  }
  CHECK_OK(shutdown(listener.fd, SHUT_RDWR));
  first.join();
  second.join();
  CHECK_EQ(served, 100);
}

TEST("pthread_cancel ends a blocked recv and lets the socket live") {
  auto [client, server] = make_pair();
  static int fd;
  fd = server;
  static std::atomic<pid_t> id;
  pthread_t reader;
  CHECK_EQ(pthread_create(
               &reader, nullptr,
               [](void*) -> void* {
                 id = thread_id();
                 char byte;
                 (void)!recv(fd, &byte, 1, 0);
                 return nullptr;
               },
               nullptr),
           0);
  eventually([] { return id != 0; });
  await_sleep(id);
  CHECK_EQ(pthread_cancel(reader), 0);
  void* result;
  CHECK_EQ(pthread_join(reader, &result), 0);
  CHECK_TRUE(result == PTHREAD_CANCELED);
  write_all(client, "x");
  CHECK_EQ(read_once(server), "x");
}

TEST("pthread_cancel ends epoll_wait and accept") {
  auto [client, server] = make_pair();
  static EpollSet set;
  set.add(server, EPOLLIN);
  static int listener_fd;
  listener_fd = make_listener().fd;
  static std::atomic<pid_t> id;
  auto cancel = [](void* (*body)(void*)) {
    id = 0;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, nullptr, body, nullptr), 0);
    eventually([] { return id != 0; });
    await_sleep(id);
    CHECK_EQ(pthread_cancel(thread), 0);
    void* result;
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK_TRUE(result == PTHREAD_CANCELED);
  };
  cancel([](void*) -> void* {
    id = thread_id();
    epoll_event event;
    epoll_wait(set.fd, &event, 1, -1);
    return nullptr;
  });
  cancel([](void*) -> void* {
    id = thread_id();
    accept(listener_fd, nullptr, nullptr);
    return nullptr;
  });
  write_all(client, "x");
  CHECK_EQ(set.wait_one(server), EPOLLIN);
}

TEST("16 threads each talk over a connection of their own") {
  Listener listener = make_listener();
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 16; i++) {
    Pair pair = make_pair(listener);
    workers.push_back(std::make_unique<Worker>([pair, i] {
      for (int round = 0; round < 200; round++) {
        std::string word = std::to_string(i) + ":" + std::to_string(round);
        write_all(pair.client, word);
        CHECK_EQ(read_exactly(pair.server, word.size()), word);
      }
    }));
  }
}

TEST("threads connect, talk and close all at once") {
  Listener listener = make_listener();
  auto churn = [&] {
    for (int i = 0; i < 100; i++) {
      int fd = connect_to(listener.port);
      write_all(fd, "ping");
      CHECK_EQ(read_to_end(fd), "ping");
      CHECK_OK(close(fd));
    }
  };
  Worker a(churn), b(churn), c(churn), d(churn);
  for (int i = 0; i < 400; i++) {
    int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
    write_all(fd, read_exactly(fd, 4));
    CHECK_OK(close(fd));
  }
}

TEST("one thread accepts, another serves with a set of its own") {
  Listener listener = make_listener();
  EpollSet set;
  std::atomic<int> served{0};
  Worker server([&] {
    while (served < 100)
      for (auto [fd, events] : set.wait(50)) {
        write_all(fd, read_once(fd));
        CHECK_OK(close(fd));
        served++;
      }
  });
  Worker acceptor([&] {
    for (int i = 0; i < 100; i++) set.add(accept(listener.fd, nullptr, nullptr), EPOLLIN);
  });
  for (int i = 0; i < 100; i++) {
    int client = connect_to(listener.port);
    write_all(client, "x");
    CHECK_EQ(read_to_end(client), "x");
    CHECK_OK(close(client));
  }
}

TEST("a connection made in a thread outlives it") {
  Listener listener = make_listener();
  Pair pair{};
  Worker([&] { pair = make_pair(listener); }).join();
  write_all(pair.client, "hello");
  CHECK_EQ(read_exactly(pair.server, 5), "hello");
}
