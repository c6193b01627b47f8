#include "preload/process_lock.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "preload/descriptor_table.h"
#include "preload/kernel.h"
#include "preload/libc.h"

namespace sluice::preload {

namespace {
thread_local uint32_t id = 0;
}

uint32_t thread_id() {
  if (id == 0) [[unlikely]] id = uint32_t(libc.syscall(SYS_gettid));
  return id;
}

void forget_thread_id() { id = 0; }

bool has_ended(uint32_t thread) {
  if (::kill(pid_t(thread), 0) != 0 && errno == ESRCH) return true;
  RaisedLimit raised;
  int fd = int(libc.syscall(SYS_pidfd_open, thread, 0));
  if (fd < 0) return errno == ESRCH;  // EINVAL: not a process's first thread, and such a one does not wait to be waited for
  pollfd p{fd, POLLIN, 0};
  bool ended = kernel::poll_now(&p, 1) == 1;
  kernel::close(fd);
  return ended;
}

}  // namespace sluice::preload
