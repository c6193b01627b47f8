// How a thread of the application waits: spin a little while that promises something, then
// sleep in the kernel until the process's bell, a descriptor of the kernel's, a signal or
// the time. See shm/wake.h for why no wake-up is lost.
#pragma once

#include <poll.h>
#include <signal.h>
#include <time.h>

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>

#include "shm/layout.h"

namespace sluice::preload {

// A point on CLOCK_MONOTONIC, or never.
class Deadline {
 public:
  static Deadline never() { return Deadline(); }
  static Deadline in_ms(int64_t ms);                // negative: never
  static Deadline in(const timespec* relative);     // null: never
  // 0: never, as SO_RCVTIMEO has it.
  static Deadline in_us(int64_t us) { return us == 0 ? never() : in_some_us(us); }
  bool is_never() const { return never_; }
  bool passed() const;
  const timespec* absolute() const { return never_ ? nullptr : &at_; }
  // What is left, not below zero.
  timespec left() const;
  Deadline or_earlier(const Deadline& other) const;

 private:
  static Deadline in_some_us(int64_t us);
  timespec at_{};
  bool never_ = true;
};

uint64_t now_ns();

// See shm/bell.h.
struct Bell {
  int hear = -1;  // in the epoll sets of those who sleep
  int ring = -1;  // for those who have news
};
// A new one at high numbers; without descriptors where there are none.
Bell create_bell();
void destroy_bell(Bell& bell);

// The process's bell.
const Bell& bell();
// After fork the child needs its own.
void renew_bell();
// Wakes all threads of this process that sleep in sleep_in_poll.
void ring_own_bell();
// Also those of the processes that were forked from this one, or it from.
void ring_family_bells();
// The bell of those who hold connections that `maker` has passed. False: there are too many.
[[nodiscard]] bool hear_takers_bell(int fd, shm::DomainId maker);
// Those for which still_used(maker) says no are closed.
void forget_takers_bells(bool (*still_used)(shm::DomainId maker));
// While the coordinator is away: a watch that wakes sleepers when it comes back.
void watch_for(const char* directory);
// Whether something has happened there since the last time; does not keep that from sleepers.
bool watch_has_news();
void watch_socket(int fd);
void stop_watching();

// Adds what wakes this process, edge-triggered, to an epoll set, unless that was done in this
// `epoch` already. is_waker() tells their events from the program's. 0; or -ENOMEM, -ENOSPC: not all of them, and `epoch`
// is 0, so that the next call tries again.
[[nodiscard]] int add_wakers(int epfd, uint32_t& epoch);
// How long a sleep may last that, for want of descriptors or memory, nothing would end.
Deadline no_bell_to_hear(const Deadline& wanted);
void remove_wakers(int epfd);
extern const uint64_t kWakerCookie, kLinkCookie;
bool is_waker(const epoll_event& e);
// Set when the coordinator's socket or directory gave a sign.
extern std::atomic<bool> link_changed;

// ppoll(2) on fds[0..count) and the bell; fds must have room for one more entry. Returns -EINTR
// without sleeping if a handler ran since signal_counts.any was `seen`. A return of 0
// can mean the bell as well as the time.
long sleep_in_poll(pollfd* fds, nfds_t count, const Deadline& deadline, const sigset_t* mask, uint32_t seen);

// ---- spinning ---------------------------------------------------------------------------

uint32_t current_cpu();

// A clock for short spans that costs nothing: about a nanosecond or less each tick.
inline uint64_t clock_ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return now_ns();
#endif
}

// Whether and how long a wait should spin: not on one CPU, not when spinning rarely helped.
class Spinner {
 public:
  // `peer_cpu`: where the other side ran last, or kAnyCpu.
  static constexpr uint32_t kAnyCpu = ~0u;
  // Calls ready() until it is true (returns true) or the time is up or a signal came.
  template <class Ready>
  static bool until(Ready&& ready, uint32_t peer_cpu) {
    return worthwhile(peer_cpu) && spin(ready);
  }
  template <class Ready>
  static bool spin(Ready&& ready) {
    uint32_t seen = signals();
    uint64_t begin = now_ns();
    for (uint32_t i = 1;; ++i) {
      for (int k = 0; k < 24; ++k) {
        if (ready()) return learn(true);
        relax();
      }
      if (signals() != seen) return false;
      if (now_ns() - begin > kSpinNs) return learn(false);
      if (i % 16 == 0) give_way();
    }
  }

  // Likewise; and lets a peer on this CPU run, a few times. is_much(): whether so much has come that the peer may have been at it
  // for long.
  template <class Ready, class IsMuch>
  static bool await(Ready&& ready, uint32_t peer_cpu, IsMuch&& is_much) {
    if (ready()) return true;
    return peer_cpu != current_cpu() ? spin(ready) : let_run(ready, is_much);
  }
  // Likewise, either of them only if it promises something.
  template <class Ready, class IsMuch>
  static bool until_or_let_run(Ready&& ready, uint32_t peer_cpu, IsMuch&& is_much) {
    if (peer_cpu != current_cpu()) return until(ready, peer_cpu);
    return is_promising() && let_run(ready, is_much);
  }
  static bool never_much() { return false; }

  // Whether somebody who ran there last is likely to run while we wait awake.
  static bool is_elsewhere(uint32_t peer_cpu);
  // Whether waiting awake has paid lately in this thread; now and then it is tried all the same.
  static bool is_promising();
  static bool learn(bool success);  // returns it

 private:
  template <class Ready, class IsMuch>
  static bool let_run(Ready&& ready, IsMuch&& is_much) {
    if (is_crowded()) return false;
    uint64_t begin = clock_ticks();
    for (int i = 0; i < 3; ++i) {
      give_way();
      bool success = ready(), crowd = clock_ticks() - begin > kCrowdTicks && !(success && is_much());
      note_crowd(crowd);
      if (success || crowd) return learn(success);
    }
    return learn(false);
  }
  // Whoever gives way to others that have much to do has to wait for them; who sleeps is woken in time. So for some
  // milliseconds, and up to a second if it goes on, this thread sleeps instead.
  static constexpr uint64_t kCrowdTicks = 300'000;
  static bool is_crowded();
  static void note_crowd(bool crowd);
  static constexpr uint64_t kSpinNs = 40'000;
  static bool worthwhile(uint32_t peer_cpu);
  static uint32_t signals();
  static void relax();
  static void give_way();
};

}  // namespace sluice::preload
