#include "preload/channels.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <iterator>

#include "preload/coordinator_link.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/mutex.h"

namespace sluice::preload {

namespace {

// Channels over which something was taken by the shim, by the kernel's cookie; and what was asked.
struct Channel {
  uint64_t cookie;
  uint32_t ticket;  // not answered yet, or 0
  bool shim;
};
Channel channels[64];
uint32_t next_channel = 0;

uint64_t cookie_of(int fd) {
  uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  return libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

Channel* find(uint64_t cookie) {
  for (Channel& c : channels)
    if (cookie != 0 && c.cookie == cookie) return &c;
  return nullptr;
}

void note(uint64_t cookie, uint32_t ticket, bool shim) {
  Guard guard(control_lock);
  Channel* c = find(cookie);
  if (c == nullptr) {
    c = &channels[next_channel++ % std::size(channels)];
    *c = {cookie, 0, false};
  }
  c->ticket = ticket;
  c->shim |= shim;
}

bool has_name(int fd) {
  for (auto name : {libc.getsockname, libc.getpeername}) {
    sockaddr_un a;
    socklen_t length = sizeof a;
    if (name(fd, reinterpret_cast<sockaddr*>(&a), &length) == 0 && length > sizeof a.sun_family) return true;
  }
  return false;
}

// Whether a file of the process in /proc has these words. -1: it is not to be known.
int mentions(pid_t pid, const char* file, const char* words) {
  char path[40], text[4096 + 128];
  size_t length = strlen(words), kept = 0;
  snprintf(path, sizeof path, "/proc/%d/%s", int(pid), file);
  int fd = int(libc.syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
  if (fd < 0 || length > 128) return -1;
  int found = 0;
  for (ssize_t n; found == 0 && (n = kernel::read(fd, text + kept, 4096)) > 0;) {
    size_t all = kept + size_t(n);
    found = memmem(text, all, words, length) != nullptr;
    kept = all < length ? all : length - 1;  // the words may be cut in two
    memmove(text, text + all - kept, kept);
  }
  kernel::close(fd);
  return found;
}

// Has the library, and was started with our coordinator: it will turn to it. -1: perhaps.
int has_shim(pid_t pid) {
  char setting[128];
  snprintf(setting, sizeof setting, "SLUICE_DIR=%s", coordinator.path());
  int library = mentions(pid, "maps", "/libsluice.so");
  return library != 1 ? library : mentions(pid, "environ", setting) == 1 ? 1 : -1;
}

}  // namespace

Takers takers_behind(int channel) {
  uint64_t cookie = cookie_of(channel);
  {
    Guard guard(control_lock);
    if (Channel* c = find(cookie); c != nullptr && c->shim) return Takers::kShim;
  }
  // A socket pair says who has made it; a connection, who has connected or listens.
  if (!has_name(channel)) return Takers::kUnknown;
  ucred who{};
  socklen_t length = sizeof who;
  if (libc.getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0 || who.pid <= 0) return Takers::kUnknown;
  if (who.uid != geteuid()) return Takers::kStrangers;
  int shim = has_shim(who.pid);
  if (shim == 1) note(cookie, 0, true);
  return shim == 1 ? Takers::kShim : shim == 0 ? Takers::kStrangers : Takers::kUnknown;
}

void remember_question(int channel, uint32_t ticket) { note(cookie_of(channel), ticket, false); }

void ticket_was_taken(uint32_t ticket) {
  for (Channel& c : channels)
    if (c.ticket == ticket) c.shim = true;
}

}  // namespace sluice::preload
