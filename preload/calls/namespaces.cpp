// unshare(2), setns(2).
#include "preload/namespaces.h"

#include <sched.h>

#include "preload/dispatch.h"
#include "preload/fork.h"

namespace sluice::preload {

INTERPOSE(int, unshare, (int flags)) {
  be_ready();
  Entrance entrance;
  if ((flags & CLONE_NEWNET) != 0 && !in_vfork_child()) before_namespace_change();
  return libc.unshare(flags);
}

// Without a kind any descriptor will do, that of a network namespace too.
INTERPOSE(int, setns, (int fd, int kinds)) {
  be_ready();
  Entrance entrance;
  if ((kinds == 0 || (kinds & CLONE_NEWNET) != 0) && !in_vfork_child()) before_namespace_change();
  return libc.setns(fd, kinds);
}

}  // namespace sluice::preload
