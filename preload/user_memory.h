// The program's own memory, as system calls see it: a pointer that leads nowhere is an error of the
// call (EFAULT), no end of the process. A copy that faults is ended by the handler that the shim
// keeps for SIGSEGV and SIGBUS; it costs nothing where nothing faults.
#pragma once

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>

#include "preload/keys.h"

namespace sluice::preload {

// 0, or -EFAULT: some bytes were perhaps copied. Async-signal-safe.
[[nodiscard]] int copy_user(void* to, const void* from, std::size_t n);

template <class T>
[[nodiscard]] int get_user(T& out, const T* from) {
  return copy_user(&out, from, sizeof out);
}
// Likewise, to the program's memory.
[[nodiscard]] inline int copy_to_user(void* to, const void* from, std::size_t n) {
  return is_guarded(to, n) ? -EFAULT : copy_user(to, from, n);
}
template <class T>
[[nodiscard]] int put_user(T* to, const T& value) {
  return copy_to_user(to, &value, sizeof value);
}
// Tells a name or an option of `bytes` bytes as system calls do: as much as there is room for, and its length.
[[nodiscard]] int put_sized(void* to, socklen_t* room, const void* from, socklen_t bytes);
// Whether an array is there, as far as its ends tell.
template <class T>
[[nodiscard]] int probe_user(const T* array, std::size_t count) {
  T one;
  if (count == 0) return 0;
  int error = get_user(one, array);
  return error != 0 || count == 1 ? error : get_user(one, array + count - 1);
}

// Whether the first `bytes` bytes of the vectors can be read, and written if `writes`; page by page.
[[nodiscard]] int probe_vectors(const iovec* vectors, int count, std::size_t bytes, bool writes);

// A copy of an iovec array for the length of a call.
class UserVectors {
 public:
  UserVectors(const iovec* from, std::size_t count);
  ~UserVectors();
  UserVectors(const UserVectors&) = delete;
  UserVectors& operator=(const UserVectors&) = delete;
  // 0, -EFAULT, -ENOMEM, or -EINVAL: more than IOV_MAX.
  int error() const { return error_; }
  iovec* get() { return vectors_; }
  int count() const { return int(count_); }

 private:
  iovec inline_[16];
  iovec* vectors_ = inline_;
  std::size_t count_;
  int error_ = 0;
};

// f(vectors, count) on a copy of the program's array, or -errno.
template <class F>
ssize_t with_vectors(const iovec* from, int count, F&& f) {
  if (count < 0) return -EINVAL;
  UserVectors v(from, std::size_t(count));
  return v.error() != 0 ? v.error() : f(v.get(), v.count());
}

// A copy of a message header and its vectors.
class UserMessage {
 public:
  explicit UserMessage(const msghdr* from);
  // 0, -EFAULT, -ENOMEM, or -EMSGSIZE.
  int error() const { return error_; }
  msghdr* get() { return &m_; }
  // Tells the program what recvmsg(2) tells.
  [[nodiscard]] int give_back(msghdr* to) const;

 private:
  msghdr m_;
  int error_;
  UserVectors vectors_;
};

// In a signal handler: whether the fault was copy_user's, which goes on with -EFAULT when the handler returns.
[[nodiscard]] bool end_faulting_copy(void* context);

}  // namespace sluice::preload
