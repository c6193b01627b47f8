// A mapped region that somebody owns.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <utility>

namespace sluice::monitor {

template <class Region>
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* base, std::size_t bytes) : base_(base), bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), bytes_(other.bytes_) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping() {
    if (base_ != nullptr) munmap(base_, bytes_);
  }

  Region* operator->() const { return get(); }
  Region& operator*() const { return *get(); }
  Region* get() const { return static_cast<Region*>(base_); }
  explicit operator bool() const { return base_ != nullptr; }

 private:
  void* base_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace sluice::monitor
