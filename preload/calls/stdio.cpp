// What of stdio does not go through the tables that stdio_tables.cpp changes.
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "preload/closing.h"
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

bool is_ours(FILE* f) {
  int fd = f != nullptr ? fileno_unlocked(f) : -1;
  return descriptors.peek(fd) != nullptr;
}

int write_all(int fd, const char* text, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t k = write(fd, text + done, n - done);
    if (k < 0) return -1;
    done += size_t(k);
  }
  return 0;
}

int print(int fd, const char* format, va_list list) {
  char* text;
  int n = vasprintf(&text, format, list);
  if (n < 0) return n;
  int r = write_all(fd, text, size_t(n));
  int error = errno;
  free(text);
  errno = error;
  return r < 0 ? r : n;
}

// freopen closes the descriptor by duplicating another one onto it.
void leave(FILE* f) {
  be_ready();
  if (!is_ours(f)) return;
  int error = errno;
  fflush(f);
  let_go_of(fileno(f));
  errno = error;
}

}  // namespace

INTERPOSE(int, vdprintf, (int fd, const char* format, va_list list)) {
  be_ready();
  return descriptors.peek(fd) == nullptr ? libc.vdprintf(fd, format, list) : print(fd, format, list);
}

INTERPOSE(int, dprintf, (int fd, const char* format, ...)) {
  va_list list;
  va_start(list, format);
  int n = vdprintf(fd, format, list);
  va_end(list);
  return n;
}

INTERPOSE(int, __vdprintf_chk, (int fd, int flag, const char* format, va_list list)) {
  be_ready();
  return descriptors.peek(fd) == nullptr ? libc.__vdprintf_chk(fd, flag, format, list) : print(fd, format, list);
}

INTERPOSE(int, __dprintf_chk, (int fd, int flag, const char* format, ...)) {
  va_list list;
  va_start(list, format);
  int n = __vdprintf_chk(fd, flag, format, list);
  va_end(list);
  return n;
}

INTERPOSE(FILE*, freopen, (const char* path, const char* mode, FILE* f)) {
  leave(f);
  return libc.freopen(path, mode, f);
}

INTERPOSE(FILE*, freopen64, (const char* path, const char* mode, FILE* f)) {
  leave(f);
  return libc.freopen64(path, mode, f);
}

// A stream without orientation is to stay so; libc writes to a duplicate of its descriptor then.
INTERPOSE(void, perror, (const char* text)) {
  be_ready();
  if (!is_ours(stderr) || fwide(stderr, 0) != 0) return libc.perror(text);
  int error = errno;
  bool named = text != nullptr && *text != 0;
  char buffer[256];
  const char* reason = strerror_r(error, buffer, sizeof buffer);
  (void)dprintf(fileno(stderr), "%s%s%s\n", named ? text : "", named ? ": " : "", reason);
  errno = error;
}

}  // namespace sluice::preload
