// pthread_cancel(3) and calls on connections.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

// A thread that can be cancelled in `body`.
class Victim {
 public:
  explicit Victim(std::function<void()> body) : body_(std::move(body)) {
    CHECK_EQ(pthread_create(&thread_, nullptr, run, this), 0);
    eventually([this] { return id_ != 0; });
  }
  void await_sleep() const { conformance::await_sleep(id_); }
  void cancel() const { CHECK_EQ(pthread_cancel(thread_), 0); }
  bool was_cancelled() const {
    void* result;
    CHECK_EQ(pthread_join(thread_, &result), 0);
    return result == PTHREAD_CANCELED;
  }
  void end() const {
    await_sleep();
    cancel();
    CHECK_TRUE(was_cancelled());
  }

 private:
  static void* run(void* self) {
    auto* v = static_cast<Victim*>(self);
    v->id_ = thread_id();
    v->body_();
    return nullptr;
  }
  std::function<void()> body_;
  std::atomic<pid_t> id_{0};
  pthread_t thread_;
};

void check_works(int fd, Peer& peer) {
  write_all(fd, "ping");
  CHECK_EQ(peer.receive(4), "ping");
  peer.send("pong");
  CHECK_EQ(read_exactly(fd, 4), "pong");
}

}  // namespace

TEST_EVERYWHERE("a thread is cancelled in every call that waits for bytes") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  iovec iov{&byte, 1};
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  int ends[2];
  CHECK_OK(pipe(ends));
  Victim([&, fd = fd] { (void)!read(fd, &byte, 1); }).end();
  Victim([&, fd = fd] { (void)!readv(fd, &iov, 1); }).end();
  Victim([&, fd = fd] { recv(fd, &byte, 1, MSG_WAITALL); }).end();
  Victim([&, fd = fd] { recvfrom(fd, &byte, 1, 0, nullptr, nullptr); }).end();
  Victim([&, fd = fd] { recvmsg(fd, &message, 0); }).end();
  Victim([&, fd = fd] { (void)!splice(fd, nullptr, ends[1], nullptr, 1, 0); }).end();
  check_works(fd, peer);
}

TEST_EVERYWHERE("a thread is cancelled while it waits for space") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t filled = fill(fd);
  set_nonblocking(fd, false);
  std::string block(1 << 20, 'x');
  Victim([&, fd = fd] { (void)!write(fd, block.data(), block.size()); }).end();
  peer.start_receiving(filled, 65536);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("a thread is cancelled in poll, select and epoll_wait") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, EPOLLIN);
  timespec minute{60, 0};
  epoll_event event;
  pollfd p{fd, POLLIN, 0};
  Victim([&] { poll(&p, 1, -1); }).end();
  Victim([&] { poll(&p, 1, 60'000); }).end();
  Victim([&] { ppoll(&p, 1, &minute, nullptr); }).end();
  Victim([&, fd = fd] {
    fd_set read_set;
    FD_ZERO(&read_set);
    FD_SET(fd, &read_set);
    select(fd + 1, &read_set, nullptr, nullptr, nullptr);
  }).end();
  Victim([&] { epoll_wait(set.fd, &event, 1, -1); }).end();
  Victim([&] { epoll_pwait(set.fd, &event, 1, 60'000, nullptr); }).end();
  check_works(fd, peer);
}

TEST_EVERYWHERE("of two threads in one epoll_wait the cancelled one ends") {
  auto [fd, peer] = connect_peer(where);
  EpollSet set;
  set.add(fd, EPOLLIN);
  auto wait = [&] {
    epoll_event event;
    CHECK_EQ(epoll_wait(set.fd, &event, 1, -1), 1);
  };
  for (int i = 0; i < 20; i++) {
    Victim first(wait), second(wait);
    first.await_sleep();
    second.await_sleep();
    const Victim& doomed = i % 2 ? first : second;
    const Victim& other = i % 2 ? second : first;
    doomed.cancel();
    CHECK_TRUE(doomed.was_cancelled());
    peer.send("x");
    CHECK_TRUE(!other.was_cancelled());
    CHECK_EQ(read_once(fd), "x");
  }
}

TEST_EVERYWHERE("who does not let himself be cancelled reads on") {
  auto [fd, peer] = connect_peer(where);
  Victim v([fd = fd] {
    int state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    CHECK_EQ(read_exactly(fd, 2), "ab");
    pthread_setcancelstate(state, nullptr);
    char byte;
    (void)!read(fd, &byte, 1);  // here
    CHECK_TRUE(false);
  });
  v.await_sleep();
  v.cancel();
  v.await_sleep();
  peer.send("ab");
  CHECK_TRUE(v.was_cancelled());
  check_works(fd, peer);
}

TEST_EVERYWHERE("a thread cancelled while it computes ends at its next call, which takes nothing") {
  auto [fd, peer] = connect_peer(where);
  std::atomic<bool> go{false};
  Victim v([&, fd = fd] {
    while (!go) {
    }
    (void)read_once(fd);
  });
  peer.send("kept");
  await(fd, POLLIN);
  v.cancel();
  go = true;
  CHECK_TRUE(v.was_cancelled());
  CHECK_EQ(read_exactly(fd, 4), "kept");
}

TEST_EVERYWHERE("a thread cancels itself") {
  auto [fd, peer] = connect_peer(where);
  Victim v([fd = fd] {
    pthread_cancel(pthread_self());
    char byte;
    (void)!read(fd, &byte, 1);
  });
  CHECK_TRUE(v.was_cancelled());
  check_works(fd, peer);
}

TEST_EVERYWHERE("cleanup handlers of a cancelled thread use the connection") {
  auto [fd, peer] = connect_peer(where);
  static int connection;
  connection = fd;
  Victim v([] {
    pthread_cleanup_push([](void*) { write_all(connection, "bye"); }, nullptr);
    char byte;
    (void)!read(connection, &byte, 1);
    pthread_cleanup_pop(0);
  });
  v.end();
  CHECK_EQ(peer.receive(3), "bye");
}

TEST("threads are cancelled at any moment and leave nothing locked") {
  Listener listener = make_listener();
  for (int round = 0; round < 300; round++) {
    Pair pair = make_pair(listener);
    set_nonblocking(pair.client);
    Victim v([&] {
      for (;;) {
        char text[64];
        pollfd p{pair.server, POLLIN, 0};
        poll(&p, 1, -1);
        (void)!read(pair.server, text, sizeof text);
        set_option(pair.server, SOL_SOCKET, SO_KEEPALIVE, 1);
        (void)!write(pair.server, "answer", 6);
      }
    });
    for (int i = 0; i < round % 40; i++) (void)!write(pair.client, "x", 1);
    v.cancel();
    CHECK_TRUE(v.was_cancelled());
    set_nonblocking(pair.client, false);
    write_all(pair.server, "!");
    while (read_once(pair.client).back() != '!') {
    }
    close(pair.client);
    close(pair.server);
  }
}
