// exec(3): what stays open leaves shared memory first. If the exec then fails, the program goes on
// with kernel descriptors that the shim still takes for its own, so they are forgotten.
#include "preload/dispatch.h"
#include "preload/escape.h"

extern char** environ;

namespace sluice::preload {

INTERPOSE(int, execve, (const char* path, char* const* argv, char* const* envp)) {
  be_ready();
  escape_before_exec();
  return libc.execve(path, argv, envp);
}

INTERPOSE(int, execv, (const char* path, char* const* argv)) {
  be_ready();
  escape_before_exec();
  return libc.execv(path, argv);
}

INTERPOSE(int, execvp, (const char* file, char* const* argv)) {
  be_ready();
  escape_before_exec();
  return libc.execvp(file, argv);
}

INTERPOSE(int, execvpe, (const char* file, char* const* argv, char* const* envp)) {
  be_ready();
  escape_before_exec();
  return libc.execvpe(file, argv, envp);
}

INTERPOSE(int, fexecve, (int fd, char* const* argv, char* const* envp)) {
  be_ready();
  escape_before_exec();
  return libc.fexecve(fd, argv, envp);
}

}  // namespace sluice::preload
