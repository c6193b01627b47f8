// Signals that arrive while their thread holds a lock of the shim's run their handlers when it has
// released the last one: a handler may use descriptors, and would wait for a lock that
// its own thread has. (Hodor defers signals so until a protected library is left.)
//
// The handler proper is ours (signals.cpp). If `depth` is not zero it blocks the signal in the context
// that it returns to and sends it to the thread once more, with all that came with it; whoever releases the
// last lock unblocks it, and the kernel delivers it as any other.
#pragma once

#include <atomic>
#include <cstdint>

namespace sluice::preload {

struct Deferral {
  uint32_t depth;    // locks that this thread holds or waits for
  uint64_t signals;  // deferred and blocked; bit 0 is signal 1
};
extern constinit thread_local Deferral deferral;

void deliver_deferred();
// The child of a fork holds no lock, and has none of its parent's pending signals.
void forget_deferred();

inline void begin_deferring() {
  ++deferral.depth;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // only this thread's handlers look
}

inline void end_deferring() {
  std::atomic_signal_fence(std::memory_order_seq_cst);  // likewise
  --deferral.depth;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // what comes from now on is not deferred
  if (deferral.signals != 0 && deferral.depth == 0) [[unlikely]] deliver_deferred();
}

}  // namespace sluice::preload
