// How the target `shim` and its peer, a process of its own, take turns: orders and answers in memory of both.
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <atomic>

#include "tests/fuzz/player.h"

namespace sluice::fuzz {

enum Kind : uint32_t { kTcp, kStream, kRecords, kKinds };

enum class Order : uint32_t {
  kConnect,  // to the target's listener of this kind
  kListen,   // likewise the other way round; then kAccept
  kAccept,
  kAct,      // one operation, as the bytes say
  kPing,     // a byte
  kGreet,    // a byte, and waits for one
  kArrived,  // the answer is Player::arrived()
  kEnd,      // of the connection
};

// A word that one side changes and the other waits for, asleep if that takes long.
struct Turn {
  std::atomic<uint32_t> number{0};
  void next() {
    number.fetch_add(1, std::memory_order_acq_rel);
    (void)!syscall(SYS_futex, &number, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
  // False: it is still `before`.
  bool await_other_than(uint32_t before, unsigned ms) {
    timespec end{};
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += long(ms) * 1'000'000;
    end.tv_sec += end.tv_nsec / 1'000'000'000;
    end.tv_nsec %= 1'000'000'000;
    for (;;) {
      for (int i = 0; i < 4000; ++i) {
        if (number.load(std::memory_order_acquire) != before) return true;
        __builtin_ia32_pause();
      }
      errno = 0;
      if (syscall(SYS_futex, &number, FUTEX_WAIT_BITSET, before, &end, nullptr, FUTEX_BITSET_MATCH_ANY) != 0 && errno == ETIMEDOUT)
        return number.load(std::memory_order_acquire) != before;
    }
  }
};

struct Stage {
  // The target wants another peer, and there is one. `pid` is its process.
  Turn wanted, ready;
  std::atomic<int> pid{0};
  Turn ordered, done;
  // With an order.
  Order order = Order::kEnd;
  Kind kind = kTcp;
  Manner manner = Manner::kAny;
  uint8_t bytes[64] = {};
  uint32_t count = 0;
  uint16_t port = 0;           // of the target's listener, or of the peer's; then of who has connected
  // With an answer.
  int64_t result = 0;          // 0 or -errno
  uint32_t used = 0;           // of `bytes`
  uint64_t sent = 0;           // Player::sent()
  Notes notes;
};

// The listeners: TCP on the loopback, the others have names in the directory of the test.
struct Place {
  sockaddr_storage name{};
  socklen_t size = 0;
  int type = SOCK_STREAM;

  Place(Kind kind, const char* side, uint16_t port) {
    if (kind == kTcp) {
      auto* a = reinterpret_cast<sockaddr_in*>(&name);
      a->sin_family = AF_INET;
      a->sin_port = htons(port);
      a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof *a;
      return;
    }
    if (kind == kRecords) type = SOCK_SEQPACKET;
    auto* a = reinterpret_cast<sockaddr_un*>(&name);
    a->sun_family = AF_UNIX;
    snprintf(a->sun_path, sizeof a->sun_path, "%s/%s%u", getenv("SLUICE_DIR"), side, uint32_t(kind));
    size = sizeof *a;
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
  int make_socket() const { return socket(name.ss_family, type | SOCK_CLOEXEC, 0); }
  // A listener; its port, for TCP.
  int listen(uint16_t* port) const {
    int fd = make_socket();
    if (name.ss_family == AF_UNIX) unlink(reinterpret_cast<const sockaddr_un*>(&name)->sun_path);
    if (fd < 0 || bind(fd, get(), size) != 0 || ::listen(fd, 8) != 0) return -1;
    sockaddr_in own{};
    socklen_t bytes = sizeof own;
    if (name.ss_family == AF_INET && getsockname(fd, reinterpret_cast<sockaddr*>(&own), &bytes) == 0) *port = ntohs(own.sin_port);
    return fd;
  }
};

}  // namespace sluice::fuzz
