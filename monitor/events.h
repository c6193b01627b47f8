// The epoll set of the coordinator's one thread.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "monitor/descriptor.h"

namespace sluice::monitor {

// What an event is about. With it goes an id instead of a pointer: the object may be gone by the
// time an event of the same batch is looked at.
enum class Source : uint8_t {
  kListening,
  kSignal,
  kSocket,    // id: client's serial
  kSummons,   // id: client's serial; it rings because it has a request
  kProcess,   // id: client's serial; its process has ended
  kTicket,    // id: ticket's number
  kExpected,  // id: domain that was announced and has ended
};

class Events {
 public:
  Events() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  bool add(int fd, Source source, uint32_t id, uint32_t events = EPOLLIN) {
    epoll_event e = event(source, id, events);
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) == 0;
  }
  void change(int fd, Source source, uint32_t id, uint32_t events) {
    epoll_event e = event(source, id, events);
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &e);
  }
  // Needed before close where others hold the same open file: it would stay in the set.
  void remove(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  // Calls on_event(source, id, events) for each. Returns their number.
  template <class OnEvent>
  int wait(int timeout_ms, OnEvent on_event) {
    epoll_event batch[64];
    int n = epoll_wait(epoll_.get(), batch, 64, timeout_ms);
    for (int i = 0; i < n; ++i)
      on_event(Source(batch[i].data.u64 >> 32), uint32_t(batch[i].data.u64), batch[i].events);
    return n;
  }

 private:
  static epoll_event event(Source source, uint32_t id, uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.u64 = uint64_t(source) << 32 | id;
    return e;
  }
  Descriptor epoll_;
};

}  // namespace sluice::monitor
