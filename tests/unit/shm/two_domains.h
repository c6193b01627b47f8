// Regions mapped as two real domains would have them: the writer's mapping is writable, the
// reader's is not, so a test in which a reader writes dies.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <stdexcept>
#include <utility>

#include "shm/layout.h"
#include "shm/region.h"

namespace sluice::shm::test {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd < 0) throw std::runtime_error("no descriptor");
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

class MappedRegion {
 public:
  explicit MappedRegion(std::size_t bytes)
      : bytes_(bytes), fd_(create_region("sluice-test", bytes)), written_(map_writable(fd_.get(), bytes)) {
    if (written_ == nullptr || seal_region(fd_.get(), Protect::kRegions) != 0)
      throw std::runtime_error("no region");
    read_ = map_readable(fd_.get(), bytes);
    if (read_ == nullptr) throw std::runtime_error("no readable mapping");
  }
  MappedRegion(const MappedRegion&) = delete;
  ~MappedRegion() {
    munmap(written_, bytes_);
    munmap(read_, bytes_);
  }

  template <class T>
  T& as_written() const { return *static_cast<T*>(written_); }
  // Not const, as the shim has it: the kernel is what forbids writing.
  template <class T>
  T& as_read() const { return *static_cast<T*>(read_); }

 private:
  std::size_t bytes_;
  Descriptor fd_;
  void* written_;
  void* read_ = nullptr;
};

class PairRegion {
 public:
  PairView writers() const { return {&region_.as_written<std::byte>()}; }
  PairView readers() const { return {&region_.as_read<std::byte>()}; }

 private:
  MappedRegion region_{kPairBytes};
};

// Region A->B and region B->A.
struct TwoDomains {
  PairRegion a_to_b;
  PairRegion b_to_a;
};

}  // namespace sluice::shm::test
