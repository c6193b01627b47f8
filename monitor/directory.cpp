#include "monitor/directory.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/futex.h"
#include "shm/region.h"
#include "shm/wake.h"

namespace sluice::monitor {

int DirectoryRegion::create(bool polling) {
  int fd = shm::create_region("sluice-directory", shm::kDirectoryBytes);
  if (fd < 0) return fd;
  fd_ = Descriptor(fd);
  void* base = shm::map_writable(fd, shm::kDirectoryBytes);
  if (base == nullptr) return -errno;
  region_ = {base, shm::kDirectoryBytes};
  region_->magic = shm::kMagic;
  region_->version = shm::kProtocolVersion;
  region_->polling = polling;
  own();
  return shm::seal_region(fd, shm::Protect::kRegions);
}

// In the place of the C library's list, which has robust mutexes only.
void DirectoryRegion::own() {
  region_->owner.store(uint32_t(gettid()) | FUTEX_WAITERS, std::memory_order_release);
  held_.list.next = &node_;
  node_.next = &held_.list;
  held_.futex_offset = reinterpret_cast<char*>(&region_->owner) - reinterpret_cast<char*>(&node_);
  syscall(SYS_set_robust_list, &held_, sizeof held_);
}

DirectoryRegion::~DirectoryRegion() { disown(); }

void DirectoryRegion::disown() {
  if (region_.get() == nullptr) return;
  syscall(SYS_set_robust_list, nullptr, sizeof held_);
  region_->owner.fetch_or(FUTEX_OWNER_DIED, std::memory_order_release);
  shm::futex_wake(region_->owner);
}

void DirectoryRegion::set_port(uint16_t port, bool listened) {
  set_bit(region_->ports[port / 64], port % 64, listened);
}

void DirectoryRegion::set_name(uint32_t name_bit, bool listened) {
  set_bit(region_->names[name_bit / 64], name_bit % 64, listened);
}

void DirectoryRegion::set_alive(shm::DomainId domain, bool alive) {
  set_bit(region_->alive[domain / 64], domain % 64, alive);
}

void DirectoryRegion::set_waited(uint32_t listener, bool waited) {
  uint32_t i = listener % shm::kMaxListeners;
  set_bit(region_->waited[i / 64], i % 64, waited);
  shm::sleep_wake_fence();
}

void DirectoryRegion::set_bit(shm::Shared<uint64_t>& word, uint32_t bit, bool value) {
  uint64_t mask = uint64_t{1} << bit;
  uint64_t old = word.load(std::memory_order_relaxed);  // our own
  word.store(value ? old | mask : old & ~mask, std::memory_order_release);
}

void DirectoryRegion::fall_asleep() {
  region_->sleeping.fetch_add(1, std::memory_order_relaxed);  // ordered by the fence
  shm::sleep_wake_fence();
}

void DirectoryRegion::wake_up() {
  region_->sleeping.fetch_add(1, std::memory_order_relaxed);  // late news only costs a bell
}

}  // namespace sluice::monitor
