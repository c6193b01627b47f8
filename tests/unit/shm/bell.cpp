#include "shm/bell.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <catch2/catch.hpp>
#include <utility>

namespace sluice::shm {
namespace {

struct Bell {
  int ends[2];
  Bell() {
    REQUIRE(socketpair(AF_UNIX, kBellType | SOCK_CLOEXEC, 0, ends) == 0);
    init_bell(ends);
  }
  ~Bell() {
    close(ends[0]);
    close(ends[1]);
  }
  int hearing() const { return ends[0]; }
  int ringing() const { return ends[1]; }
};

// Edge-triggered, as the shim listens.
class Listener {
 public:
  explicit Listener(const Bell& bell) : set_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event e{EPOLLIN | EPOLLRDHUP | EPOLLET, {}};
    REQUIRE(epoll_ctl(set_, EPOLL_CTL_ADD, bell.hearing(), &e) == 0);
    (void)hears();  // it begins rung
  }
  ~Listener() { close(set_); }
  bool hears() const {
    epoll_event e;
    return epoll_wait(set_, &e, 1, 0) == 1;
  }

 private:
  int set_;
};

TEST_CASE("everybody who listens hears every ring, and nobody resets the bell") {
  Bell bell;
  Listener one(bell), other(bell);
  for (int i = 0; i < 3; ++i) {
    ring_bell(bell.ringing());
    CHECK(one.hears());
    CHECK_FALSE(one.hears());
    CHECK(other.hears());
  }
}

TEST_CASE("a bell rings whatever another one who has it did to it") {
  Bell bell;
  Listener listener(bell);
  int hostile = dup(bell.ringing());  // the same open file
  const char bytes[4096] = {};
  SECTION("made it blocking and tried to fill it") {
    fcntl(hostile, F_SETFL, 0);
    CHECK(send(hostile, bytes, sizeof bytes, MSG_NOSIGNAL) == -1);
    CHECK(errno == EPIPE);
  }
  SECTION("shut both directions") { shutdown(hostile, SHUT_RDWR); }
  SECTION("tried to connect it elsewhere") {
    sockaddr none{AF_UNSPEC, {}};
    CHECK(connect(hostile, &none, sizeof none) == -1);
  }
  SECTION("read from it") { CHECK(recv(hostile, nullptr, 0, MSG_DONTWAIT) == -1); }
  SECTION("rang it for a long time") {
    for (int i = 0; i < 100'000; ++i) ring_bell(hostile);
  }
  (void)listener.hears();
  ring_bell(bell.ringing());
  CHECK(listener.hears());
  close(hostile);
}

TEST_CASE("ringing never waits, whatever the owner did to its bell") {
  Bell bell;
  SECTION("made it blocking") { fcntl(bell.hearing(), F_SETFL, 0); }
  SECTION("filled it from its end") {
    const char bytes[4096] = {};
    while (send(bell.hearing(), bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {}
  }
  SECTION("shut it") { shutdown(bell.hearing(), SHUT_RDWR); }
  SECTION("closed it") { close(std::exchange(bell.ends[0], -1)); }
  errno = 1234;
  for (int i = 0; i < 1000; ++i) ring_bell(bell.ringing());
  CHECK(errno == 1234);
}

TEST_CASE("only sockets that ring without waiting are bells") {
  Bell bell;
  CHECK(is_bell(bell.ringing()));
  int pipe_ends[2], datagrams[2], streams[2];
  REQUIRE(pipe(pipe_ends) == 0);
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, streams) == 0);
  int counter = eventfd(0, EFD_NONBLOCK), tcp = socket(AF_INET, SOCK_STREAM, 0);
  for (int fd : {pipe_ends[0], pipe_ends[1], datagrams[0], datagrams[1], streams[0], streams[1], counter, tcp, -1}) {
    CHECK_FALSE(is_bell(fd));
    close(fd);
  }
}

}  // namespace
}  // namespace sluice::shm
