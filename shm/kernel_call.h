// A system call without libc: errno stays the caller's, and no thread is cancelled in it. libc's syscall(2) is, in a program with
// the shim, the shim's own.
#pragma once

#include <errno.h>
#include <unistd.h>

namespace sluice::shm {

// What the kernel returns: >= 0, or -errno.
inline long kernel_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
#if defined(__x86_64__)
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  // volatile: it does something, also where nobody asks for the result.
  asm volatile("syscall"
               : "=a"(result)
               : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
#else
  int kept = errno;
  long result = syscall(number, a, b, c, d, e, f);
  if (result < 0) result = -errno;
  errno = kept;
  return result;
#endif
}

}  // namespace sluice::shm
