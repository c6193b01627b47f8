#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace sluice::shm {
namespace {

int seals_of(Protect protect) {
  int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (protect == Protect::kRegions) seals |= F_SEAL_FUTURE_WRITE;
  return seals;
}

void* map(int fd, std::size_t bytes, int access) {
  void* p = mmap(nullptr, bytes, access, MAP_SHARED | MAP_NORESERVE, fd, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

// System calls are made by number where the shim interposes the function of that name.

int create_region(const char* name, std::size_t bytes) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  if (ftruncate(fd, off_t(bytes)) == 0) return fd;
  int error = errno;
  syscall(SYS_close, fd);
  return -error;
}

void* map_writable(int fd, std::size_t bytes) { return map(fd, bytes, PROT_READ | PROT_WRITE); }

void* map_readable(int fd, std::size_t bytes) { return map(fd, bytes, PROT_READ); }

int seal_region(int fd, Protect protect) {
  return syscall(SYS_fcntl, fd, F_ADD_SEALS, seals_of(protect)) == 0 ? 0 : -errno;
}

int verify_region(int fd, std::size_t bytes, Protect protect) {
  struct stat st;
  struct statfs fs;
  int seals = int(syscall(SYS_fcntl, fd, F_GET_SEALS));
  int wanted = seals_of(protect);
  // First of all: only files in memory have seals, and only they answer the rest without asking anybody (fuse(4)).
  if (seals < 0 || (seals & wanted) != wanted) return -EBADF;
  bool fits = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == off_t(bytes);
  // Huge pages would let a reader's single fault cost 2 MiB.
  bool ordinary = fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
  return fits && ordinary ? 0 : -EBADF;
}

bool is_region_called(int fd, const char* name) {
  char path[32], target[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(path, target, sizeof target - 1);
  if (n <= 0) return false;
  target[n] = 0;
  constexpr const char* kPrefix = "/memfd:";
  std::size_t prefix = strlen(kPrefix);
  return strncmp(target, kPrefix, prefix) == 0 && strncmp(target + prefix, name, strlen(name)) == 0;
}

}  // namespace sluice::shm
