#include "monitor/process.h"

#include <linux/capability.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <fstream>

namespace sluice::monitor {
namespace {

std::string of_process(int32_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

// A socket that was accepted belongs to the namespace of the one that connected.
uint64_t cookie_of(int socket) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

uint64_t own_cookie() {
  return cookie_of(Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)).get());
}

}  // namespace

bool is_eventfd(int fd) {
  char target[32] = {};
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  ssize_t n = readlink(link.c_str(), target, sizeof target - 1);
  return n > 0 && strcmp(target, "anon_inode:[eventfd]") == 0;
}

Descriptor open_process(int32_t pid) {
  return Descriptor(pid > 0 ? int(syscall(SYS_pidfd_open, pid, 0)) : -1);
}

uint64_t network_namespace(int32_t pid, int socket) {
  struct stat st;
  if (stat(of_process(pid, "ns/net").c_str(), &st) == 0) return st.st_ino;
  uint64_t theirs = cookie_of(socket);
  if (theirs == 0) return 0;
  bool same = theirs == own_cookie() && stat("/proc/self/ns/net", &st) == 0;
  return same ? st.st_ino : theirs | uint64_t{1} << 63;
}

std::string command_of(int32_t pid) {
  std::ifstream file(of_process(pid, "comm"));
  std::string name;
  return std::getline(file, name) ? name : "?";
}

bool may_bind_low_ports(int32_t pid) {
  std::ifstream file(of_process(pid, "status"));
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("CapEff:", 0) != 0) continue;
    return strtoull(line.c_str() + 7, nullptr, 16) >> CAP_NET_BIND_SERVICE & 1;
  }
  return false;
}

long number_in(const char* path, long otherwise) {
  std::ifstream file(path);
  long n;
  return file >> n ? n : otherwise;
}

}  // namespace sluice::monitor
