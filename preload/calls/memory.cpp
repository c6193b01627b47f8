// mmap(2), mprotect(2), pkey_mprotect(2), dlopen(3), as far as they make memory executable (code_watch.h).
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "preload/code_watch.h"
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

size_t pages_of(size_t bytes) { return (bytes + shm::kPageBytes - 1) & ~(shm::kPageBytes - 1); }

int judge(void* code, size_t bytes) {
  Entrance entrance;
  int error = errno;
  int r = judge_code(code, bytes);
  errno = error;
  return r;
}

#if defined(__x86_64__)
// Allocators map memory before anything of libc's can be looked up. `volatile`: the call is made whatever becomes of its result.
long call_early(long number, long a, long b, long c, long d = 0, long e = 0, long f = 0) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return finish(number);
}
#else
long call_early(long number, long a, long b, long c, long d = 0, long e = 0, long f = 0) {
  be_ready();
  return libc.syscall(number, a, b, c, d, e, f);
}
#endif

void* map(void* at, size_t bytes, int access, int flags, int fd, off_t offset) {
  if (libc.mmap == nullptr) [[unlikely]] return reinterpret_cast<void*>(call_early(SYS_mmap, long(at), long(bytes), access, flags, fd, offset));
  if (is_watched(access) && is_refused(access)) return errno = EACCES, MAP_FAILED;
  bool in_place_of_another = (flags & MAP_FIXED) != 0;
  if (is_watched(access) && refuses_code() && in_place_of_another && (flags & MAP_ANONYMOUS) == 0) {
    // Looked at elsewhere first: what is there stays if this is refused.
    void* p = libc.mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, offset);
    int error = p != MAP_FAILED ? judge(p, pages_of(bytes)) : 0;
    if (p != MAP_FAILED) munmap(p, bytes);
    if (error != 0) return errno = -error, MAP_FAILED;
  }
  if (key_page.both != 0 && in_place_of_another) note_writing(at, pages_of(bytes));
  void* p = libc.mmap(at, bytes, access, flags, fd, offset);
  bool is_new = (flags & MAP_ANONYMOUS) != 0;
  if (!is_watched(access) || p == MAP_FAILED || is_new) return p;  // in new memory there is nothing yet
  int error = judge(p, pages_of(bytes));
  if (error == 0) return p;
  munmap(p, bytes);
  errno = -error;
  return MAP_FAILED;
}

[[gnu::noinline]] void begin_library() {
  Entrance entrance;
  note_library();
}

template <class Change>
int change(void* p, size_t bytes, int access, Change&& change) {
  if (key_page.both != 0 && (access & PROT_WRITE) != 0) note_writing(p, pages_of(bytes));
  if (!is_watched(access)) return change();
  if (is_refused(access)) return finish(-EACCES);
  int r = change();
  int error = r == 0 ? judge(p, pages_of(bytes)) : 0;
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
  if (libc.mprotect == nullptr) [[unlikely]] return int(call_early(SYS_mprotect, long(p), long(bytes), access));
  return change(p, bytes, access, [&] { return libc.mprotect(p, bytes, access); });
}

INTERPOSE(int, pkey_mprotect, (void* p, size_t bytes, int access, int key)) {
  if (libc.pkey_mprotect == nullptr) [[unlikely]] return int(call_early(SYS_pkey_mprotect, long(p), long(bytes), access, key));
  return change(p, bytes, access, [&] { return libc.pkey_mprotect(p, bytes, access, key); });
}

// A jump, not a call: the loader asks who calls it, and looks for libraries where that one says.
INTERPOSE(void*, dlopen, (const char* file, int mode)) {
  be_ready();
  begin_library();
  return libc.dlopen(file, mode);
}

INTERPOSE(void*, dlmopen, (Lmid_t space, const char* file, int mode)) {
  be_ready();
  begin_library();
  return libc.dlmopen(space, file, mode);
}

}  // namespace sluice::preload
