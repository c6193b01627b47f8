// inject --call=NAME (--error=NUMBER | --short) --nth=N [--role=NAME | --control] -- COMMAND ARGS...
//
// Runs a command in which the N-th call of a kind fails, or transfers less than it was asked to. Every process that it
// starts is concerned, and every way to make the call: a seccomp filter sends it to us (seccomp_unotify(2)), who count,
// and answer or let it go on.
//
// With --role only processes count that have said to be that (calls.h), and, without --no-helpers, such that never said
// anything, once one has: the helpers of the others. exec ends it, until the new program says something. With --control all do, and each
// line on standard input, a number, says which one from now on is to fail (0: none), and is answered by how many have
// been seen since the line before.
//
// Ends when the last of the processes has ended; then it prints how many calls it has seen, and exits as COMMAND did.
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "tests/faults/inject/calls.h"

namespace sluice::tests {
namespace {

struct Options {
  const Call* call = nullptr;
  int error = 0;
  bool is_short = false;
  long nth = 0;
  uint64_t role = 0;
  bool control = false;
  bool helpers = true;
  char** command = nullptr;
};

[[noreturn]] void die(const char* what) {
  perror(what);
  _exit(125);
}

Options parse(int argc, char** argv) {
  Options o;
  int i = 1;
  for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    std::string_view word = argv[i];
    std::string value(word.substr(std::min(word.find('=') + 1, word.size())));
    if (word.starts_with("--call=")) {
      for (const Call& c : kCalls)
        if (value == c.name) o.call = &c;
    } else if (word.starts_with("--error=")) {
      o.error = atoi(value.c_str());
    } else if (word.starts_with("--nth=")) {
      o.nth = atol(value.c_str());
    } else if (word.starts_with("--role=")) {
      o.role = role_of(value);
    } else if (word == "--short") {
      o.is_short = true;
    } else if (word == "--no-helpers") {
      o.helpers = false;
    } else if (word == "--control") {
      o.control = true;
    } else {
      break;
    }
  }
  if (o.call == nullptr || i + 1 >= argc || std::string_view(argv[i]) != "--") {
    fprintf(stderr, "inject: see the head of inject.cpp\n");
    exit(2);
  }
  o.command = argv + i + 1;
  return o;
}

// ---- in the command's process -----------------------------------------------------------------------------------

int install_filter(const Call& call) {
  constexpr uint32_t kNotify = SECCOMP_RET_USER_NOTIF, kAllow = SECCOMP_RET_ALLOW;
  constexpr uint32_t kNumber = offsetof(seccomp_data, nr);
  auto low_half = [](int argument) { return uint32_t(offsetof(seccomp_data, args) + 8 * argument); };
  std::vector<sock_filter> code = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, kAllow),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kNotify),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low_half(0)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kMark, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kNotify),
      BPF_STMT(BPF_RET | BPF_K, kAllow),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, uint32_t(call.number), 1, 0),
      BPF_STMT(BPF_RET | BPF_K, kAllow),
  };
  if (call.argument >= 0) {
    code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low_half(call.argument)));
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call.value, 1, 0));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, kAllow));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, kNotify));
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return int(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

// The supervisor takes the filter's descriptor out of this process: to send it could need a call that the filter
// holds up. Its number is said before, that it is there by closing `told`.
[[noreturn]] void run_command(const Options& o, int told) {
  int number = fcntl(0, F_DUPFD_CLOEXEC, 0);
  close(number);
  if (write(told, &number, sizeof number) != sizeof number) die("write");
  if (install_filter(*o.call) != number) die("seccomp");
  close(told);
  execvp(o.command[0], o.command);
  die(o.command[0]);
}

// ---- the supervisor ---------------------------------------------------------------------------------------------

class Supervisor {
 public:
  Supervisor(const Options& o, int listener) : options_(o), listener_(listener), nth_(o.nth) {}

  void run(pid_t child) {
    pollfd fds[2] = {{listener_, POLLIN, 0}, {options_.control ? 0 : -1, POLLIN, 0}};
    for (;;) {
      if (poll(fds, 2, -1) < 0) continue;
      if ((fds[0].revents & POLLIN) != 0) one_call();
      else if ((fds[0].revents & POLLHUP) != 0) break;  // the last one has ended
      if (fds[1].revents != 0 && !obey()) {
        kill(child, SIGTERM);
        fds[1].fd = -1;
      }
    }
  }
  long seen() const { return seen_; }

 private:
  bool obey() {
    char line[32];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0) return false;
    line[n] = 0;
    printf("%ld\n", seen_);
    fflush(stdout);
    seen_ = 0;
    nth_ = atol(line);
    return true;
  }

  void one_call() {
    seccomp_notif call{};
    if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return;
    seccomp_notif_resp answer{};
    answer.id = call.id;
    answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    pid_t process = process_of(pid_t(call.pid));
    if (call.data.nr == SYS_prctl && options_.call->number != SYS_prctl) {
      roles_[process] = call.data.args[1];
      begun_ |= call.data.args[1] == options_.role;
      answer.flags = 0;
    } else if (call.data.nr == SYS_execve) {
      roles_[process] = kExecuted;
    } else if (counts(process, call.data) && ++seen_ == nth_) {
      if (options_.is_short) transfer_less(call, answer);
      else answer.flags = 0, answer.error = -options_.error;
    }
    ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer);  // fails if a signal came in between: it is called again
  }

  bool counts(pid_t process, const seccomp_data& d) const {
    if (d.nr == SYS_futex) {  // only those that wait
      int what = int(d.args[1]) & FUTEX_CMD_MASK;
      if (what != FUTEX_WAIT && what != FUTEX_WAIT_BITSET) return false;
    }
    if (options_.control) return true;
    auto role = roles_.find(process);
    if (role == roles_.end()) return begun_ && options_.helpers;
    return role->second == options_.role;
  }

  static pid_t process_of(pid_t thread) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", thread);
    FILE* f = fopen(path, "r");
    int process = thread;
    while (f != nullptr && fgets(line, sizeof line, f) != nullptr)
      if (sscanf(line, "Tgid: %d", &process) == 1) break;
    if (f != nullptr) fclose(f);
    return process;
  }

  // ---- in the caller's stead, with half the bytes

  struct Borrowed {
    int fd;
    Borrowed(pid_t from, int number) {
      int pidfd = int(syscall(SYS_pidfd_open, from, 0));
      fd = pidfd < 0 ? -1 : int(syscall(SYS_pidfd_getfd, pidfd, number, 0));
      close(pidfd);
    }
    ~Borrowed() { close(fd); }
    // A record comes whole or not at all.
    bool has_records() const {
      int type = 0;
      socklen_t length = sizeof type;
      return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type != SOCK_STREAM;
    }
    bool is_ready(short events) const {
      pollfd p{fd, events, 0};
      return fd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & events) != 0;
    }
  };

  static bool is_message(const seccomp_data& d) { return d.nr == SYS_sendmsg || d.nr == SYS_recvmsg; }

  // Empty for a message that may have more than bytes.
  std::vector<iovec> vector_of(pid_t who, const seccomp_data& d) const {
    if (is_message(d)) {
      msghdr m{};
      iovec to{&m, sizeof m}, from{reinterpret_cast<void*>(d.args[1]), sizeof m};
      if (process_vm_readv(who, &to, 1, &from, 1, 0) != sizeof m || m.msg_controllen != 0 || m.msg_namelen != 0) return {};
      return vectors_at(who, m.msg_iov, m.msg_iovlen);
    }
    if (d.nr != SYS_readv && d.nr != SYS_writev && d.nr != SYS_preadv)
      return {{reinterpret_cast<void*>(d.args[1]), size_t(d.args[2])}};
    return vectors_at(who, reinterpret_cast<iovec*>(d.args[1]), d.args[2]);
  }

  static std::vector<iovec> vectors_at(pid_t who, iovec* at, size_t count) {
    std::vector<iovec> theirs(std::min<size_t>(count, 64));
    iovec to{theirs.data(), theirs.size() * sizeof(iovec)}, from{at, to.iov_len};
    if (process_vm_readv(who, &to, 1, &from, 1, 0) != ssize_t(to.iov_len)) return {};
    return theirs;
  }

  void transfer_less(const seccomp_notif& call, seccomp_notif_resp& answer) {
    const seccomp_data& d = call.data;
    pid_t who = pid_t(call.pid);
    ssize_t done = d.nr == SYS_splice ? splice_less(who, d) : copy_less(who, d);
    if (done <= 0) return void(--seen_);  // this one cannot be shortened: the next one
    answer.flags = 0;
    answer.val = done;
  }

  ssize_t splice_less(pid_t who, const seccomp_data& d) const {
    Borrowed from(who, int(d.args[0])), to(who, int(d.args[2]));
    if (d.args[1] != 0 || d.args[3] != 0 || d.args[4] < 2 || !from.is_ready(POLLIN) || !to.is_ready(POLLOUT)) return -1;
    return splice(from.fd, nullptr, to.fd, nullptr, d.args[4] / 2, unsigned(d.args[5]) | SPLICE_F_NONBLOCK);
  }

  ssize_t copy_less(pid_t who, const seccomp_data& d) const {
    bool writes = d.nr == SYS_write || d.nr == SYS_writev || d.nr == SYS_sendto || d.nr == SYS_sendmsg;
    std::vector<iovec> theirs = vector_of(who, d);
    size_t total = 0;
    for (const iovec& v : theirs) total += v.iov_len;
    Borrowed file(who, int(d.args[0]));
    if (total < 2 || file.has_records() || !file.is_ready(writes ? POLLOUT : POLLIN)) return -1;
    std::vector<char> bytes(std::min<size_t>(total / 2, 4096));
    iovec mine{bytes.data(), bytes.size()};
    if (writes) {
      if (process_vm_readv(who, &mine, 1, theirs.data(), theirs.size(), 0) != ssize_t(bytes.size())) return -1;
      if (is_message(d)) return send(file.fd, bytes.data(), bytes.size(), int(d.args[2]) | MSG_DONTWAIT | MSG_NOSIGNAL);
      if (d.nr == SYS_sendto) return send(file.fd, bytes.data(), bytes.size(), int(d.args[3]) | MSG_DONTWAIT | MSG_NOSIGNAL);
      return write(file.fd, bytes.data(), bytes.size());
    }
    ssize_t n = is_message(d)         ? recv(file.fd, bytes.data(), bytes.size(), int(d.args[2]) | MSG_DONTWAIT)
                : d.nr == SYS_recvfrom ? recv(file.fd, bytes.data(), bytes.size(), int(d.args[3]) | MSG_DONTWAIT)
                : d.nr == SYS_preadv ? pread(file.fd, bytes.data(), bytes.size(), off_t(d.args[3]))
                                     : read(file.fd, bytes.data(), bytes.size());
    mine.iov_len = size_t(std::max<ssize_t>(n, 0));
    if (n > 0 && process_vm_writev(who, &mine, 1, theirs.data(), theirs.size(), 0) != n) return -1;
    return n;
  }

  static constexpr uint64_t kExecuted = 1;
  const Options& options_;
  int listener_;
  long nth_;
  long seen_ = 0;
  bool begun_ = false;
  std::map<pid_t, uint64_t> roles_;
};

int descriptor_of(pid_t child, int told) {
  int number = -1;
  char none;
  if (read(told, &number, sizeof number) != sizeof number || read(told, &none, 1) != 0) die("the command");
  int pidfd = int(syscall(SYS_pidfd_open, child, 0));
  int listener = int(syscall(SYS_pidfd_getfd, pidfd, number, 0));
  if (listener < 0) die("pidfd_getfd");
  close(pidfd);
  return listener;
}

int supervise(const Options& o) {
  int told[2];
  if (pipe2(told, O_CLOEXEC) != 0) die("pipe2");
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    close(told[0]);
    run_command(o, told[1]);
  }
  close(told[1]);
  signal(SIGINT, SIG_IGN);
  Supervisor supervisor(o, descriptor_of(child, told[0]));
  supervisor.run(child);
  int status = 0;
  waitpid(child, &status, 0);
  printf("inject: %ld calls\n", supervisor.seen());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace
}  // namespace sluice::tests

int main(int argc, char** argv) { return sluice::tests::supervise(sluice::tests::parse(argc, argv)); }
