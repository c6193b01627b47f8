// prctl(2), as far as it restricts which system calls may be made.
#include <linux/prctl.h>

#include "preload/dispatch.h"
#include "preload/restrictions.h"

namespace sluice::preload {

constinit bool restricted = false;

void before_restriction() {
  Entrance entrance;
  restricted = true;
  leave_all_pairs();
}

INTERPOSE_VARIADIC(int, prctl, (int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)) {
  be_ready();
  if (option == PR_SET_SECCOMP) before_restriction();
  return libc.prctl(option, a, b, c, d);
}

}  // namespace sluice::preload
