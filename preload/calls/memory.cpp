// mmap(2), mprotect(2), pkey_mprotect(2), as far as they make memory executable (code_watch.h).
#include <sys/mman.h>

#include "preload/code_watch.h"
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

constexpr size_t kPage = 4096;

size_t pages_of(size_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }

// What is about to be executable only cannot be read then.
int judge(void* code, size_t bytes, int access) {
  Entrance entrance;
  int error = errno;
  bool hidden = (access & PROT_READ) == 0;
  if (hidden && libc.mprotect(code, bytes, access | PROT_READ) != 0) return 0;  // there is nothing
  int r = judge_code(code, bytes, access);
  if (hidden) libc.mprotect(code, bytes, access);
  errno = error;
  return r;
}

void* map(void* at, size_t bytes, int access, int flags, int fd, off_t offset) {
  be_ready();
  void* p = libc.mmap(at, bytes, access, flags, fd, offset);
  bool is_new = (flags & MAP_ANONYMOUS) != 0;
  if (!is_watched(access) || p == MAP_FAILED || (is_new && (access & PROT_WRITE) == 0)) return p;
  // In new memory there is nothing yet, and to look would only cost memory.
  int error = judge(p, is_new ? 0 : pages_of(bytes), access);
  if (error == 0) return p;
  munmap(p, bytes);
  errno = -error;
  return MAP_FAILED;
}

template <class Change>
int change(void* p, size_t bytes, int access, Change&& change) {
  be_ready();
  if (!is_watched(access)) return change();
  int r = change();
  int error = r == 0 ? judge(p, pages_of(bytes), access) : 0;
  if (error == 0) return r;
  libc.mprotect(p, bytes, access & ~PROT_EXEC);
  return finish(error);
}

}  // namespace

INTERPOSE(void*, mmap, (void* at, size_t bytes, int access, int flags, int fd, off_t offset)) {
  return map(at, bytes, access, flags, fd, offset);
}

INTERPOSE(void*, mmap64, (void* at, size_t bytes, int access, int flags, int fd, off64_t offset)) {
  return map(at, bytes, access, flags, fd, offset);
}

INTERPOSE(int, mprotect, (void* p, size_t bytes, int access)) {
  return change(p, bytes, access, [&] { return libc.mprotect(p, bytes, access); });
}

INTERPOSE(int, pkey_mprotect, (void* p, size_t bytes, int access, int key)) {
  return change(p, bytes, access, [&] { return libc.pkey_mprotect(p, bytes, access, key); });
}

}  // namespace sluice::preload
