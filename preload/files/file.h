// What a descriptor of ours refers to: an open file description, in the words of open(2).
#pragma once

#include <sys/epoll.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "preload/mutex.h"

namespace sluice::preload {

class EpollSet;
struct Interest;

enum class FileKind : uint8_t { kTcpSocket, kEpollSet, kPipeEnd, kPairEnd };

// Lives while a descriptor or a running call refers to it; a TcpSocket also while its
// connection still has to be wound up.
class File {
 public:
  explicit File(FileKind kind) : kind_(kind) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  FileKind kind() const { return kind_; }

  // References held by running calls.
  void acquire() { count(1); }
  void release() {
    if (count(-1) != 0) return;
    Guard guard(control_lock);
    vanish();
  }
  void release_locked() {  // under control_lock
    if (count(-1) == 0) vanish();
  }

  // Descriptors. Under control_lock. remove_descriptor says whether it was the last.
  void add_descriptor() {
    ++descriptors_;
    acquire();
  }
  [[nodiscard]] bool remove_descriptor() { return --descriptors_ == 0; }
  uint32_t descriptor_count() const { return descriptors_; }

  Interest* interests() const { return interests_; }

  // What watches this file watches `other` instead. Under control_lock.
  void hand_interests_to(File& other);

  void* pool_link = nullptr;
  // Tells every epoll set that watches this file to look at it. Under control_lock.
  void announce();

 private:
  friend class EpollSet;
  uint32_t count(int delta) {
    if (__libc_single_threaded) {
      uint32_t n = references_.load(std::memory_order_relaxed) + uint32_t(delta);  // one thread
      references_.store(n, std::memory_order_relaxed);
      return n;
    }
    return references_.fetch_add(uint32_t(delta), std::memory_order_acq_rel) + uint32_t(delta);
  }
  void vanish();  // under control_lock

  std::atomic<uint32_t> references_{0};
  uint32_t descriptors_ = 0;
  Interest* interests_ = nullptr;  // the list through Interest::next_of_file
  FileKind kind_;
};

}  // namespace sluice::preload
