// Signals and waiting. A call that waits in user space must end, like its kernel twin, when
// a handler runs. So handlers are installed behind one of ours that counts.
//
// The gap between "no signal so far" and going to sleep is closed as in musl's cancellation:
// the check and the system call are one short piece of assembly, and the handler, when it
// finds the thread inside it, moves the thread to its exit.
#pragma once

#include <signal.h>

#include <cstdint>

namespace sluice::preload {

// Handlers that ran in this thread.
struct SignalCounts {
  uint32_t any;
  uint32_t unrestarted;  // without SA_RESTART
};
extern thread_local SignalCounts signal_counts;

// In a signal handler: a wait of this thread ends as if a handler without SA_RESTART had run.
void note_signal(void* context);

// rt_sigaction(2)'s structure, which is not libc's.
struct KernelAction {
  void* handler;
  unsigned long flags;
  void* restorer;
  unsigned long mask;
};

// Makes the system call unless signal_counts.any differs from `seen` or a handler runs before
// the kernel has finished. Returns what the kernel does (-errno), or -EINTR.
long interruptible_syscall(uint32_t seen, long number, long a, long b, long c, long d, long e);

// From now on faults in copies to and from the program's memory (user_memory.h) are caught. Idempotent.
void catch_faults();

// sigaction(2) as the program sees it. Returns 0 or -errno. Async-signal-safe.
[[nodiscard]] int set_signal_action(int number, const struct sigaction* action,
                                    struct sigaction* old);

}  // namespace sluice::preload
