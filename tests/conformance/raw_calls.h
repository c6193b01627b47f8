// System calls made without libc, as some language run-times do.
#pragma once

#include <sys/syscall.h>

#include <cstddef>

namespace conformance {

inline long raw_call(long number, long a, long b, long c) {
#if defined(__x86_64__)
  long result;
  asm volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
#endif
}

// Bytes, or -errno.
inline long raw_write(int fd, const void* bytes, size_t n) { return raw_call(SYS_write, fd, long(bytes), long(n)); }
inline long raw_read(int fd, void* bytes, size_t n) { return raw_call(SYS_read, fd, long(bytes), long(n)); }

}  // namespace conformance
