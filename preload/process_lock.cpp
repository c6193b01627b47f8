#include "preload/process_lock.h"

#include <sys/syscall.h>

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

}  // namespace sluice::preload
