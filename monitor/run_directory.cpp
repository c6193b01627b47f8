#include "monitor/run_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <filesystem>

#include "shm/protocol.h"

namespace sluice::monitor {
namespace {

// The shim builds the socket's path in a sockaddr_un, beside other files of the directory.
constexpr std::size_t kMostPathBytes = 75;

bool is_own_directory(const std::string& path) {
  struct stat st;
  return lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

std::string because(const std::string& path, const char* what) { return path + ": " + what; }

}  // namespace

std::string standard_directory() {
  if (geteuid() == 0) return "/run/sluice";
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && is_own_directory(runtime)) return std::string(runtime) + "/sluice";
  return "/tmp/sluice-" + std::to_string(geteuid());
}

std::string absolute_directory(const std::string& path) {
  std::error_code ignored;
  std::filesystem::path absolute = std::filesystem::absolute(path, ignored).lexically_normal();
  std::string text = absolute.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string socket_path(const std::string& directory) { return directory + "/" + shm::kSocketName; }

std::string problem_with_directory(const std::string& path, bool trust_root) {
  struct stat st;
  if (path.size() > kMostPathBytes)
    return because(path, "the path is too long for a run directory");
  if (lstat(path.c_str(), &st) != 0) return because(path, strerror(errno));
  if (!S_ISDIR(st.st_mode)) return because(path, "is not a directory");
  bool is_trusted = st.st_uid == geteuid() || (trust_root && st.st_uid == 0);
  if (!is_trusted) return because(path, ("belongs to user " + std::to_string(st.st_uid)).c_str());
  bool is_open = (st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX);
  return is_open ? because(path, "may be written to by others") : "";
}

std::string create_directory(const std::string& path) {
  // Not the caller's umask: other users have to reach root's coordinator.
  mode_t mode = geteuid() == 0 ? 0755 : 0700;
  bool created = mkdir(path.c_str(), mode) == 0;
  if (!created && errno != EEXIST) return because(path, strerror(errno));
  if (created && chmod(path.c_str(), mode) != 0) return because(path, strerror(errno));
  return problem_with_directory(path, false);
}

std::string mark_keys(const std::string& directory, const std::string& kind) {
  std::string file = directory + "/" + shm::kKeysName;
  if (unlink(file.c_str()) != 0 && errno != ENOENT) return because(file, strerror(errno));
  if (kind.empty()) return {};
  Descriptor mark(open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  bool written = mark && write(mark.get(), kind.data(), kind.size()) == ssize_t(kind.size());
  return written && fchmod(mark.get(), 0644) == 0 ? "" : because(file, strerror(errno));
}

Descriptor lock_directory(const std::string& path) {
  std::string file = path + "/lock";
  Descriptor lock(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock && flock(lock.get(), LOCK_EX | LOCK_NB) != 0) lock.close();
  return lock;
}

}  // namespace sluice::monitor
