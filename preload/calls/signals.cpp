// sigaction(2) and the older ways to install a handler.
#include "preload/signals.h"

#include "preload/dispatch.h"

namespace sluice::preload {

namespace {
sighandler_t install(int number, sighandler_t handler, int flags) {
  Entrance entrance;
  struct sigaction action {}, old;
  action.sa_handler = handler;
  action.sa_flags = flags;
  if ((flags & SA_NODEFER) == 0) sigaddset(&action.sa_mask, number);
  int r = set_signal_action(number, &action, &old);
  return finish(r) < 0 ? SIG_ERR : old.sa_handler;
}
}  // namespace

INTERPOSE(int, sigaction, (int number, const struct sigaction* action, struct sigaction* old)) {
  be_ready();
  struct sigaction before;
  int r = [&] {
    Entrance entrance;
    return set_signal_action(number, action, old != nullptr ? &before : nullptr);
  }();
  if (r == 0 && old != nullptr) *old = before;
  return finish(r);
}

INTERPOSE(sighandler_t, signal, (int number, sighandler_t handler)) {
  be_ready();
  return install(number, handler, SA_RESTART);
}

INTERPOSE(sighandler_t, __sysv_signal, (int number, sighandler_t handler)) {
  be_ready();
  return install(number, handler, int(SA_RESETHAND | SA_NODEFER));
}

INTERPOSE(int, siginterrupt, (int number, int interrupt)) {
  be_ready();
  Entrance entrance;
  struct sigaction action;
  int r = set_signal_action(number, nullptr, &action);
  if (r == 0) {
    action.sa_flags = interrupt ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    r = set_signal_action(number, &action, nullptr);
  }
  return finish(r);
}

}  // namespace sluice::preload
