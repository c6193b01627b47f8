#include "preload/signals.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>

#include "preload/deferral.h"
#include "preload/fork.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/user_memory.h"

namespace sluice::preload {

thread_local SignalCounts signal_counts;

#if defined(__x86_64__)
// long sluice_cancellable(const uint32_t* counter, uint32_t seen, long number, long a, long b, long c,
//                         long d, long e)
// In registers: rdi, esi, rdx, rcx, r8, r9; d and e on the stack.
asm(R"(
.text
.local sluice_cancellable
.type sluice_cancellable, @function
sluice_cancellable:
  mov %rdi, %r11
  mov %rdx, %rax
  mov %rcx, %rdi
  mov %esi, %ecx
  mov %r8, %rsi
  mov %r9, %rdx
  mov 8(%rsp), %r10
  mov 16(%rsp), %r8
  mov $8, %r9d
.local sluice_cancellable_begin
sluice_cancellable_begin:
  cmp %ecx, (%r11)
  jne sluice_cancellable_exit
  syscall
.local sluice_cancellable_end
sluice_cancellable_end:
  ret
.local sluice_cancellable_exit
sluice_cancellable_exit:
  mov $-4, %rax
  ret
.size sluice_cancellable, . - sluice_cancellable
)");
static_assert(EINTR == 4);
extern "C" {
long sluice_cancellable(const uint32_t*, uint32_t, long, long, long, long, long, long)
    __attribute__((visibility("hidden")));
extern const char sluice_cancellable_begin[] __attribute__((visibility("hidden")));
extern const char sluice_cancellable_end[] __attribute__((visibility("hidden")));
extern const char sluice_cancellable_exit[] __attribute__((visibility("hidden")));
}

long interruptible_syscall(uint32_t seen, long number, long a, long b, long c, long d, long e) {
  return sluice_cancellable(&signal_counts.any, seen, number, a, b, c, d, e);
}

namespace {
void leave_wait(void* context) {
  greg_t& at = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  if (at >= greg_t(sluice_cancellable_begin) && at < greg_t(sluice_cancellable_end))
    at = greg_t(sluice_cancellable_exit);
}
}  // namespace
#else
// Without the assembly a signal in the gap is noticed after the wait.
long interruptible_syscall(uint32_t seen, long number, long a, long b, long c, long d, long e) {
  if (signal_counts.any != seen) return -EINTR;
  long result = libc.syscall(number, a, b, c, d, e, _NSIG / 8);
  return result < 0 ? -errno : result;
}
namespace {
void leave_wait(void*) {}
}  // namespace
#endif

namespace {

struct Installed {
  std::atomic<void*> handler;
  std::atomic<int> flags;
};
Installed installed[_NSIG];

// What the thread's own instruction caused: the instruction would only cause it again.
bool is_fault(int number, const siginfo_t* info) {
  bool synchronous = number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP || number == SIGSYS;
  return synchronous && info->si_code > 0;
}

// The signal comes again when the thread's last lock is released. False: it cannot be sent.
bool defer(int number, siginfo_t* info, void* context) {
  int error = errno;
  uint64_t bit = uint64_t{1} << (number - 1);
  // At once, and not only on return: with SA_NODEFER it would come back here.
  libc.syscall(SYS_rt_sigprocmask, SIG_BLOCK, &bit, nullptr, sizeof bit);
  bool sent = libc.syscall(SYS_rt_tgsigqueueinfo, libc.syscall(SYS_getpid), libc.syscall(SYS_gettid), number, info) == 0;
  if (sent) {
    sigaddset(&static_cast<ucontext_t*>(context)->uc_sigmask, number);
    deferral.signals |= bit;
  }
  errno = error;
  return sent;
}

// Of a signal of signal_watch.cpp; the kernel's own say so themselves.
int poll_code(uint32_t band) {
  if ((band & (POLLIN | POLLRDHUP)) != 0) return POLL_IN;
  return (band & POLLPRI) != 0 ? POLL_PRI : (band & POLLOUT) != 0 ? POLL_OUT : POLL_HUP;
}

// SA_RESETHAND, which is not the kernel's to do: it would have done it when the signal was deferred.
void reset_handler(int number) {
  struct sigaction action;
  libc.sigaction(number, nullptr, &action);
  action.sa_handler = SIG_DFL;
  libc.sigaction(number, &action, nullptr);
}

bool is_handler(void* h) { return h != reinterpret_cast<void*>(SIG_DFL) && h != reinterpret_cast<void*>(SIG_IGN); }

// A signal that is ours to catch and not the program's: what would have happened without us.
void act_by_default(int number, siginfo_t* info, bool fault) {
  if (!fault && installed[number].handler.load(std::memory_order_relaxed) == reinterpret_cast<void*>(SIG_IGN)) return;  // set before the kernel knew
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  libc.sigaction(number, &action, nullptr);
  // On return the instruction faults again; or the signal, blocked until then, comes again.
  if (!fault) libc.syscall(SYS_rt_tgsigqueueinfo, libc.syscall(SYS_getpid), libc.syscall(SYS_gettid), number, info);
}

void on_signal(int number, siginfo_t* info, void* context) {
  begin_handler();
  bool fault = is_fault(number, info);
  if (fault && (end_faulting_copy(context) || (number == SIGSEGV && allow_reading(info->si_code, context)))) return;
  if (deferral.depth != 0 && !fault && defer(number, info, context)) return;
  int flags = installed[number].flags.load(std::memory_order_relaxed);  // set before the kernel knew
  void* handler = installed[number].handler.load(std::memory_order_relaxed);
  if (!is_handler(handler)) return act_by_default(number, info, fault);
  if (!fault) {  // a fault of another handler's, and no call is interrupted by it
    ++signal_counts.any;
    if ((flags & SA_RESTART) == 0) ++signal_counts.unrestarted;
    leave_wait(context);
  }
  if (info->si_code == SI_SIGIO) info->si_code = poll_code(uint32_t(info->si_band));
  if ((flags & SA_RESETHAND) != 0) reset_handler(number);
  // After a fault inside the shim (a bad buffer) the handler may jump out and never return: other
  // signals are not to be deferred for ever.
  uint32_t depth = deferral.depth;
  deferral.depth = 0;
  if ((flags & SA_SIGINFO) != 0)
    reinterpret_cast<void (*)(int, siginfo_t*, void*)>(handler)(number, info, context);
  else
    reinterpret_cast<void (*)(int)>(handler)(number);
  deferral.depth = depth;
}

}  // namespace

constinit thread_local Deferral deferral{};

void note_signal(void* context) {
  ++signal_counts.any;
  ++signal_counts.unrestarted;
  leave_wait(context);
}

void deliver_deferred() {
  uint64_t signals = deferral.signals;
  deferral.signals = 0;  // no handler of ours adds to it now
  libc.syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals, nullptr, sizeof signals);
}

void forget_deferred() {
  deferral.depth = 0;
  if (deferral.signals != 0) deliver_deferred();
}

namespace {

bool faults_are_caught = false;

// Whether our handler is to be the kernel's, whatever the program's is.
bool is_caught(int number) { return faults_are_caught && (number == SIGSEGV || number == SIGBUS); }

}  // namespace

void catch_faults() {
  if (faults_are_caught) return;
  faults_are_caught = true;
  for (int number : {SIGSEGV, SIGBUS}) {
    struct sigaction action;
    // One that a program ignores stays so over exec, and is not worth that.
    if (libc.sigaction(number, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
    installed[number].handler.store(reinterpret_cast<void*>(SIG_DFL), std::memory_order_relaxed);  // the kernel hears later
    installed[number].flags.store(0, std::memory_order_relaxed);                                  // likewise
    action.sa_flags = SA_ONSTACK | SA_SIGINFO;
    action.sa_sigaction = on_signal;
    sigemptyset(&action.sa_mask);
    libc.sigaction(number, &action, nullptr);
  }
}

int set_signal_action(int number, const struct sigaction* action, struct sigaction* old) {
  if (number <= 0 || number >= _NSIG) return libc.sigaction(number, action, old) == 0 ? 0 : -errno;
  Installed& entry = installed[number];
  void* handler_before = entry.handler.load(std::memory_order_relaxed);  // changed only here
  int flags_before = entry.flags.load(std::memory_order_relaxed);
  struct sigaction ours, before;
  // A vfork child on its way to exec has its parent's table: what it resets is for itself alone.
  bool wrap = action != nullptr && action->sa_handler != SIG_ERR &&
              (is_handler(reinterpret_cast<void*>(action->sa_handler)) ||
               (is_caught(number) && action->sa_handler == SIG_DFL && !in_vfork_child()));
  if (wrap) {
    ours = *action;
    entry.handler.store(reinterpret_cast<void*>(action->sa_handler), std::memory_order_relaxed);
    entry.flags.store(action->sa_flags, std::memory_order_relaxed);
    ours.sa_sigaction = on_signal;
    ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~int(SA_RESETHAND);
  }
  if (libc.sigaction(number, wrap ? &ours : action, &before) != 0) {
    int error = errno;
    if (wrap) {
      entry.handler.store(handler_before, std::memory_order_relaxed);
      entry.flags.store(flags_before, std::memory_order_relaxed);
    }
    return -error;
  }
  if (old != nullptr) {
    *old = before;
    if (before.sa_sigaction == on_signal) {
      old->sa_handler = reinterpret_cast<sighandler_t>(handler_before);
      old->sa_flags = flags_before;
    }
  }
  return 0;
}

}  // namespace sluice::preload
