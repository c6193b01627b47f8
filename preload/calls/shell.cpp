// system(3) and popen(3). libc's own start their commands out of the wrappers' sight, which
// would take from them the connections that they inherit; so these are ours, over posix_spawn.
#include "preload/shell.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "preload/coordinator_link.h"
#include "preload/dispatch.h"
#include "preload/pool.h"

extern char** environ;

namespace sluice::preload {

namespace {

constexpr char kShell[] = "/bin/sh";

int spawn_shell(pid_t* pid, const char* command, const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes) {
  char name[] = "sh", option[] = "-c";
  char* const argv[] = {name, option, const_cast<char*>(command), nullptr};
  return posix_spawn(pid, kShell, actions, attributes, argv, environ);
}

int wait_for(pid_t pid, int* status) {
  while (waitpid(pid, status, 0) != pid)
    if (errno != EINTR) return -1;
  return 0;
}

// ---- system -------------------------------------------------------------------------------

// While any thread is in system(), SIGINT and SIGQUIT are for the commands.
Mutex system_lock;
int in_system = 0;
struct sigaction interrupt_before, quit_before;

struct Command {
  pid_t pid;
  sigset_t mask_before;
};

void enter_system() {
  Entrance entrance;
  Guard guard(system_lock);
  if (in_system++ > 0) return;
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGINT, &ignore, &interrupt_before);
  sigaction(SIGQUIT, &ignore, &quit_before);
}

void leave_system() {
  Entrance entrance;
  Guard guard(system_lock);
  if (--in_system > 0) return;
  sigaction(SIGINT, &interrupt_before, nullptr);
  sigaction(SIGQUIT, &quit_before, nullptr);
}

// A cancelled thread takes its command with it.
void abort_command(void* argument) {
  auto& c = *static_cast<Command*>(argument);
  int status;
  kill(c.pid, SIGKILL);
  (void)wait_for(c.pid, &status);
  leave_system();
  sigprocmask(SIG_SETMASK, &c.mask_before, nullptr);
}

int run_command(const char* command) {
  Command c{};
  enter_system();
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, &c.mask_before);

  sigset_t defaults;
  sigemptyset(&defaults);
  if (interrupt_before.sa_handler != SIG_IGN) sigaddset(&defaults, SIGINT);
  if (quit_before.sa_handler != SIG_IGN) sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &c.mask_before);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  int error = spawn_shell(&c.pid, command, nullptr, &attributes);
  posix_spawnattr_destroy(&attributes);

  int status = W_EXITCODE(127, 0);  // as if the shell could not be executed
  if (error == 0) {
    pthread_cleanup_push(abort_command, &c);
    if (wait_for(c.pid, &status) != 0) status = -1;
    pthread_cleanup_pop(0);
  }
  int wait_error = errno;
  leave_system();
  sigprocmask(SIG_SETMASK, &c.mask_before, nullptr);
  errno = error != 0 ? error : wait_error;
  return status;
}

// ---- popen --------------------------------------------------------------------------------

struct OpenCommand {
  FILE* stream;
  pid_t pid;
  OpenCommand* next;
  void* pool_link;
};
OpenCommand* open_commands = nullptr;
Mutex popen_lock;
constinit Pool<OpenCommand> command_pool;  // under popen_lock

// Takes the command behind `f` off the list. Its process, or 0.
pid_t take_command(FILE* f) {
  Entrance entrance;
  Guard guard(popen_lock);
  for (OpenCommand** at = &open_commands; *at != nullptr; at = &(*at)->next) {
    OpenCommand* c = *at;
    if (c->stream != f) continue;
    *at = c->next;
    pid_t pid = c->pid;
    command_pool.destroy(c);
    return pid;
  }
  return 0;
}

// The command gets its end of the pipe as `to` and nobody else's. Under popen_lock. 0 or an error.
int spawn_on_pipe(pid_t* pid, const char* command, int end, int to) {
  posix_spawn_file_actions_t actions;
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0) return error;
  error = posix_spawn_file_actions_adddup2(&actions, end, to);
  for (OpenCommand* c = open_commands; c != nullptr && error == 0; c = c->next)
    if (int fd = fileno_unlocked(c->stream); fd >= 0 && fd != to) error = posix_spawn_file_actions_addclose(&actions, fd);
  if (error == 0) error = spawn_shell(pid, command, &actions, nullptr);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// -errno, or 0 with `out`.
int open_command(const char* command, bool reads, bool cloexec, FILE*& out) {
  Entrance entrance;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  int own = ends[reads ? 0 : 1], its = ends[reads ? 1 : 0], to = reads ? STDOUT_FILENO : STDIN_FILENO;
  FILE* f = fdopen(own, reads ? "r" : "w");
  int error = f != nullptr ? 0 : ENOMEM;
  if (error == 0 && its == to) {  // it has the right number by chance, and must be kept by exec
    its = fcntl(to, F_DUPFD_CLOEXEC, 0);
    error = its < 0 ? errno : 0;
    outside([&] { close(to); });
  }
  if (error == 0) {
    Guard guard(popen_lock);
    pid_t pid;
    OpenCommand* c = command_pool.create();
    error = c != nullptr ? spawn_on_pipe(&pid, command, its, to) : ENOMEM;
    if (error == 0) {
      if (!cloexec) fcntl(own, F_SETFD, 0);
      *c = {f, pid, open_commands, nullptr};
      open_commands = c;
    } else if (c != nullptr) {
      command_pool.destroy(c);
    }
  }
  if (its >= 0) outside([&] { close(its); });
  if (error == 0) {
    out = f;
    return 0;
  }
  outside([&] {
    if (f != nullptr) libc.fclose(f);
    else close(own);
  });
  return -error;
}

int close_command(FILE* f, pid_t pid) {
  int status = -1;
  (void)libc.fclose(f);
  return wait_for(pid, &status) == 0 ? status : -1;
}

}  // namespace

void reset_shell_locks() {
  system_lock.reset();
  popen_lock.reset();
}

INTERPOSE(int, system, (const char* command)) {
  be_ready();
  if (!coordinator.enabled()) return libc.system(command);
  return command != nullptr ? run_command(command) : run_command("exit 0") == 0;
}

INTERPOSE(FILE*, popen, (const char* command, const char* mode)) {
  be_ready();
  if (!coordinator.enabled()) return libc.popen(command, mode);
  bool reads = strchr(mode, 'r') != nullptr, writes = strchr(mode, 'w') != nullptr;
  bool known = strspn(mode, "rwe") == strlen(mode) && reads != writes;
  FILE* f = nullptr;
  (void)finish(known ? open_command(command, reads, strchr(mode, 'e') != nullptr, f) : -EINVAL);
  return f;
}

INTERPOSE(int, pclose, (FILE* f)) {
  be_ready();
  pid_t pid = take_command(f);
  return pid != 0 ? close_command(f, pid) : libc.pclose(f);
}

// As libc's does for what popen returned.
INTERPOSE(int, fclose, (FILE* f)) {
  be_ready();
  if (__atomic_load_n(&open_commands, __ATOMIC_RELAXED) == nullptr) return libc.fclose(f);  // the caller's own is on it
  return pclose(f);
}

}  // namespace sluice::preload
