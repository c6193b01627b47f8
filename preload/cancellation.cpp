#include "preload/cancellation.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>

#include "preload/descriptor_table.h"
#include "preload/libc.h"
#include "preload/signals.h"

namespace sluice::preload {

constinit thread_local bool cancel_requested = false;

namespace {

constexpr int kCancelSignal = 32;  // glibc's SIGCANCEL; sigaction(3) does not admit that it exists
void (*libcs_handler)(int, siginfo_t*, void*);

long kernel_action(const KernelAction* action, KernelAction* old) {
  return libc.syscall(SYS_rt_sigaction, kCancelSignal, action, old, _NSIG / 8);
}

void on_cancel(int number, siginfo_t* info, void* context) {
  begin_handler();
  int error = errno, state;
  cancel_requested = true;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  pthread_setcancelstate(state, nullptr);
  if (state == PTHREAD_CANCEL_ENABLE) note_signal(context);
  libcs_handler(number, info, context);
  errno = error;
}

// After libc has installed its handler. False: it has none, or none that we know.
bool be_first() {
  KernelAction action;
  if (kernel_action(nullptr, &action) != 0) return false;
  auto* handler = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.handler);
  if (handler == on_cancel) return true;
  if ((action.flags & SA_SIGINFO) == 0) return false;
  libcs_handler = handler;
  action.handler = reinterpret_cast<void*>(on_cancel);
  return kernel_action(&action, nullptr) == 0;
}

// The kernel's name for a thread is in that of its clock (clock_getcpuclockid in the kernel's words:
// the number inverted, above three bits of kind). 0: it has ended.
pid_t kernel_id(pthread_t thread) {
  clockid_t clock;
  return pthread_getcpuclockid(thread, &clock) == 0 ? pid_t(~(clock >> 3)) : 0;
}

}  // namespace

int cancel_thread(pthread_t thread) {
  bool concerned = descriptors.high_water() != 0;
  pid_t id = concerned ? kernel_id(thread) : 0;  // now: a detached thread may be gone afterwards
  int error = outside([&] { return libc.pthread_cancel(thread); });  // which ends this one, perhaps, at once
  if (error != 0 || id <= 0) return error;
  if (pthread_equal(thread, pthread_self())) {
    cancel_requested = true;
  } else if (be_first()) {
    int before = errno;
    libc.syscall(SYS_tgkill, libc.syscall(SYS_getpid), id, kCancelSignal);
    errno = before;
  }
  return 0;
}

}  // namespace sluice::preload
