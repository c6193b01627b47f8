// Programs that are started with another environment, system(3) and popen(3).
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

extern char** environ;

namespace {

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "unset";
}

// What a program that is started by a preloaded one has, whatever it is given; natively nothing.
std::string own_settings() { return variable("LD_PRELOAD") + "|" + variable("SLUICE_DIR"); }

std::string read_stream(FILE* f) {
  std::string text;
  for (int c; (c = fgetc(f)) != EOF;) text += char(c);
  return text;
}

// Argument words that run `tell` in this executable.
struct Words {
  std::string program = "--program=tell";
  std::string path = "/proc/self/exe";
  char* argv[3] = {path.data(), program.data(), nullptr};
};

// What the program printed that `start` turned a forked child into, or started.
std::string output_of(const std::function<void()>& start) {
  int ends[2];
  CHECK_OK(pipe(ends));
  fflush(stdout);
  pid_t child = CHECK_OK(fork());
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    start();
    _exit(126);
  }
  close(ends[1]);
  std::string text = read_stream(fdopen(ends[0], "r"));
  CHECK_EQ(wait_exit(child), 0);
  return text;
}

char* const kEmpty[] = {nullptr};

}  // namespace

PROGRAM(tell) {
  printf("%s", own_settings().c_str());
  for (char** e = environ; *e != nullptr; e++)
    if (strncmp(*e, "LD_PRELOAD=", 11) != 0 && strncmp(*e, "SLUICE_DIR=", 11) != 0) printf("|%s", *e);
  return 0;
}

TEST("a program with an empty environment is preloaded as its parent was") {
  Words w;
  CHECK_EQ(output_of([&] { execve(w.argv[0], w.argv, kEmpty); }), own_settings());
  CHECK_EQ(output_of([&] { execvpe(w.argv[0], w.argv, kEmpty); }), own_settings());
  CHECK_EQ(output_of([&] { execle(w.argv[0], w.argv[0], w.argv[1], nullptr, kEmpty); }), own_settings());
  CHECK_EQ(output_of([&] { fexecve(open(w.argv[0], O_RDONLY), w.argv, kEmpty); }), own_settings());
  CHECK_EQ(output_of([&] { execveat(AT_FDCWD, w.argv[0], w.argv, kEmpty, 0); }), own_settings());
}

TEST("a null environment is an empty one") {
  Words w;
  CHECK_EQ(output_of([&] { execve(w.argv[0], w.argv, nullptr); }), own_settings());
}

TEST("clearenv before exec changes nothing else") {
  Words w;
  auto cleared = [&](auto&& start) {
    return output_of([&] {
      clearenv();
      setenv("KEPT", "1", 1);
      start();
    });
  };
  CHECK_EQ(cleared([&] { execv(w.argv[0], w.argv); }), own_settings() + "|KEPT=1");
  CHECK_EQ(cleared([&] { execvp(w.argv[0], w.argv); }), own_settings() + "|KEPT=1");
  CHECK_EQ(cleared([&] { execl(w.argv[0], w.argv[0], w.argv[1], nullptr); }), own_settings() + "|KEPT=1");
  CHECK_EQ(cleared([&] { execlp(w.argv[0], w.argv[0], w.argv[1], nullptr); }), own_settings() + "|KEPT=1");
}

TEST("a vfork child gives the settings on too") {
  Words w;
  CHECK_EQ(output_of([&] {
             pid_t child = vfork();
             if (child == 0) {
               execve(w.argv[0], w.argv, kEmpty);
               _exit(125);
             }
             _exit(wait_exit(child));
           }),
           own_settings());
}

TEST("posix_spawn with an empty or no environment gives the settings on") {
  for (char* const* environment : {static_cast<char* const*>(kEmpty), static_cast<char* const*>(nullptr)}) {
    Words w;
    std::string self(4096, 0);
    self.resize(size_t(CHECK_OK(readlink("/proc/self/exe", self.data(), self.size()))));
    CHECK_EQ(output_of([&] {
               pid_t child;
               if (posix_spawn(&child, self.c_str(), nullptr, nullptr, w.argv, environment) != 0) _exit(1);
               if (wait_exit(child) != 0) _exit(2);
               if (posix_spawnp(&child, self.c_str(), nullptr, nullptr, w.argv, environment) != 0) _exit(3);
               _exit(wait_exit(child));
             }),
             own_settings() + own_settings());
  }
}

TEST("env -i starts a program that is preloaded as well") {
  std::string self(4096, 0);
  self.resize(size_t(CHECK_OK(readlink("/proc/self/exe", self.data(), self.size()))));
  CHECK_EQ(output_of([&] { execlp("env", "env", "-i", "A=b", self.c_str(), "--program=tell", nullptr); }),
           own_settings() + "|A=b");
}

TEST("another library to preload stays, behind ours") {
  Words w;
  char other[] = "LD_PRELOAD=libm.so.6";
  char* const environment[] = {other, nullptr};
  std::string wanted = getenv("LD_PRELOAD") != nullptr ? variable("LD_PRELOAD") + ":libm.so.6" : "libm.so.6";
  CHECK_EQ(output_of([&] { execve(w.argv[0], w.argv, environment); }), wanted + "|" + variable("SLUICE_DIR"));
}

TEST("an empty SLUICE_DIR keeps a program without us") {
  Words w;
  char none[] = "SLUICE_DIR=";
  char* const environment[] = {none, nullptr};
  CHECK_EQ(output_of([&] { execve(w.argv[0], w.argv, environment); }), "unset|");
}

TEST("commands of a program without environment are preloaded as well") {
  std::string self(4096, 0);
  self.resize(size_t(CHECK_OK(readlink("/proc/self/exe", self.data(), self.size()))));
  std::string command = self + " --program=tell";
  std::string settings = own_settings();
  CHECK_EQ(output_of([&] {
             clearenv();
             _exit(WEXITSTATUS(system(command.c_str())));
           }).substr(0, settings.size()),
           settings);
  clearenv();
  FILE* f = popen(command.c_str(), "r");
  CHECK_EQ(read_stream(f).substr(0, settings.size()), settings);
  CHECK_EQ(pclose(f), 0);
}

// ---- system -----------------------------------------------------------------------------------

TEST("system returns the command's status") {
  CHECK_EQ(system("exit 7"), W_EXITCODE(7, 0));
  CHECK_EQ(system("kill -9 $$"), SIGKILL);
  CHECK_EQ(system("/no/such/program 2>/dev/null"), W_EXITCODE(127, 0));
  CHECK_EQ(system(nullptr), 1);
}

TEST("system gives its command the caller's mask and default SIGINT and SIGQUIT") {
  on_signal(SIGINT, count_signal);
  sigset_t some, now;
  sigemptyset(&some);
  sigaddset(&some, SIGUSR1);
  sigprocmask(SIG_SETMASK, &some, nullptr);
  CHECK_EQ(system("kill -INT $$; exit 3"), SIGINT);
  CHECK_EQ(system("kill -QUIT $PPID; kill -INT $PPID; exit 5"), W_EXITCODE(5, 0));  // ignored here meanwhile
  CHECK_EQ(signals_seen, 0);
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK_EQ(sigismember(&now, SIGUSR1), 1);
  CHECK_EQ(sigismember(&now, SIGCHLD), 0);
  raise(SIGINT);
  CHECK_EQ(signals_seen, 1);  // the handler is back
}

TEST("SIGCHLD of system's command is not for a handler that would reap it") {
  on_signal(SIGCHLD, [](int) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) count_signal(0);
  });
  CHECK_EQ(system("exit 4"), W_EXITCODE(4, 0));
}

TEST("system cannot tell the status when SIGCHLD is ignored") {
  on_signal(SIGCHLD, SIG_IGN);
  CHECK_EQ(system("exit 4"), -1);
  CHECK_EQ(errno, ECHILD);
}

TEST("several threads are in system at once") {
  struct sigaction before, after;
  sigaction(SIGINT, nullptr, &before);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 8; i++)
    workers.push_back(std::make_unique<Worker>([i] {
      CHECK_EQ(system(("exit " + std::to_string(i)).c_str()), W_EXITCODE(i, 0));
    }));
  workers.clear();
  sigaction(SIGINT, nullptr, &after);
  CHECK_TRUE(before.sa_handler == after.sa_handler);
}

TEST("a thread that is cancelled in system takes the command with it") {
  int ends[2];
  CHECK_OK(pipe(ends));
  static std::string command;
  command = "echo started >&" + std::to_string(ends[1]) + "; exec sleep 1000";
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, nullptr, [](void*) -> void* {
             (void)!system(command.c_str());
             return nullptr;
           }, nullptr), 0);
  char text[8];
  CHECK_EQ(read(ends[0], text, 8), 8);
  CHECK_EQ(pthread_cancel(thread), 0);
  void* result;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK_TRUE(result == PTHREAD_CANCELED);
  CHECK_ERRNO(waitpid(-1, nullptr, 0), ECHILD);
  struct sigaction now;
  sigaction(SIGINT, nullptr, &now);
  CHECK_TRUE(now.sa_handler == SIG_DFL);
}

TEST_EVERYWHERE("system's command writes to an inherited connection") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(system(("echo by the command >&" + std::to_string(fd)).c_str()), 0);
  CHECK_EQ(peer.receive(15), "by the command\n");
  write_all(fd, "and by us");
  CHECK_EQ(peer.receive(9), "and by us");
  peer.send("back");
  CHECK_EQ(read_exactly(fd, 4), "back");
}

// ---- popen ------------------------------------------------------------------------------------

TEST("popen reads, writes and tells the status") {
  FILE* in = popen("echo hello; exit 3", "r");
  CHECK_EQ(read_stream(in), "hello\n");
  CHECK_EQ(pclose(in), W_EXITCODE(3, 0));
  FILE* out = popen("read line; [ \"$line\" = hello ]", "w");
  fputs("hello\n", out);
  CHECK_EQ(pclose(out), 0);
}

TEST("popen refuses what is no mode") {
  for (const char* mode : {"", "rw", "x", "e", "r+"}) {
    CHECK_TRUE(popen("true", mode) == nullptr);
    CHECK_EQ(errno, EINVAL);
  }
}

TEST("popen's e closes the stream over exec, and nothing else does") {
  FILE* closed = popen("cat", "we");
  FILE* kept = popen("cat", "w");
  CHECK_EQ(fcntl(fileno(closed), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  CHECK_EQ(fcntl(fileno(kept), F_GETFD) & FD_CLOEXEC, 0);
  CHECK_EQ(pclose(closed), 0);
  CHECK_EQ(pclose(kept), 0);
}

TEST("a later command does not hold an earlier one's pipe") {
  FILE* first = popen("cat", "w");
  FILE* second = popen("cat", "w");
  FILE* third = popen("cat", "w");
  CHECK_EQ(pclose(first), 0);  // would wait for the others, were it open in them
  CHECK_EQ(pclose(second), 0);
  CHECK_EQ(pclose(third), 0);
}

TEST("popen works with standard input and output closed") {
  pid_t child = in_child([] {
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    FILE* in = popen("echo x", "r");
    CHECK_EQ(read_stream(in), "x\n");
    CHECK_EQ(pclose(in), 0);
    FILE* out = popen("read line; [ \"$line\" = y ]", "w");
    fputs("y\n", out);
    CHECK_EQ(pclose(out), 0);
  });
  CHECK_EQ(wait_exit(child), 0);
}

TEST("fclose of a command's stream waits for it") {
  FILE* f = popen("read line; exit 0", "w");
  int (*volatile any_fclose)(FILE*) = fclose;  // the compiler would rather have pclose
  any_fclose(f);
  CHECK_ERRNO(waitpid(-1, nullptr, 0), ECHILD);
}

TEST("pclose of a command that was waited for gives ECHILD") {
  FILE* f = popen("exit 0", "r");
  CHECK_OK(wait(nullptr));
  CHECK_ERRNO(pclose(f), ECHILD);
}

TEST_EVERYWHERE("popen's command writes to an inherited connection") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = popen(("cat >&" + std::to_string(fd)).c_str(), "w");
  fputs("through cat", f);
  CHECK_EQ(pclose(f), 0);
  CHECK_EQ(peer.receive(11), "through cat");
  peer.send("back");
  CHECK_EQ(read_exactly(fd, 4), "back");
}

TEST_ACROSS_PROCESSES("popen's command has a connection as its standard input") {
  auto [fd, peer] = connect_peer(where);
  int input = CHECK_OK(dup(STDIN_FILENO));
  CHECK_OK(dup2(fd, STDIN_FILENO));
  close(fd);
  FILE* f = popen("cat", "r");
  CHECK_OK(dup2(input, STDIN_FILENO));
  peer.send("for cat");
  peer.close();
  CHECK_EQ(read_stream(f), "for cat");
  CHECK_EQ(pclose(f), 0);
}
