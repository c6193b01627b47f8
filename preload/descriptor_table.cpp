#include "preload/descriptor_table.h"

#include <sys/resource.h>

#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/signals.h"
#include "preload/stdio_tables.h"

namespace sluice::preload {

constinit DescriptorTable descriptors(kKnownFile);
std::atomic<uint8_t> known_descriptors[kMaxDescriptors];
uint32_t known_limit = 0;

bool DescriptorTable::create() {
  void* p = map_private(kMaxDescriptors * sizeof(*entries_));
  if (p == nullptr) return false;
  entries_ = static_cast<std::atomic<File*>*>(p);
  limit_ = kMaxDescriptors;
  return true;
}

bool DescriptorTable::set(int fd, File* f) {
  if (uint32_t(fd) >= limit_) return false;
  if (f->kind() == FileKind::kTcpSocket) {
    redirect_stdio();
    catch_faults();
  }
  f->add_descriptor();
  if (uint32_t(fd) >= high_water_) high_water_ = uint32_t(fd) + 1;
  entries_[fd].store(f, std::memory_order_release);
  known_descriptors[fd].fetch_or(kind_, std::memory_order_release);
  return true;
}

File* DescriptorTable::clear(int fd) {
  if (uint32_t(fd) >= limit_) return nullptr;
  File* f = entries_[fd].exchange(nullptr, std::memory_order_acq_rel);
  known_descriptors[fd].fetch_and(uint8_t(~all_), std::memory_order_release);
  return f;
}

namespace {

// From here on up the shim puts its own descriptors. Not higher, because the kernel's table
// grows with the highest number in use.
constexpr int kHighest = 8192;
constexpr int kRoom = 512;

}  // namespace

RaisedLimit::RaisedLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= 2 * kRoom || limit.rlim_cur >= limit.rlim_max) return;
  soft_ = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max < kHighest ? limit.rlim_max : rlim_t{kHighest};
  setrlimit(RLIMIT_NOFILE, &limit);
}

RaisedLimit::~RaisedLimit() {
  rlimit limit;
  if (soft_ == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = soft_;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int move_high(int fd) {
  if (fd < 0) return fd;
  RaisedLimit raised;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  int top = limit.rlim_cur > kHighest ? kHighest : int(limit.rlim_cur);
  int base = top > 2 * kRoom ? top - kRoom : top / 2;
  int high = libc.fcntl(fd, F_DUPFD_CLOEXEC, base);
  if (high >= 0) {
    kernel::close(fd);
    fd = high;
  }
  own_descriptor(fd);
  return fd;
}

void own_descriptor(int fd) {
  if (uint32_t(fd) < kMaxDescriptors) known_descriptors[fd].fetch_or(kKnownOwn, std::memory_order_relaxed);  // a flag
}

void disown_descriptor(int fd) {
  if (uint32_t(fd) < kMaxDescriptors) known_descriptors[fd].fetch_and(uint8_t(~kKnownOwn), std::memory_order_relaxed);  // a flag
}

bool is_own_descriptor(int fd) {
  return uint32_t(fd) < kMaxDescriptors && (known_descriptors[fd].load(std::memory_order_relaxed) & kKnownOwn) != 0;  // a flag
}

void close_own(int fd) {
  if (fd < 0) return;
  disown_descriptor(fd);
  kernel::close(fd);
}

}  // namespace sluice::preload
