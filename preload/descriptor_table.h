// Which descriptors are ours. A null entry means the kernel's.
#pragma once

#include <cstdint>

#include "preload/files/file.h"

namespace sluice::preload {

// Descriptors at or above it are never accelerated. The table is reserved address space; a
// page of it costs memory once a descriptor in its range is ours, whatever RLIMIT_NOFILE says.
inline constexpr uint32_t kMaxDescriptors = 1u << 20;

// What the shim knows of each descriptor, in one byte: a call on one of which it knows nothing, which is
// most calls of most programs, costs one look.
enum Known : uint8_t {
  kKnownFile = 1,     // in `descriptors`
  kKnownPipe = 2,     // in `pipe_ends`
  kKnownChannel = 4,  // likewise, and it has a channel
  kKnownOwn = 8,      // the shim's own
  kKnownPair = 16,     // in `pair_ends`
  kKnownHandoff = 32,  // likewise, and it has a channel
};
extern std::atomic<uint8_t> known_descriptors[kMaxDescriptors];  // a page of it costs memory once it is written
// kMaxDescriptors once libc's calls are known, until then 0.
extern uint32_t known_limit;

inline bool is_kernels_but_for(int fd, unsigned kinds) {
  if (uint32_t(fd) >= known_limit) return known_limit != 0;  // none, or too high to be ours
  // Relaxed: whoever may use a descriptor has got its number from whoever made it.
  return (known_descriptors[fd].load(std::memory_order_relaxed) & ~kinds) == 0;
}
// Whether libc's call is to be made at once.
inline bool is_kernels(int fd) { return is_kernels_but_for(fd, 0); }
// The same for a call that moves bytes: those of a pipe or a socket pair without a channel are the kernel's.
inline bool moves_in_kernel(int fd) { return is_kernels_but_for(fd, kKnownPipe | kKnownPair); }

class DescriptorTable {
 public:
  // `kind`: what stands in known_descriptors for an entry here; `also`: what may stand there besides.
  explicit constexpr DescriptorTable(Known kind, unsigned also = 0) : kind_(kind), all_(uint8_t(kind | also)) {}
  // Reserves the table. False if even that fails: then nothing is accelerated.
  [[nodiscard]] bool create();

  // Null for what is not ours. One load from a shared table; safe anywhere.
  File* peek(int fd) const {
    return uint32_t(fd) < limit_ ? entries_[fd].load(std::memory_order_acquire) : nullptr;
  }
  // As peek, with a reference that the caller releases.
  File* find(int fd) const {
    for (;;) {
      File* f = peek(fd);
      if (f == nullptr) return nullptr;
      f->acquire();
      if (__libc_single_threaded || peek(fd) == f) return f;
      f->release();  // closed and perhaps reused in between; a File's memory stays a File
    }
  }
  // Both under control_lock. set takes the place of nothing; clear returns what was there.
  [[nodiscard]] bool set(int fd, File* f);
  File* clear(int fd);
  // One past the highest descriptor that ever was ours.
  uint32_t high_water() const { return high_water_; }

 private:
  std::atomic<File*>* entries_ = nullptr;
  uint32_t limit_ = 0;
  uint32_t high_water_ = 0;
  Known kind_;
  uint8_t all_;
};

extern DescriptorTable descriptors;

// A reference for the length of a call.
class FileReference {
 public:
  explicit FileReference(int fd) : file_(descriptors.find(fd)) {}
  ~FileReference() {
    if (file_ != nullptr) file_->release();
  }
  FileReference(const FileReference&) = delete;
  FileReference& operator=(const FileReference&) = delete;
  File* get() const { return file_; }

 private:
  File* file_;
};

// The shim's own descriptors sit at high numbers, where no program looks for its own.
// While one of these lives a low RLIMIT_NOFILE does not keep the shim from having its
// descriptors: it is raised to the hard limit, briefly. Costs nothing under ordinary limits.
class RaisedLimit {
 public:
  RaisedLimit();
  ~RaisedLimit();

 private:
  uint64_t soft_ = 0;  // to be restored; 0: nothing was changed
};

// Moves `fd` there and returns the new number; on failure `fd` itself. Takes negatives through.
int move_high(int fd);
// Remembers that a descriptor is the shim's (so that close() and friends leave it alone).
void own_descriptor(int fd);
void disown_descriptor(int fd);
bool is_own_descriptor(int fd);
// Closes one of the shim's.
void close_own(int fd);

}  // namespace sluice::preload
