#include "monitor/process.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
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

bool is_in_our_user_namespace(int32_t pid) {
  struct stat ours, theirs;
  return stat("/proc/self/ns/user", &ours) == 0 && stat(of_process(pid, "ns/user").c_str(), &theirs) == 0 &&
         ours.st_ino == theirs.st_ino;
}

bool has_ended(int process) {
  pollfd p{process, POLLIN, 0};
  return poll(&p, 1, 0) != 0;
}

#ifndef SO_PEERPIDFD
constexpr int SO_PEERPIDFD = 77;
#endif

}  // namespace

bool is_channel(int fd) {
  int value = -1;
  socklen_t size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &size) != 0 || value != AF_UNIX) return false;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 && value == SOCK_SEQPACKET;
}

Descriptor open_process(int32_t pid) {
  return Descriptor(pid > 0 ? int(syscall(SYS_pidfd_open, pid, 0)) : -1);
}

Descriptor open_peer(int socket, int32_t pid) {
  int process = -1;
  socklen_t size = sizeof process;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &process, &size) == 0) return Descriptor(process);
  return errno == ENOPROTOOPT ? open_process(pid) : Descriptor();
}

std::string program_of(int process, int32_t pid) {
  constexpr std::string_view kDeleted = " (deleted)";
  std::string path(PATH_MAX, 0);
  ssize_t n = process >= 0 ? readlink(of_process(pid, "exe").c_str(), path.data(), path.size()) : -1;
  if (n <= 0 || path[0] != '/' || !is_in_our_user_namespace(pid) || has_ended(process)) return {};
  path.resize(std::size_t(n));
  // Replaced by a newer one meanwhile.
  if (path.ends_with(kDeleted)) path.resize(path.size() - kDeleted.size());
  return path;
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

bool has_capability(int32_t pid, int capability) {
  if (!is_in_our_user_namespace(pid)) return false;
  std::ifstream file(of_process(pid, "status"));
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("CapEff:", 0) != 0) continue;
    return strtoull(line.c_str() + 7, nullptr, 16) >> capability & 1;
  }
  return false;
}

long number_in(const char* path, long otherwise) {
  std::ifstream file(path);
  long n;
  return file >> n ? n : otherwise;
}

}  // namespace sluice::monitor
