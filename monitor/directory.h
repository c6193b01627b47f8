// The directory region: what every client may read.
#pragma once

#include <linux/futex.h>

#include "monitor/descriptor.h"
#include "monitor/mapping.h"
#include "shm/layout.h"

namespace sluice::monitor {

// Stays where it is, in one thread: the kernel looks at it when that ends.
class DirectoryRegion {
 public:
  DirectoryRegion() = default;
  ~DirectoryRegion();
  DirectoryRegion(const DirectoryRegion&) = delete;
  DirectoryRegion& operator=(const DirectoryRegion&) = delete;
  // Returns 0 or -errno.
  [[nodiscard]] int create(bool polling);
  // Nobody writes here any more, and whoever sleeps on that hears of it.
  void disown();
  int fd() const { return fd_.get(); }

  // 0: there is none.
  void set_policy(uint32_t number) { region_->policy.store(number, std::memory_order_release); }
  void set_port(uint16_t port, bool listened);
  void set_name(uint32_t name_bit, bool listened);
  void set_alive(shm::DomainId domain, bool alive);
  // With the full fence after it that Directory::waited needs.
  void set_waited(uint32_t listener, bool waited);

  // Around a sleep, with the fence of shm/wake.h; look for work after fall_asleep().
  void fall_asleep();
  void wake_up();

 private:
  static void set_bit(shm::Shared<uint64_t>& word, uint32_t bit, bool value);
  void own();
  Descriptor fd_;
  Mapping<shm::Directory> region_;
  robust_list_head held_{};  // of Directory::owner alone
  robust_list node_{};
};

}  // namespace sluice::monitor
