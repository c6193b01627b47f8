// An epoll descriptor with calls that fail the test when they fail.
#pragma once

#include <sys/epoll.h>

#include <map>
#include <vector>

#include "harness.h"

namespace conformance {

struct EpollSet {
  int fd = CHECK_OK(epoll_create1(0));

  int control(int operation, int member, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = member;
    return epoll_ctl(fd, operation, member, &event);
  }
  void add(int member, uint32_t events) { CHECK_OK(control(EPOLL_CTL_ADD, member, events)); }
  void modify(int member, uint32_t events) { CHECK_OK(control(EPOLL_CTL_MOD, member, events)); }
  void remove(int member) { CHECK_OK(control(EPOLL_CTL_DEL, member, 0)); }

  // What is ready, by descriptor. Without a time-out it does not wait.
  std::map<int, uint32_t> wait(int timeout_ms = 0, int limit = 64) {
    std::vector<epoll_event> events(limit);
    int count = CHECK_OK(epoll_wait(fd, events.data(), limit, timeout_ms));
    std::map<int, uint32_t> ready;
    for (int i = 0; i < count; i++) ready[events[i].data.fd] |= events[i].events;
    return ready;
  }
  // The events of the one descriptor that must be ready; 0 when none is.
  uint32_t wait_one(int member, int timeout_ms = -1) {
    auto ready = wait(timeout_ms);
    if (ready.empty()) return 0;
    CHECK_EQ(ready.size(), 1);
    CHECK_EQ(ready.begin()->first, member);
    return ready.begin()->second;
  }
};

}  // namespace conformance
