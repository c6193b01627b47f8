// What the processes of a test program have in common: the page on which they tell each other what happened, and
// calls whose every answer is looked at.
#pragma once

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <initializer_list>

#include "tests/faults/inject/calls.h"

namespace sluice::tests {

struct Page {
  sem_t listening, met;
  std::atomic<int> port;
  std::atomic<bool> over;          // the client has done what it wanted
  std::atomic<int> refusals;       // calls that failed, as they may
  std::atomic<int> wrong;          // what may not happen
  std::atomic<int> resets;
  std::atomic<int> attempts;
  std::atomic<int> killed;
};

inline Page* page = nullptr;
inline bool mortal = false;  // somebody will die, so an end may come at any time
inline bool orphaned = false;  // the coordinator will die: what it alone can do is refused (docs/divergences.md)
inline bool strict = false;  // the call that is made to fail is one that no program here makes itself
inline const char* side = "?";
inline int refused_before = 0;  // when the last conversation of this process was over

[[gnu::format(printf, 1, 2)]] inline void wrong(const char* format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  char line[500];
  int n = snprintf(line, sizeof line, "WRONG: %s (%d): %s\n", side, getpid(), text);
  (void)!write(2, line, size_t(n));
  page->wrong.fetch_add(1);
}

inline void be(const char* name) {
  side = name;
  prctl(kMark, role_of(name), 0, 0, 0);
}

inline void take(sem_t& s) {
  while (sem_wait(&s) != 0)
    if (errno != EINTR && errno != EAGAIN) return wrong("sem_wait: %s", strerror(errno));
}

enum class Result { kFine, kRefused, kEnd };

// What the manual pages, and POSIX where they say nothing, have for each call when the host is short of something. What
// is EINTR or EAGAIN without a handler and without O_NONBLOCK is none of it, unless it was this very call that was
// made to fail.
struct Documented {
  const char* call;
  std::initializer_list<int> errors;
};
inline const Documented kDocumented[] = {
    {"socket", {EMFILE, ENFILE, ENOBUFS, ENOMEM}},
    {"bind", {ENOBUFS, ENOMEM}},
    {"listen", {ENOBUFS, ENOMEM}},
    {"connect", {ENOBUFS, ENOMEM, ECONNREFUSED, EAGAIN}},
    {"accept", {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED}},
    {"read", {ENOMEM, ENOBUFS}},
    {"write", {ENOMEM, ENOBUFS}},
    {"poll", {ENOMEM, EINTR}},
    {"epoll_create", {EMFILE, ENFILE, ENOMEM}},
    {"epoll_ctl", {ENOMEM, ENOSPC}},
    {"epoll_wait", {EINTR}},
    {"fork", {EAGAIN, ENOMEM}},
    {"exec", {ENOMEM, EMFILE, ENFILE, EAGAIN}},
    {"dup", {EMFILE}},
    {"pipe", {EMFILE, ENFILE}},
    {"sendmsg", {ENOMEM, ENOBUFS, ETOOMANYREFS, EOPNOTSUPP}},
    {"recvmsg", {ENOMEM, ENOBUFS}},
    {"shutdown", {ENOBUFS, ENOMEM}},
    {"fcntl", {ENOMEM}},
};

inline bool is_documented(const char* call, int error) {
  for (const Documented& d : kDocumented) {
    if (strcmp(d.call, call) != 0) continue;
    for (int e : d.errors)
      if (e == error) return true;
  }
  return !strict && (error == EINTR || error == EAGAIN);
}

// Who has taken a connection out of a message, and has not what it takes to hold it, has an unconnected socket
// (docs/divergences.md).
inline bool is_unconnected(const char* call, int error) {
  return error == ENOTCONN && strcmp(side, "worker") == 0 && strcmp(call, "read") == 0;
}

// A call that failed. kFine: it is to be made again.
inline Result look_at(const char* call, int error) {
  if (error == ECONNRESET || error == EPIPE) {
    page->resets.fetch_add(1);
    return Result::kEnd;
  }
  if (orphaned && (error == EOPNOTSUPP || error == ENOTCONN || error == ENOBUFS || error == ENOTSOCK)) error = ENOBUFS;
  else if (!is_documented(call, error) && !is_unconnected(call, error)) wrong("%s: %s", call, strerror(error));
  if (error == EINTR || (error == EAGAIN && strcmp(call, "fork") != 0 && strcmp(call, "exec") != 0)) return Result::kFine;
  if (getenv("SAY") != nullptr) fprintf(stderr, "%s (%d): %s: %s\n", side, getpid(), call, strerror(error));
  page->refusals.fetch_add(1);
  return Result::kRefused;
}

// `call()` until it is done. -1: refused, or the end.
template <class F>
long done(const char* name, F&& call) {
  for (;;) {
    long n = call();
    if (n >= 0) return n;
    if (look_at(name, errno) != Result::kFine) return -1;
  }
}

// The n-th byte of what is sent.
inline char byte_at(size_t i) { return char(i * 131 + (i >> 8) * 7 + (i >> 16)); }

}  // namespace sluice::tests
