// Where a test lets a process die or stop: at the labelled edges of the rings and at each message of the protocol. In what is
// built for use there is nothing of it; tests/faults builds the library and the coordinator once more, with
// SLUICE_DEATH_POINTS.
//
//   SLUICE_DEATH=R0.before,3    the third time that this process comes to just before R0 it kills itself
//   SLUICE_STOP=R0.before,FILE  when it comes there and the file exists it removes the file and stops (SIGSTOP)
//   SLUICE_DEATH_LOG=FILE       gets the name of each place that a process comes to, once
#pragma once

#ifdef SLUICE_DEATH_POINTS
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sluice::shm {

#ifdef SLUICE_DEATH_POINTS

inline void come_to(const char* what, unsigned which, const char* when) {
  static int visits = 0, logged_count = 0;
  static char logged[256][48];
  int error = errno;
  char name[48];
  int bytes = which == 0 ? snprintf(name, sizeof name, "%s.%s", what, when)
                         : snprintf(name, sizeof name, "%s-%u.%s", what, which, when);
  if (const char* wanted = getenv("SLUICE_DEATH"); wanted != nullptr) {
    bool here = strncmp(wanted, name, size_t(bytes)) == 0 && wanted[bytes] == ',';
    if (here && ++visits == atoi(wanted + bytes + 1)) kill(getpid(), SIGKILL);
  }
  if (const char* wanted = getenv("SLUICE_STOP"); wanted != nullptr) {
    bool here = strncmp(wanted, name, size_t(bytes)) == 0 && wanted[bytes] == ',';
    if (here && syscall(SYS_unlinkat, AT_FDCWD, wanted + bytes + 1, 0) == 0) kill(getpid(), SIGSTOP);
    errno = error;
  }
  const char* path = getenv("SLUICE_DEATH_LOG");
  for (int i = 0; path != nullptr && i < logged_count; ++i)
    if (strcmp(logged[i], name) == 0) return;
  if (path == nullptr || logged_count == 256) return;
  memcpy(logged[logged_count++], name, sizeof name);
  name[bytes] = '\n';
  int fd = int(syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666));
  (void)!syscall(SYS_write, fd, name, size_t(bytes) + 1);
  syscall(SYS_close, fd);
}

// Before what follows it in its block, and after it.
class DeathPoint {
 public:
  explicit DeathPoint(const char* what, unsigned which = 0) : what_(what), which_(which) { come_to(what_, which_, "before"); }
  ~DeathPoint() { come_to(what_, which_, "after"); }

 private:
  const char* what_;
  unsigned which_;
};

#else

class [[maybe_unused]] DeathPoint {
 public:
  constexpr explicit DeathPoint(const char*, unsigned = 0) {}
};

#endif

}  // namespace sluice::shm
