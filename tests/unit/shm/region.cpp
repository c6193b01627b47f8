#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

using test::Descriptor;
constexpr std::size_t kBytes = 4 * kPageBytes;

Descriptor sealed_region(Protect protect = Protect::kRegions) {
  Descriptor fd(create_region("sluice-test", kBytes));
  REQUIRE(seal_region(fd.get(), protect) == 0);
  return fd;
}

int add_seals(int fd, int seals) { return fcntl(fd, F_ADD_SEALS, seals) == 0 ? 0 : -errno; }

TEST_CASE("a new region has its size, is empty and closes on exec") {
  Descriptor fd(create_region("sluice-test", kBytes));
  CHECK(lseek(fd.get(), 0, SEEK_END) == off_t(kBytes));
  CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  auto* bytes = static_cast<char*>(map_writable(fd.get(), kBytes));
  REQUIRE(bytes != nullptr);
  CHECK(bytes[0] == 0);
  CHECK(bytes[kBytes - 1] == 0);
  munmap(bytes, kBytes);
}

TEST_CASE("a region is known by the name that it was created with") {
  Descriptor fd(create_region("sluice-test", kBytes));
  CHECK(is_region_called(fd.get(), "sluice-test"));
  CHECK_FALSE(is_region_called(fd.get(), "sluice-other"));
  CHECK_FALSE(is_region_called(-1, "sluice-test"));
  Descriptor file(open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK_FALSE(is_region_called(file.get(), "null"));
}

TEST_CASE("a reader sees what the writer writes after sealing") {
  test::MappedRegion region(kBytes);
  region.as_written<int>() = 42;
  CHECK(region.as_read<int>() == 42);
}

TEST_CASE("a sealed region cannot be mapped for writing") {
  Descriptor fd = sealed_region();
  errno = 0;
  CHECK(map_writable(fd.get(), kBytes) == nullptr);
  CHECK(errno == EPERM);
}

TEST_CASE("a reader cannot make its mapping writable") {
  Descriptor fd = sealed_region();
  void* mapping = map_readable(fd.get(), kBytes);
  REQUIRE(mapping != nullptr);
  CHECK(mprotect(mapping, kBytes, PROT_READ | PROT_WRITE) == -1);
  CHECK(errno == EACCES);
  munmap(mapping, kBytes);
}

TEST_CASE("opening a sealed region again gives no writable mapping either") {
  Descriptor fd = sealed_region();
  Descriptor again(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDWR | O_CLOEXEC));
  CHECK(map_writable(again.get(), kBytes) == nullptr);
  CHECK(errno == EPERM);
}

TEST_CASE("a sealed region cannot be written, punched or resized through its descriptor") {
  Descriptor fd = sealed_region();
  CHECK(pwrite(fd.get(), "x", 1, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes) == -1);
  CHECK(errno == EPERM);
  CHECK(ftruncate(fd.get(), off_t(kBytes - kPageBytes)) == -1);
  CHECK(errno == EPERM);
  CHECK(ftruncate(fd.get(), off_t(kBytes + kPageBytes)) == -1);
  CHECK(errno == EPERM);
}

TEST_CASE("a sealed region takes no further seals") {
  Descriptor fd = sealed_region();
  CHECK(add_seals(fd.get(), F_SEAL_WRITE) == -EPERM);
  CHECK(seal_region(fd.get(), Protect::kRegions) == -EPERM);
}

TEST_CASE("with protect=none a region may be mapped for writing but not resized") {
  Descriptor fd = sealed_region(Protect::kNone);
  void* mapping = map_writable(fd.get(), kBytes);
  CHECK(mapping != nullptr);
  munmap(mapping, kBytes);
  CHECK(ftruncate(fd.get(), 0) == -1);
  CHECK(verify_region(fd.get(), kBytes, Protect::kNone) == 0);
}

TEST_CASE("a region sealed as agreed is accepted") {
  CHECK(verify_region(sealed_region().get(), kBytes, Protect::kRegions) == 0);
}

TEST_CASE("a region without every seal is refused") {
  constexpr int kAll = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  for (int missing : {kAll, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL}) {
    Descriptor fd(create_region("sluice-test", kBytes));
    REQUIRE(add_seals(fd.get(), kAll & ~missing) == 0);
    CHECK(verify_region(fd.get(), kBytes, Protect::kRegions) == -EBADF);
  }
  CHECK(verify_region(sealed_region(Protect::kNone).get(), kBytes, Protect::kRegions) == -EBADF);
}

TEST_CASE("a region of another size is refused") {
  Descriptor fd = sealed_region();
  for (std::size_t bytes : {std::size_t{0}, kBytes - 1, kBytes + 1, 2 * kBytes})
    CHECK(verify_region(fd.get(), bytes, Protect::kRegions) == -EBADF);
}

TEST_CASE("a region of huge pages is refused") {
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  int raw = memfd_create("sluice-test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
  if (raw < 0) {
    WARN("this kernel has no huge pages");
    return;
  }
  Descriptor fd(raw);
  REQUIRE(ftruncate(fd.get(), off_t(kHuge)) == 0);
  REQUIRE(seal_region(fd.get(), Protect::kRegions) == 0);
  CHECK(verify_region(fd.get(), kHuge, Protect::kRegions) == -EBADF);
}

TEST_CASE("what is not a memfd is refused") {
  char path[] = "/dev/shm/sluice-test-XXXXXX";
  Descriptor tmpfs(mkstemp(path));
  unlink(path);
  REQUIRE(ftruncate(tmpfs.get(), off_t(kBytes)) == 0);
  CHECK(verify_region(tmpfs.get(), kBytes, Protect::kRegions) == -EBADF);

  int ends[2];
  REQUIRE(pipe(ends) == 0);
  Descriptor read_end(ends[0]), write_end(ends[1]);
  CHECK(verify_region(read_end.get(), 0, Protect::kRegions) == -EBADF);

  Descriptor directory(open("/", O_PATH | O_CLOEXEC));
  CHECK(verify_region(directory.get(), kBytes, Protect::kRegions) == -EBADF);
  CHECK(verify_region(-1, kBytes, Protect::kRegions) == -EBADF);
}

TEST_CASE("a reader that writes dies and the region stays as it was") {
  test::MappedRegion region(kBytes);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    region.as_read<Shared<char>>().store(1);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
  CHECK(region.as_written<char>() == 0);
}

TEST_CASE("create_region says why it cannot") {
  CHECK(create_region("sluice-test", SIZE_MAX) < 0);
  CHECK(create_region(std::string(300, 'n').c_str(), kBytes) == -EINVAL);
}

}  // namespace
}  // namespace sluice::shm
