// Sleeping and waking without losing a wake-up.
//
//   sleeper                         waker
//   W0 sleeping = odd               P0 publish
//   full fence                      full fence
//   W1 look again                   P1 look at sleeping
//   W2 sleep in the kernel          P2 odd: ring
//
// The full fences forbid the one bad outcome: W1 misses P0 and P1 misses W0 (store
// buffering). Release and acquire do not: both loads may be served before both stores.
// This is the only place in the tree with a sequentially consistent fence.
#pragma once

#include <atomic>

namespace sluice::shm {

inline void sleep_wake_fence() {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
  // A locked operation is a full fence and on current cores cheaper than MFENCE.
  asm volatile("lock orl $0, -64(%%rsp)" ::: "memory", "cc");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

inline void cpu_relax() {
#if defined(__x86_64__)
  asm volatile("pause");
#endif
}

}  // namespace sluice::shm
