// A lock in memory that processes share because they hold the same pipe. It names the thread that
// has it, so that it can be taken from a dead one. Held for the length of a copy, never over a call
// that may sleep.
#pragma once

#include <sched.h>

#include "preload/deferral.h"
#include "preload/sleep.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

// This thread's number, as kill(2) knows it.
uint32_t thread_id();
void forget_thread_id();  // in a forked child
// Whether there is no such thread any more. A process that was killed counts as gone before anybody has waited for it,
// when kill(2) still finds it. Safe in signal handlers; a few system calls.
bool has_ended(uint32_t thread);

class ProcessLock {
 public:
  explicit ProcessLock(shm::Shared<uint32_t>& word) : word_(word) {}

  // Asked by a signal handler, which may have interrupted its own thread.
  bool is_mine() const { return (word_.load(std::memory_order_relaxed) & ~kAwaited) == thread_id(); }  // nobody else makes it so
  [[nodiscard]] bool try_lock() {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, thread_id(), std::memory_order_acquire) && had();
  }
  // Waits, but no longer than `give_up()` is false. Whether it is held now.
  template <class GiveUp>
  [[nodiscard]] bool lock(GiveUp&& give_up) {
    if (try_lock()) [[likely]] return true;
    for (int i = 0; i < 100; ++i) {
      if (try_lock()) return true;
      i % 10 == 9 ? void(sched_yield()) : shm::cpu_relax();
    }
    while (!give_up()) {
      uint32_t seen = word_.load(std::memory_order_relaxed);  // looked at again by the exchange
      if (seen == 0) {
        if (word_.compare_exchange_strong(seen, thread_id() | kAwaited, std::memory_order_acquire)) return had();
        continue;
      }
      if ((seen & kAwaited) == 0 && !word_.compare_exchange_strong(seen, seen | kAwaited, std::memory_order_relaxed)) continue;
      timespec slice_end = *Deadline::in_ms(20).absolute();
      (void)shm::futex_wait(word_, seen | kAwaited, &slice_end);
      if (take_over(seen | kAwaited)) return true;
    }
    return false;
  }
  void unlock() {
    if ((word_.exchange(0, std::memory_order_release) & kAwaited) != 0) shm::futex_wake(word_);
    end_deferring();
  }
  // Whether its owner is dead and it is ours now. `seen`: what the word said.
  [[nodiscard]] bool take_over(uint32_t seen) {
    uint32_t owner = seen & ~kAwaited;
    if (owner == 0 || !has_ended(owner)) return false;
    return word_.compare_exchange_strong(seen, thread_id() | kAwaited, std::memory_order_acquire) && had();
  }
  [[nodiscard]] bool try_lock_or_take_over() {
    return try_lock() || take_over(word_.load(std::memory_order_relaxed));  // looked at again by the exchange
  }

 private:
  // A handler that runs before this finds that the lock is its thread's own.
  static bool had() {
    begin_deferring();
    return true;
  }
  static constexpr uint32_t kAwaited = 1u << 31;
  shm::Shared<uint32_t>& word_;
};

}  // namespace sluice::preload
