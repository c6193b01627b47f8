// Connections of ours that nobody has accepted yet, and listeners of ours at which others' wait: a
// connection moves from a process that is busy to one that is idle. docs/protocol.md, "A
// connection that waits too long". All under control_lock unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "preload/sleep.h"
#include "shm/layout.h"

namespace sluice::preload {

class TcpSocket;
struct TcpList;

// A socket's place in one of the lists below, and at which listener it waits.
struct WaitingLinks {
  uint32_t listener = 0;
  uint32_t incarnation = 0;  // of the coordinator that calls the listener so
  TcpList* list = nullptr;
  TcpSocket* previous = nullptr;
  TcpSocket* next = nullptr;
  uint64_t since_ns = 0;
  uint32_t patience = 0;     // how often it was about to be accepted
};

struct TcpList {
  TcpSocket* first = nullptr;
  TcpSocket* last = nullptr;
};

class Waiting {
 public:
  void begun(TcpSocket& s);  // a connection waits from now on, or anew
  // There is one acceptor only, until revoked(): nothing to watch.
  void begun_alone(TcpSocket& s);
  void revoked(uint32_t listener);
  void over(TcpSocket& s);   // it waits no more, or cannot move any more. Harmless for others

  // A hint without the lock: whether a sleep has to look().
  bool any_new() const { return new_count_.load(std::memory_order_relaxed) != 0; }
  // Before a sleep, after the fence and drain(): says who has waited too long, and, to sleep at
  // the listener `accepting` (kEveryListener, 0: none), that we are idle. Until when it may last.
  [[nodiscard]] Deadline look(uint32_t accepting);
  // accept() finds nothing and does not sleep.
  void found_nothing(uint32_t listener);

  void called(uint32_t listener);  // kReconsider
  bool is_called() const { return call_count_ != 0; }
  void answer_calls();             // after drain() has looked at everything else

  void coordinator_is_back();
  void become_child();

 private:
  static constexpr uint32_t kCalls = 32;
  void append(TcpList& list, TcpSocket& s);
  void report(TcpSocket& s);
  void tell(uint32_t listener);
  bool name_listener(TcpSocket& s);
  void go_on_at(uint32_t listener);
  void look_later(TcpSocket& s);
  bool idle_at(uint32_t listener);
  TcpSocket* oldest_at(uint32_t listener);

  TcpList new_, reported_, alone_;
  std::atomic<uint32_t> new_count_{0};
  // Listeners: said kWaiting and heard nothing since; heard kReconsider.
  uint32_t told_[kCalls] = {};
  uint32_t told_count_ = 0;
  uint32_t calls_[kCalls] = {};
  uint32_t call_count_ = 0;
};

extern Waiting waiting;

}  // namespace sluice::preload
