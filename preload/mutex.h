// A mutex of 4 bytes that costs next to nothing while the process has one thread.
#pragma once

#include <sys/single_threaded.h>

#include <atomic>

#include "preload/deferral.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

// Not recursive, not fair. A handler never interrupts its holder: see deferral.h.
class Mutex {
 public:
  void lock() {
    begin_deferring();
    if (__libc_single_threaded) {  // nobody to race with, and no thread starts inside the shim
      state_.store(kHeld, std::memory_order_relaxed);
      return;
    }
    uint32_t free = kFree;
    if (!state_.compare_exchange_strong(free, kHeld, std::memory_order_acquire)) lock_slowly();
  }
  bool try_lock() {
    begin_deferring();
    uint32_t free = kFree;
    if (state_.compare_exchange_strong(free, kHeld, std::memory_order_acquire)) return true;
    end_deferring();
    return false;
  }
  void unlock() {
    if (__libc_single_threaded)
      state_.store(kFree, std::memory_order_relaxed);
    else if (state_.exchange(kFree, std::memory_order_release) == kContended)
      shm::futex_wake(state_);
    end_deferring();
  }
  // In the child of a fork: whoever held it does not exist there. Then forget_deferred().
  void reset() { state_.store(kFree, std::memory_order_relaxed); }

 private:
  void lock_slowly() {
    for (int i = 0; i < 100; ++i) {
      uint32_t free = kFree;
      if (state_.compare_exchange_weak(free, kHeld, std::memory_order_acquire)) return;
      shm::cpu_relax();
    }
    while (state_.exchange(kContended, std::memory_order_acquire) != kFree)
      (void)shm::futex_wait(state_, kContended, nullptr);
  }
  enum : uint32_t { kFree, kHeld, kContended };
  std::atomic<uint32_t> state_{kFree};
};

class Guard {
 public:
  explicit Guard(Mutex& m) : m_(m) { m_.lock(); }
  ~Guard() { m_.unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Mutex& m_;
};

// Serialises set-up, tear-down and readiness: peers, descriptor changes, interest lists.
// Order: a socket's send or receive lock first, then this, then a pair's push lock.
extern Mutex control_lock;

}  // namespace sluice::preload
