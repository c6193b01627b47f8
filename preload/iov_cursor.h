// Walks an iovec array while bytes are copied.
#pragma once

#include <sys/uio.h>

#include <cstddef>

#include "preload/user_memory.h"

namespace sluice::preload {

inline size_t total_bytes(const iovec* iov, int count) {
  size_t n = 0;
  for (int i = 0; i < count; ++i) n += iov[i].iov_len;
  return n;
}

// What is left after `done` bytes, as vectors of its own (room for `count`). Returns how many.
inline int rest_of(iovec* rest, const iovec* iov, int count, size_t done) {
  int n = 0;
  for (int i = 0; i < count; ++i) {
    size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
    done -= skip;
    if (iov[i].iov_len > skip || done == 0) rest[n++] = {static_cast<char*>(iov[i].iov_base) + skip, iov[i].iov_len - skip};
  }
  return n;
}

class IovCursor {
 public:
  IovCursor(const iovec* iov, int count, size_t skip) : iov_(iov), end_(iov + count), at_(skip) { settle(); }

  // Copies out of (into) the iovec array; the caller knows that so much is there. 0 or -EFAULT.
  [[nodiscard]] int gather(std::byte* to, size_t n) {
    return walk(n, [&](std::byte* p, size_t k) {
      int error = copy_user(to, p, k);
      to += k;
      return error;
    });
  }
  [[nodiscard]] int scatter(const std::byte* from, size_t n) {
    return walk(n, [&](std::byte* p, size_t k) {
      int error = copy_to_user(p, from, k);
      from += k;
      return error;
    });
  }
  void skip(size_t n) {
    (void)walk(n, [](std::byte*, size_t) { return 0; });
  }

 private:
  template <class F>
  int walk(size_t n, F&& f) {
    while (n > 0) {
      size_t k = iov_->iov_len - at_;
      if (k > n) k = n;
      if (int error = f(static_cast<std::byte*>(iov_->iov_base) + at_, k); error != 0) return error;
      at_ += k;
      n -= k;
      settle();
    }
    return 0;
  }
  void settle() {
    while (iov_ != end_ && at_ >= iov_->iov_len) {
      at_ -= iov_->iov_len;
      ++iov_;
    }
  }
  const iovec* iov_;
  const iovec* end_;
  size_t at_;
};

}  // namespace sluice::preload
