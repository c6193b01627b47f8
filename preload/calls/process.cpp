// exec(3), posix_spawn(3): what stays open in the new program leaves shared memory first.
#include <alloca.h>
#include <spawn.h>
#include <stdarg.h>

#include "preload/dispatch.h"
#include "preload/environment.h"
#include "preload/escape.h"
#include "preload/fork.h"
#include "preload/spawn_plan.h"

extern char** environ;

namespace sluice::preload {

namespace {

// No memory but the stack: a vfork child's is its parent's, which would never get it back.
template <class Exec>
int depart(Exec&& exec) {
  Entrance entrance;
  uint32_t room = Departure::room();
  auto* list = static_cast<Leaving*>(alloca(room * sizeof(Leaving)));
  Departure departure(list, room);
  PipeDeparture pipes;
  PairDeparture pairs;
  int r = -1;
  if (departure.is_impossible()) errno = ENOMEM;
  else r = exec();
  pipes.call_off();
  pairs.call_off();
  departure.call_off();
  return r;
}

// Programs that search for a file try many that do not exist; those need no preparation.
bool is_missing(int directory, const char* path, int flags) {
  if (path == nullptr || (flags & AT_EMPTY_PATH) != 0) return false;
  int error = errno;
  if (faccessat(directory, path, F_OK, 0) != 0 && (errno == ENOENT || errno == ENOTDIR)) return true;
  errno = error;
  return false;
}

int execute(const char* path, char* const* argv, char* const* envp) {
  be_ready();
  if (is_missing(AT_FDCWD, path, 0)) return -1;
  envp = COMPLETE_ENVIRONMENT(envp);
  return depart([&] { return libc.execve(path, argv, envp); });
}

int search_and_execute(const char* file, char* const* argv, char* const* envp) {
  be_ready();
  envp = COMPLETE_ENVIRONMENT(envp);
  return depart([&] { return libc.execvpe(file, argv, envp); });
}

// Of an array for the arguments of the variadic forms, with its null.
size_t array_bytes(const char* first, va_list list) {
  va_list copy;
  va_copy(copy, list);
  size_t n = 1;
  for (const char* a = first; a != nullptr; a = va_arg(copy, const char*)) ++n;
  va_end(copy);
  return n * sizeof(char*);
}

// Returns what execle has behind them.
char* const* copy_arguments(const char* first, va_list list, char** to, bool has_environment = false) {
  for (const char* a = first; (*to++ = const_cast<char*>(a)) != nullptr;) a = va_arg(list, const char*);
  return has_environment ? va_arg(list, char* const*) : environ;
}

template <class Spawn>
int spawn_by(const posix_spawn_file_actions_t* actions, Spawn&& spawn) {
  be_ready();
  Entrance entrance;
  if (in_vfork_child()) return spawn(actions);
  PipeDeparture pipes;
  PairDeparture pairs;
  if (descriptors.high_water() == 0) {
    int error = outside([&] { return spawn(actions); });
    pipes.call_off();
    pairs.call_off();
    return error;
  }
  SpawnPlan plan(actions);
  int error = plan.is_impossible() ? ENOMEM : outside([&] { return spawn(plan.actions()); });
  plan.end(error == 0);
  pipes.call_off();
  pairs.call_off();
  return error;
}

}  // namespace

// fork(3) of libc runs what watch_forks() has registered.
INTERPOSE(pid_t, fork, (void)) {
  be_ready();
  int error = [] {
    Entrance entrance;
    return reserve_before_fork();
  }();
  return error != 0 ? finish(pid_t(error)) : outside([] { return libc.fork(); });  // the program's handlers run in it
}

INTERPOSE(int, execve, (const char* path, char* const* argv, char* const* envp)) { return execute(path, argv, envp); }

INTERPOSE(int, execv, (const char* path, char* const* argv)) { return execute(path, argv, environ); }

INTERPOSE(int, execvp, (const char* file, char* const* argv)) { return search_and_execute(file, argv, environ); }

INTERPOSE(int, execvpe, (const char* file, char* const* argv, char* const* envp)) {
  return search_and_execute(file, argv, envp);
}

INTERPOSE(int, execl, (const char* path, const char* first, ...)) {
  va_list list;
  va_start(list, first);
  auto** argv = static_cast<char**>(alloca(array_bytes(first, list)));
  (void)copy_arguments(first, list, argv);
  va_end(list);
  return execute(path, argv, environ);
}

INTERPOSE(int, execlp, (const char* file, const char* first, ...)) {
  va_list list;
  va_start(list, first);
  auto** argv = static_cast<char**>(alloca(array_bytes(first, list)));
  (void)copy_arguments(first, list, argv);
  va_end(list);
  return search_and_execute(file, argv, environ);
}

INTERPOSE(int, execle, (const char* path, const char* first, ...)) {
  va_list list;
  va_start(list, first);
  auto** argv = static_cast<char**>(alloca(array_bytes(first, list)));
  char* const* envp = copy_arguments(first, list, argv, true);
  va_end(list);
  return execute(path, argv, envp);
}

INTERPOSE(int, fexecve, (int fd, char* const* argv, char* const* envp)) {
  be_ready();
  envp = COMPLETE_ENVIRONMENT(envp);
  return depart([&] { return libc.fexecve(fd, argv, envp); });
}

INTERPOSE(int, execveat, (int directory, const char* path, char* const* argv, char* const* envp, int flags)) {
  be_ready();
  if (is_missing(directory, path, flags)) return -1;
  envp = COMPLETE_ENVIRONMENT(envp);
  return depart([&] { return libc.execveat(directory, path, argv, envp, flags); });
}

INTERPOSE(int, posix_spawn,
          (pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
           char* const* argv, char* const* envp)) {
  envp = COMPLETE_ENVIRONMENT(envp);
  return spawn_by(actions, [&](auto* a) { return libc.posix_spawn(pid, path, a, attributes, argv, envp); });
}

INTERPOSE(int, posix_spawnp,
          (pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
           char* const* argv, char* const* envp)) {
  envp = COMPLETE_ENVIRONMENT(envp);
  return spawn_by(actions, [&](auto* a) { return libc.posix_spawnp(pid, file, a, attributes, argv, envp); });
}

}  // namespace sluice::preload
