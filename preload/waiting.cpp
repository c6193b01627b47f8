#include "preload/waiting.h"

#include <string.h>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
#include "preload/peers.h"

namespace sluice::preload {

using namespace shm;

constinit Waiting waiting;

namespace {

// An acceptor that is not busy takes less.
constexpr uint64_t kPatienceNs = 2'000'000;
// Whoever was called but does something else, or is stopped, is passed over after this.
constexpr int64_t kAgainMs = 10;
constexpr uint32_t kMostPatience = 6;
// A new coordinator hears of the listeners one by one.
constexpr uint64_t kUnnamedNs = 100'000'000;

void say(uint16_t type, uint32_t listener, uint64_t second) {
  Message m{};
  m.type = type;
  m.words[0] = listener;
  m.words[1] = second;
  coordinator.post(m);
}

bool contains(const uint32_t* list, uint32_t count, uint32_t what) {
  while (count > 0 && list[count - 1] != what) --count;
  return count > 0;
}

}  // namespace

// ---- the lists ------------------------------------------------------------------------------

void Waiting::append(TcpList& list, TcpSocket& s) {
  s.waiting.list = &list;
  s.waiting.previous = list.last;
  s.waiting.next = nullptr;
  (list.last != nullptr ? list.last->waiting.next : list.first) = &s;
  list.last = &s;
  if (&list == &new_) new_count_.fetch_add(1, std::memory_order_relaxed);  // a hint
}

void Waiting::over(TcpSocket& s) {
  TcpList* list = s.waiting.list;
  if (list == nullptr) return;
  (s.waiting.previous != nullptr ? s.waiting.previous->waiting.next : list->first) = s.waiting.next;
  (s.waiting.next != nullptr ? s.waiting.next->waiting.previous : list->last) = s.waiting.previous;
  s.waiting.list = nullptr;
  if (list == &new_) new_count_.fetch_sub(1, std::memory_order_relaxed);  // a hint
}

void Waiting::begun(TcpSocket& s) {
  over(s);
  s.waiting.since_ns = now_ns();
  s.waiting.patience = 0;
  append(new_, s);
}

void Waiting::begun_alone(TcpSocket& s) {
  over(s);
  append(alone_, s);
}

void Waiting::revoked(uint32_t listener) {
  for (TcpSocket* s = alone_.first; s != nullptr;) {
    TcpSocket* next = s->waiting.next;
    if (!s->is_unaccepted()) over(*s);
    else if (s->waiting.listener == listener) begun(*s);
    s = next;
  }
}

// The process where it waits is idle, so it will be accepted at once; unless that process is
// stopped, or does not take what it could.
void Waiting::look_later(TcpSocket& s) {
  over(s);
  if (s.waiting.patience < kMostPatience) ++s.waiting.patience;
  s.waiting.since_ns = now_ns() + (kPatienceNs << s.waiting.patience);
  append(new_, s);
}

TcpSocket* Waiting::oldest_at(uint32_t listener) {
  for (TcpSocket* s = reported_.first; s != nullptr;) {
    TcpSocket* next = s->waiting.next;
    if (!s->is_unaccepted()) over(*s);
    else if (s->waiting.listener == listener) return s;
    s = next;
  }
  return nullptr;
}

// ---- before a sleep -------------------------------------------------------------------------

Deadline Waiting::look(uint32_t accepting) {
  Deadline until = Deadline::never();
  while (TcpSocket* s = new_.first) {
    if (!s->is_unaccepted()) {
      over(*s);
      continue;
    }
    uint64_t now = now_ns(), end = s->waiting.since_ns + kPatienceNs;
    if (now < end) {
      until = Deadline::in_us(int64_t(end - now) / 1000 + 1);
      break;
    }
    report(*s);
  }
  bool again = accepting != 0 && idle_at(accepting);
  if (again || !coordinator.send_unsent()) until = until.or_earlier(Deadline::in_ms(kAgainMs));
  // Nobody rings when a peer dies: drain() asks the kernel.
  bool hears = coordinator.connected() || (coordinator.tells_child_of_deaths() && !peers.may_register());
  if (peers.any() && !hears) until = until.or_earlier(Deadline::in_ms(kAwayMs));
  return until;
}

void Waiting::report(TcpSocket& s) {
  over(s);
  if (coordinator.connected() && !name_listener(s)) {
    s.waiting.since_ns = now_ns() + kUnnamedNs;
    return append(new_, s);
  }
  append(reported_, s);
  if (!contains(told_, told_count_, s.waiting.listener)) tell(s.waiting.listener);
}

void Waiting::tell(uint32_t listener) {
  if (told_count_ < kCalls) told_[told_count_++] = listener;
  say(kWaiting, listener, 1);
}

// The listener's id was an earlier coordinator's: what does this one call it?
bool Waiting::name_listener(TcpSocket& s) {
  if (s.waiting.incarnation == coordinator.incarnation()) return true;
  Message m{};
  m.type = kConnect;
  memcpy(&m.words[0], s.remote.address, sizeof s.remote.address);
  m.words[2] = s.remote.port | uint64_t{s.remote.family} << 16;
  if (s.is_unix() && !s.ask_again()) return false;
  if (s.is_unix()) memcpy(&m.words[0], s.remote.address, sizeof s.remote.address);
  if (coordinator.call(m) != 0) return false;
  s.waiting.listener = uint32_t(m.words[0] >> 32);
  s.waiting.incarnation = coordinator.incarnation();
  return true;
}

// Whether there is somebody to wait for.
bool Waiting::idle_at(uint32_t listener) {
  const Directory* d = coordinator.directory();
  if (!coordinator.connected() || d == nullptr) return false;
  bool any = false;
  for (TcpSocket* l = listeners; l != nullptr; l = l->next_listener) {
    if (!l->accepts || (listener != kEveryListener && l->listener_id != listener)) continue;
    if (!d->is_waited(l->listener_id)) continue;
    say(kIdle, l->listener_id, 0);
    any = true;
  }
  return any;
}

void Waiting::found_nothing(uint32_t listener) {
  const Directory* d = coordinator.directory();
  if (coordinator.connected() && d != nullptr && d->is_waited(listener)) say(kIdle, listener, 1);
}

// ---- being called ---------------------------------------------------------------------------

void Waiting::called(uint32_t listener) {
  for (uint32_t i = 0; i < told_count_; ++i)
    if (told_[i] == listener) told_[i--] = told_[--told_count_];
  for (uint32_t i = 0; i < call_count_; ++i)
    if (calls_[i] == listener) return;
  if (call_count_ < kCalls) calls_[call_count_++] = listener;
  else say(kWaiting, listener, 0);
}

void Waiting::answer_calls() {
  while (call_count_ > 0) {
    uint32_t listener = calls_[--call_count_];
    TcpSocket* s = oldest_at(listener);
    if (s == nullptr) {
      say(kWaiting, listener, 0);
      continue;
    }
    switch (s->move_elsewhere()) {
      case Moved::kYes:
        go_on_at(listener);
        break;
      case Moved::kNobodyIdle:  // the coordinator calls again
        if (told_count_ < kCalls) told_[told_count_++] = listener;
        break;
      case Moved::kSoonAccepted:  // perhaps the next one waits elsewhere
        look_later(*s);
        calls_[call_count_++] = listener;
        break;
      case Moved::kNo:  // accepted; or there is no way, and it waits where it is
        if (!coordinator.connected()) break;
        over(*s);
        say(kWaiting, listener, 0);
        go_on_at(listener);
        break;
      case Moved::kLater:
        calls_[call_count_++] = listener;
        return peers.leave_unfinished();
    }
  }
}

// The next one at that listener has its turn when the coordinator calls again.
void Waiting::go_on_at(uint32_t listener) {
  if (oldest_at(listener) != nullptr) tell(listener);
}

// ---- other lives ----------------------------------------------------------------------------

void Waiting::coordinator_is_back() {
  call_count_ = told_count_ = 0;
  while (TcpSocket* s = reported_.first) begun(*s);
  while (TcpSocket* s = alone_.first) begun(*s);
}

void Waiting::become_child() {
  new_ = reported_ = alone_ = {};
  new_count_.store(0, std::memory_order_relaxed);  // one thread
  call_count_ = told_count_ = 0;
}

}  // namespace sluice::preload
