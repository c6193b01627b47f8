// SOCK_SEQPACKET of AF_UNIX, where sockets meet by name: what each call says of records.
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "epoll_set.h"
#include "sockets.h"
#include "unix_messages.h"
#include "unix_records.h"
#include "unix_sockets.h"

using namespace conformance;

// ---- boundaries -----------------------------------------------------------------------------

TEST_EVERYWHERE("records go both ways over a pathname, one for each send") {
  Directory d;
  meet_for_records(where, "s", [](int fd) {
    put(fd, "one");
    put(fd, "two and more");
    put(fd, "3");
    CHECK_EQ(take(fd), "back");
    CHECK_EQ(take(fd), "again");
  }, [](int fd) {
    CHECK_EQ(take(fd), "one");
    CHECK_EQ(take(fd), "two and more");
    CHECK_EQ(take(fd), "3");
    put(fd, "back");
    put(fd, "again");
    CHECK_EQ(take(fd), "");
  });
}

TEST_EVERYWHERE("records of all sizes arrive as they were sent") {
  meet_for_records(where, abstract_name(), [](int fd) { send_records(fd, 3000, 5000); },
                   [](int fd) { receive_records(fd, 3000, 5000); });
}

TEST_EVERYWHERE("long records arrive as they were sent") {
  meet_for_records(where, abstract_name(), [](int fd) { send_records(fd, 300, 200'000); },
                   [](int fd) { receive_records(fd, 300, 200'000); });
}

TEST_EVERYWHERE("the largest record that SO_SNDBUF allows arrives whole, and one byte more is too long") {
  meet_for_records(where, abstract_name(), [](int fd) {
    size_t most = size_t(option(fd, SOL_SOCKET, SO_SNDBUF)) - 32;
    std::string record = pattern(0, most + 1);
    CHECK_ERRNO(send(fd, record.data(), most + 1, 0), EMSGSIZE);
    for (int i = 0; i < 30; ++i) CHECK_EQ(send(fd, record.data(), most, 0), most);
  }, [](int fd) {
    size_t most = size_t(option(fd, SOL_SOCKET, SO_SNDBUF)) - 32;
    for (int i = 0; i < 30; ++i) CHECK_TRUE(take(fd) == pattern(0, most));
    CHECK_EQ(take(fd), "");
  });
}

TEST("SO_SNDBUF moves the limit both ways") {
  UnixPair p = record_pair();
  for (int asked : {4096, 200'000, 50'000}) {
    set_option(p.client, SOL_SOCKET, SO_SNDBUF, asked);
    size_t most = size_t(option(p.client, SOL_SOCKET, SO_SNDBUF)) - 32;
    std::string record = pattern(1, most + 1);
    CHECK_ERRNO(send(p.client, record.data(), most + 1, 0), EMSGSIZE);
    CHECK_EQ(send(p.client, record.data(), most, 0), most);
    CHECK_TRUE(take(p.server) == pattern(1, most));
  }
}

TEST("a sender that may send longer records meanwhile sends them once the first are read") {
  UnixPair p = record_pair();
  for (int i = 0; i < 4; ++i) put(p.client, pattern(i, 700));
  for (int i = 0; i < 3; ++i) put(p.client, pattern(i, 9000));
  set_option(p.client, SOL_SOCKET, SO_SNDBUF, 300'000);
  size_t most = size_t(option(p.client, SOL_SOCKET, SO_SNDBUF)) - 32;
  Worker sender([&] {
    for (int i = 0; i < 3; ++i) put(p.client, pattern(i, most));
  });
  for (int i = 0; i < 4; ++i) CHECK_TRUE(take(p.server) == pattern(i, 700));
  for (int i = 0; i < 3; ++i) CHECK_TRUE(take(p.server) == pattern(i, 9000));
  for (int i = 0; i < 3; ++i) CHECK_TRUE(take(p.server) == pattern(i, most));
  sender.join();
}

TEST_EVERYWHERE("a writer of long records waits for the reader of short ones, each time") {
  constexpr int kRounds = 100, kShort = 400;
  meet_for_records(where, abstract_name(), [](int fd) {
    std::string record = pattern(2, 150'000);
    for (int i = 0; i < kRounds; ++i) {
      put(fd, record);
      for (int k = 0; k < kShort; ++k) put(fd, "abc");
    }
  }, [](int fd) {
    for (int i = 0; i < kRounds; ++i) {
      CHECK_EQ(take(fd).size(), 150'000);
      for (int k = 0; k < kShort; ++k) CHECK_EQ(take(fd), "abc");
    }
    CHECK_EQ(take(fd), "");
  });
}

TEST_EVERYWHERE("a reader that waits is woken for each record") {
  meet_for_records(where, abstract_name(), [](int fd) {
    for (int i = 0; i < 2000; ++i) {
      std::string record = pattern(i, i % 7 == 0 ? 1 : size_t(i) % 3000 + 1);
      put(fd, record);
      CHECK_TRUE(take(fd) == record);
    }
  }, [](int fd) {
    for (int i = 0; i < 2000; ++i) put(fd, take(fd));
  });
}

TEST("threads that send and receive at once find every record whole, once") {
  constexpr int kThreads = 4, kEach = 500;
  UnixPair p = record_pair();
  std::atomic<int> count[kThreads * kEach] = {};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        int number = t * kEach + i;
        put(p.client, std::to_string(number) + ":" + pattern(number, size_t(number) % 4000));
      }
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        std::string record = take(p.server);
        int number = std::stoi(record);
        CHECK_TRUE(record == std::to_string(number) + ":" + pattern(number, size_t(number) % 4000));
        ++count[number];
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (auto& c : count) CHECK_EQ(int(c), 1);
}

// ---- receiving ------------------------------------------------------------------------------

TEST_EVERYWHERE("an empty record is no end") {
  meet_for_records(where, abstract_name(), [](int fd) {
    CHECK_EQ(send(fd, "", 0, 0), 0);
    put(fd, "after");
    CHECK_EQ(write(fd, "", 0), 0);
  }, [](int fd) {
    CHECK_EQ(take(fd), "");
    CHECK_EQ(take(fd), "after");
    CHECK_EQ(take(fd), "");
    CHECK_EQ(take(fd), "");
  });
}

TEST("a vector without bytes sends nothing, and a read of none takes nothing") {
  UnixPair p = record_pair();
  iovec none{nullptr, 0};
  CHECK_EQ(writev(p.client, &none, 1), 0);
  char b;
  CHECK_ERRNO(recv(p.server, &b, 1, MSG_DONTWAIT), EAGAIN);
  put(p.client, "x");
  CHECK_EQ(read(p.server, &b, 0), 0);
  CHECK_EQ(readv(p.server, &none, 1), 0);
  CHECK_EQ(take(p.server), "x");
}

TEST("recv with no room takes a record") {
  UnixPair p = record_pair();
  put(p.client, "one");
  put(p.client, "two");
  CHECK_EQ(recv(p.server, nullptr, 0, 0), 0);
  CHECK_EQ(take(p.server), "two");
}

TEST("what a short read leaves is gone, and MSG_TRUNC says so") {
  UnixPair p = record_pair();
  put(p.client, "hello");
  put(p.client, "world");
  put(p.client, "end");
  Message m = receive(p.server, 3);
  CHECK_EQ(m.bytes, "hel");
  CHECK_EQ(m.flags, MSG_TRUNC);
  m = receive(p.server, 5);
  CHECK_EQ(m.bytes, "world");
  CHECK_EQ(m.flags, 0);
  char b[2];
  CHECK_EQ(recv(p.server, b, 2, MSG_TRUNC), 3);
  CHECK_EQ(std::string(b, 2), "en");
  CHECK_ERRNO(recv(p.server, b, 2, MSG_DONTWAIT), EAGAIN);
}

TEST("peeking takes nothing, and tells the length if asked") {
  UnixPair p = record_pair();
  put(p.client, "hello");
  char b[3];
  CHECK_EQ(recv(p.server, b, 3, MSG_PEEK), 3);
  CHECK_EQ(recv(p.server, b, 3, MSG_PEEK | MSG_TRUNC), 5);
  CHECK_EQ(recv(p.server, nullptr, 0, MSG_PEEK | MSG_TRUNC), 5);
  CHECK_EQ(take(p.server), "hello");
}

TEST("MSG_WAITALL and SO_RCVLOWAT do not reach beyond a record, and MSG_EOR is not told") {
  UnixPair p = record_pair();
  set_option(p.server, SOL_SOCKET, SO_RCVLOWAT, 100);
  CHECK_EQ(send(p.client, "one", 3, MSG_EOR), 3);
  put(p.client, "two");
  CHECK_EQ(ready(p.server, POLLIN), POLLIN);
  char b[100];
  CHECK_EQ(recv(p.server, b, sizeof b, MSG_WAITALL), 3);
  Message m = receive(p.server);
  CHECK_EQ(m.bytes, "two");
  CHECK_EQ(m.flags, 0);
}

TEST("vectors are gathered into one record and scattered from one") {
  UnixPair p = record_pair();
  char a[] = "abc", b[] = "defgh";
  iovec out[3] = {{a, 3}, {nullptr, 0}, {b, 5}};
  CHECK_EQ(writev(p.client, out, 3), 8);
  put(p.client, "next");
  char c[2], e[100];
  iovec in[2] = {{c, 2}, {e, 100}};
  CHECK_EQ(readv(p.server, in, 2), 8);
  CHECK_EQ(std::string(c, 2) + std::string(e, 6), "abcdefgh");
  CHECK_EQ(take(p.server), "next");
}

TEST("there is no urgent data") {
  on_signal(SIGPIPE, count_signal);
  UnixPair p = record_pair();
  char b;
  CHECK_ERRNO(send(p.client, "x", 1, MSG_OOB), EOPNOTSUPP);
  CHECK_ERRNO(recv(p.server, &b, 1, MSG_OOB), EOPNOTSUPP);
  close(p.server);
  CHECK_ERRNO(send(p.client, "x", 1, MSG_OOB), EOPNOTSUPP);
  CHECK_EQ(int(signals_seen), 0);
}

TEST("an address to send to is ignored, and the sender's is told, of an empty record too") {
  Directory d;
  UnixPair p = record_pair("s");
  UnixAddress elsewhere("nowhere");
  CHECK_EQ(sendto(p.server, "x", 1, 0, elsewhere.get(), elsewhere.size), 1);
  CHECK_EQ(send(p.server, "", 0, 0), 0);
  CHECK_OK(shutdown(p.server, SHUT_WR));
  char b;
  for (int n : {1, 0}) {
    UnixAddress a;
    CHECK_EQ(recvfrom(p.client, &b, 1, 0, a.get(), &a.size), n);
    CHECK_EQ(a.name(), "s");
  }
  UnixAddress a;
  CHECK_EQ(recvfrom(p.client, &b, 1, 0, a.get(), &a.size), 0);
  CHECK_EQ(a.size, 0);
  put(p.client, "y");
  UnixAddress unnamed;
  CHECK_EQ(recvfrom(p.server, &b, 1, 0, unnamed.get(), &unnamed.size), 1);
  CHECK_EQ(unnamed.size, 0);
}

TEST("several messages in one call, empty ones among them, and the end") {
  UnixPair p = record_pair();
  char text[] = "abcdef";
  iovec out[3] = {{text, 6}, {text, 0}, {text, 2}};
  mmsghdr m[3] = {};
  for (int i = 0; i < 3; ++i) m[i].msg_hdr.msg_iov = &out[i], m[i].msg_hdr.msg_iovlen = 1;
  CHECK_EQ(sendmmsg(p.client, m, 3, 0), 3);
  CHECK_EQ(m[0].msg_len + 10 * m[1].msg_len + 100 * m[2].msg_len, 206);
  char room[4][4];
  iovec in[4];
  mmsghdr got[4] = {};
  for (int i = 0; i < 4; ++i) in[i] = {room[i], 4}, got[i].msg_hdr.msg_iov = &in[i], got[i].msg_hdr.msg_iovlen = 1;
  CHECK_EQ(recvmmsg(p.server, got, 4, MSG_DONTWAIT, nullptr), 3);
  CHECK_EQ(got[0].msg_len, 4);
  CHECK_EQ(got[0].msg_hdr.msg_flags, MSG_TRUNC);
  CHECK_EQ(got[1].msg_len, 0);
  CHECK_EQ(got[2].msg_len, 2);
  CHECK_OK(shutdown(p.client, SHUT_WR));
  CHECK_EQ(recvmmsg(p.server, got, 4, 0, nullptr), 4);
}

TEST("a bad pointer sends nothing, and takes the record that it was for") {
  UnixPair p = record_pair();
  char* bad = reinterpret_cast<char*>(8);
  CHECK_ERRNO(send(p.client, bad, 5, 0), EFAULT);
  put(p.client, "one");
  put(p.client, "two");
  CHECK_ERRNO(recv(p.server, bad, 3, 0), EFAULT);
  CHECK_EQ(take(p.server), "two");
}

// ---- how much there is ------------------------------------------------------------------------

TEST("FIONREAD counts the bytes of all records, SIOCOUTQ says whether some are unread") {
  UnixPair p = record_pair();
  int n = -1;
  CHECK_EQ(send(p.client, "", 0, 0), 0);
  CHECK_EQ(unread(p.server), 0);
  CHECK_EQ(ready(p.server, POLLIN), POLLIN);
  put(p.client, "hello");
  put(p.client, pattern(0, 20'000));
  put(p.client, "abc");
  CHECK_EQ(unread(p.server), 20'008);
  CHECK_OK(ioctl(p.client, SIOCOUTQ, &n));
  CHECK_TRUE(n > 0);
  for (int left : {20'008, 20'003, 3, 0}) {
    take(p.server);
    CHECK_EQ(unread(p.server), left);
  }
  CHECK_OK(ioctl(p.client, SIOCOUTQ, &n));
  CHECK_EQ(n, 0);
}

TEST("who does not wait is told when there is no space, and poll when there is again") {
  UnixPair p = record_pair();
  set_nonblocking(p.client);
  std::string record = pattern(3, 10'000);
  int sent = 0;
  while (send(p.client, record.data(), record.size(), 0) > 0) ++sent;
  CHECK_EQ(errno, EAGAIN);
  CHECK_TRUE(sent > 4);
  CHECK_EQ(ready(p.client, POLLOUT), 0);
  EpollSet set;
  set.add(p.client, EPOLLOUT | EPOLLET);
  CHECK_EQ(set.wait_one(p.client, 0), 0);
  for (int i = 0; i < sent; ++i) CHECK_TRUE(take(p.server) == record);
  CHECK_EQ(set.wait_one(p.client), EPOLLOUT);
  // What poll promises holds for any record.
  std::string largest = pattern(4, size_t(option(p.client, SOL_SOCKET, SO_SNDBUF)) - 32);
  CHECK_EQ(send(p.client, largest.data(), largest.size(), 0), largest.size());
}

TEST_EVERYWHERE("a sender that polls for space sends records of any size") {
  meet_for_records(where, abstract_name(), [](int fd) {
    set_nonblocking(fd);
    for (int i = 0; i < 400; ++i) {
      std::string record = pattern(i, record_size(i, 200'000));
      while (send(fd, record.data(), record.size(), 0) < 0) {
        CHECK_EQ(errno, EAGAIN);
        CHECK_EQ(await(fd, POLLOUT), POLLOUT);
      }
    }
  }, [](int fd) { receive_records(fd, 400, 200'000); });
}

TEST("an edge for each record, and none without") {
  UnixPair p = record_pair();
  EpollSet set;
  set.add(p.server, EPOLLIN | EPOLLET);
  for (int i = 0; i < 5; ++i) {
    i == 2 ? CHECK_EQ(send(p.client, "", 0, 0), 0) : put(p.client, "x");
    CHECK_EQ(set.wait_one(p.server), EPOLLIN);
    CHECK_EQ(set.wait_one(p.server, 0), 0);
  }
  for (int i = 0; i < 5; ++i) take(p.server);
  set.modify(p.server, EPOLLIN);
  CHECK_EQ(set.wait_one(p.server, 0), 0);
  put(p.client, "x");
  put(p.client, "y");
  CHECK_EQ(set.wait_one(p.server), EPOLLIN);
  take(p.server);
  CHECK_EQ(set.wait_one(p.server), EPOLLIN);
  take(p.server);
  CHECK_EQ(set.wait_one(p.server, 0), 0);
}

// ---- splice and sendfile ----------------------------------------------------------------------

TEST("splice moves one record at a time, and cuts it") {
  UnixPair p = record_pair();
  int pipe_ends[2];
  CHECK_OK(pipe2(pipe_ends, 0));
  put(p.client, "hello");
  put(p.client, "world");
  CHECK_EQ(send(p.client, "", 0, 0), 0);
  CHECK_EQ(splice(p.server, nullptr, pipe_ends[1], nullptr, 3, 0), 3);
  CHECK_EQ(splice(p.server, nullptr, pipe_ends[1], nullptr, 100, 0), 5);
  CHECK_EQ(read_exactly(pipe_ends[0], 8), "helworld");
  CHECK_EQ(splice(p.server, nullptr, pipe_ends[1], nullptr, 100, 0), 0);
  set_nonblocking(p.server);
  CHECK_ERRNO(splice(p.server, nullptr, pipe_ends[1], nullptr, 100, 0), EAGAIN);
}

TEST("what splice finds in a pipe is a record, and a block of a file too") {
  UnixPair p = record_pair();
  int pipe_ends[2];
  CHECK_OK(pipe2(pipe_ends, 0));
  write_all(pipe_ends[1], "abc");
  write_all(pipe_ends[1], "def");
  CHECK_EQ(splice(pipe_ends[0], nullptr, p.client, nullptr, 100, 0), 6);
  CHECK_EQ(take(p.server), "abcdef");
  Directory d;
  int file = CHECK_OK(open("file", O_CREAT | O_RDWR, 0600));
  std::string content = pattern(5, 100'000);
  write_all(file, content);
  off_t offset = 0;
  CHECK_EQ(sendfile(p.client, file, &offset, 1 << 20), 100'000);
  CHECK_TRUE(take(p.server) == content.substr(0, 65'536));
  CHECK_TRUE(take(p.server) == content.substr(65'536));
}

// ---- ancillary data ---------------------------------------------------------------------------

TEST_EVERYWHERE("descriptors travel with their record, empty ones too") {
  meet_for_records(where, abstract_name(), [](int fd) {
    put(fd, "before");
    send_with(fd, "with", {Word("one").out, Word("two").out});
    put(fd, "between");
    Word three("three");
    CHECK_EQ(try_send(fd, "", {three.out}), 0);
    put(fd, "after");
    CHECK_EQ(take(fd), "");
  }, [](int fd) {
    Message m = receive(fd);
    CHECK_EQ(m.bytes, "before");
    CHECK_EQ(m.fds.size(), 0);
    m = receive(fd, 2);
    CHECK_EQ(m.bytes, "wi");
    CHECK_EQ(m.flags, MSG_TRUNC);
    CHECK_EQ(m.fds.size(), 2);
    CHECK_EQ(word_in(m.fds[0]) + word_in(m.fds[1]), "onetwo");
    CHECK_EQ(receive(fd).bytes, "between");
    m = receive(fd, 100, MSG_PEEK);
    CHECK_EQ(m.fds.size(), 1);
    close(m.fds[0]);
    m = receive(fd);
    CHECK_EQ(m.bytes, "");
    CHECK_EQ(m.fds.size(), 1);
    CHECK_EQ(word_in(m.fds[0]), "three");
    m = receive(fd);
    CHECK_EQ(m.bytes, "after");
    CHECK_EQ(m.fds.size(), 0);
  });
}

TEST_EVERYWHERE("each of many records keeps its descriptor") {
  meet_for_records(where, abstract_name(), [](int fd) {
    for (int i = 0; i < 300; ++i) {
      put(fd, pattern(i, size_t(i)));
      Word w(std::to_string(i));
      send_with(fd, pattern(i, size_t(i) * 7), {w.out});
      close(w.out);
      close(w.in);
    }
    CHECK_EQ(take(fd), "");
  }, [](int fd) {
    for (int i = 0; i < 300; ++i) {
      CHECK_TRUE(take(fd) == pattern(i, size_t(i)));
      Message m = receive(fd, 10'000);
      CHECK_TRUE(m.bytes == pattern(i, size_t(i) * 7));
      CHECK_EQ(m.fds.size(), 1);
      CHECK_EQ(word_in(m.fds[0]), std::to_string(i));
      close(m.fds[0]);
    }
  });
}

TEST("a plain read and a bad pointer drop descriptors, and what cannot be passed sends nothing") {
  UnixPair p = record_pair();
  Word w("x");
  send_with(p.client, "warm up", {w.out});  // whatever that opens stays open
  CHECK_EQ(take(p.server), "warm up");
  int before = open_descriptors();
  send_with(p.client, "one", {w.out, w.in});
  CHECK_EQ(take(p.server), "one");
  send_with(p.client, "two", {w.out});
  CHECK_ERRNO(recv(p.server, reinterpret_cast<char*>(8), 3, 0), EFAULT);
  CHECK_EQ(open_descriptors(), before);
  CHECK_ERRNO(try_send(p.client, "x", {999}), EBADF);
  char b;
  CHECK_ERRNO(recv(p.server, &b, 1, MSG_DONTWAIT), EAGAIN);
}

TEST_EVERYWHERE("SO_PASSCRED tells who sends, with an empty record too, and nothing with the end") {
  Turns turns;
  pid_t parent = getpid();
  meet_for_records(where, abstract_name(), [&](int fd) {
    turns.await(0);
    put(fd, "plain");
    CHECK_EQ(send(fd, "", 0, 0), 0);
    ucred me{getpid(), getuid(), getgid()};
    CHECK_EQ(try_send(fd, "said", {}, 0, &me), 4);
  }, [&](int fd) {
    set_option(fd, SOL_SOCKET, SO_PASSCRED, 1);
    turns.give(0);
    for (const char* text : {"plain", "", "said"}) {
      Message m = receive(fd);
      CHECK_EQ(m.bytes, text);
      CHECK_EQ(m.credentials.size(), 1);
      CHECK_EQ(m.credentials[0].uid, getuid());
      if (where == Where::kPeerConnects) CHECK_TRUE(m.credentials[0].pid != parent);
    }
    Message end = receive(fd);
    CHECK_EQ(end.bytes, "");
    CHECK_EQ(end.credentials.size(), 0);
  });
}
