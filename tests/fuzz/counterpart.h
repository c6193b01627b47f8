// A process that the target talks to, and the connection to it: shim_peer.cpp, told what to do step by step.
#pragma once

#include <stdio.h>

#include <string>

#include "tests/fuzz/stage.h"

namespace sluice::fuzz {

constexpr unsigned kPatienceMs = 5000;  // with who is honest
constexpr unsigned kLostMs = 200;       // with who was lied about

// Of the target, at which its counterparts connect.
struct Listeners {
  int fds[kKinds];
  uint16_t ports[kKinds] = {};
  Listeners() {
    for (uint32_t k = 0; k < kKinds; ++k) {
      fds[k] = Place(Kind(k), "target", 0).listen(&ports[k]);
      FUZZ_CHECK(fds[k] >= 0);
    }
  }
};

class Counterpart {
 public:
  // `memory`: with the stage; `name`: of its own listeners of AF_UNIX.
  Counterpart(int memory, const char* name) : stage_(stage_at(memory)), name_(name) {}

  // Another process takes its place.
  void renew() {
    uint32_t before = stage_.ready.number;
    stage_.wanted.next();
    FUZZ_CHECK(stage_.ready.await_other_than(before, kPatienceMs));
    is_lost_ = false;
  }

  // Meets it: this side's descriptor.
  int meet(Kind kind, bool accept_here, Manner manner, const Listeners& listeners) {
    stage_.kind = kind;
    stage_.manner = manner;
    stage_.port = listeners.ports[kind];
    uint32_t before = stage_.done.number;
    if (accept_here) {
      order(Order::kConnect);
      return accept_from(listeners.fds[kind], before);
    }
    order(Order::kListen);
    FUZZ_CHECK(is_done(before, kPatienceMs) && stage_.result == 0);
    Place place(kind, name_, stage_.port);
    int fd = place.make_socket();
    FUZZ_CHECK(connect(fd, place.get(), place.size) == 0);
    before = stage_.done.number;
    order(Order::kAccept);
    FUZZ_CHECK(is_done(before, kPatienceMs) && stage_.result == 0);
    return fd;
  }

  // A byte in each direction, over the connection `fd`: from then on both know all of each other.
  void greet(int fd) {
    uint32_t before = stage_.done.number;
    order(Order::kGreet);
    char byte;
    FUZZ_CHECK(recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1);
    FUZZ_CHECK(is_done(before, kPatienceMs) && stage_.result == 0);
  }

  // Does what the next bytes of the case say. False: it has died of the lies that are in its memory, or hangs.
  bool does(Order what, Input& in) {
    if (is_lost_) return false;
    stage_.count = uint32_t(in.rest_bytes() < sizeof stage_.bytes ? in.rest_bytes() : sizeof stage_.bytes);
    if (stage_.count > 0) memcpy(stage_.bytes, in.rest(), stage_.count);
    uint32_t before = stage_.done.number;
    order(what);
    is_lost_ = !is_done(before, stage_.manner == Manner::kAny && what != Order::kPing ? kLostMs : kPatienceMs);
    FUZZ_CHECK(!is_lost_ || stage_.manner == Manner::kAny);
    if (!is_lost_) in.skip(stage_.used);
    return !is_lost_;
  }
  const Notes& notes() const { return stage_.notes; }
  uint64_t sent() const { return stage_.sent; }
  uint64_t arrived() {
    Input nothing(nullptr, 0);
    FUZZ_CHECK(does(Order::kArrived, nothing));
    return uint64_t(stage_.result);
  }

 private:
  static constexpr unsigned kLookMs = 2;

  static Stage& stage_at(int memory) {
    void* p = mmap(nullptr, sizeof(Stage), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    FUZZ_CHECK(p != MAP_FAILED);
    return *static_cast<Stage*>(p);
  }
  void order(Order order) {
    stage_.order = order;
    stage_.ordered.next();
  }
  // Looks after one that does not answer.
  bool is_done(uint32_t before, unsigned ms) {
    for (unsigned waited = 0; waited < ms; waited += kLookMs) {
      if (stage_.done.await_other_than(before, kLookMs)) return true;
      if (has_ended(stage_.pid)) return false;
    }
    return false;
  }
  static bool has_ended(int pid) {
    char state = 'X';
    std::string path = "/proc/" + std::to_string(pid) + "/stat";
    if (FILE* file = fopen(path.c_str(), "r")) {
      if (fscanf(file, "%*d %*s %c", &state) != 1) state = 'X';
      fclose(file);
    }
    return state == 'Z' || state == 'X';
  }

  // What the one before has announced, in lies, may come first.
  int accept_from(int listener, uint32_t before) {
    for (;;) {
      pollfd p{listener, POLLIN, 0};
      FUZZ_CHECK(poll(&p, 1, int(kPatienceMs)) == 1);
      int fd = accept(p.fd, nullptr, nullptr);
      FUZZ_CHECK(fd >= 0 && is_done(before, kPatienceMs) && stage_.result == 0);
      if (is_from(fd)) return fd;
      close(fd);
    }
  }
  bool is_from(int fd) const {
    sockaddr_in name{};
    ucred peer{};
    socklen_t size = stage_.kind == kTcp ? sizeof name : sizeof peer;
    if (stage_.kind == kTcp) return getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 && ntohs(name.sin_port) == stage_.port;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == stage_.pid;
  }

  Stage& stage_;
  const char* name_;
  bool is_lost_ = false;
};

}  // namespace sluice::fuzz
