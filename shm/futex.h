// Sleeping in the kernel until a word changes.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <cstdint>

#include "shm/kernel_call.h"

namespace sluice::shm {

// Sleeps while *word == expected. `deadline`: CLOCK_MONOTONIC, absolute, or null.
// Returns 0, or -EAGAIN (changed already), -EINTR, -ETIMEDOUT. The word may be mapped
// read-only and belong to another domain (futex(2): the key of a shared futex is its inode).
inline long futex_wait(const std::atomic<uint32_t>& word, uint32_t expected,
                       const timespec* deadline) {
  return kernel_call(SYS_futex, reinterpret_cast<long>(&word), FUTEX_WAIT_BITSET, expected, reinterpret_cast<long>(deadline), 0,
                     FUTEX_BITSET_MATCH_ANY);
}

inline void futex_wake(const std::atomic<uint32_t>& word) {
  kernel_call(SYS_futex, reinterpret_cast<long>(&word), FUTEX_WAKE, INT32_MAX);
}

}  // namespace sluice::shm
