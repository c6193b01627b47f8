// The directory's bitmaps (shm/layout.h), which the coordinator's tile writes and all others read.
#pragma once

#include "shm/layout.h"
#include "tilera/noc.h"

namespace sluice::tilera {

template <Noc N>
class DirectoryWriter {
 public:
  DirectoryWriter(N& noc, shm::Directory& directory) : noc_(noc), directory_(directory) {
    directory.magic = shm::kMagic;
    directory.version = shm::kProtocolVersion;
    directory.polling = 1;
  }

  void set_port(uint16_t port, bool on) { set_bit(directory_.ports[port / 64], port % 64, on); }
  void set_name(uint32_t bit, bool on) { set_bit(directory_.names[bit / 64], bit % 64, on); }
  void set_alive(shm::DomainId d, bool on) { set_bit(directory_.alive[d / 64], d % 64, on); }
  // With the full fence after it that Directory::waited needs.
  void set_waited(uint32_t listener, bool on) {
    const uint32_t i = listener % shm::kMaxListeners;
    set_bit(directory_.waited[i / 64], i % 64, on);
    noc_.fence();
  }
  // Before a packet that tells of what was set.
  void publish() {
    if (changed_) noc_.fence();
    changed_ = false;
  }

 private:
  void set_bit(shm::Shared<uint64_t>& word, uint32_t bit, bool on) {
    const uint64_t mask = uint64_t{1} << bit, before = word.load(std::memory_order_relaxed);  // our own
    word.store(on ? before | mask : before & ~mask, std::memory_order_relaxed);               // ordered by publish()
    writes(noc_, &word, sizeof word);
    changed_ = true;
  }

  N& noc_;
  shm::Directory& directory_;
  bool changed_ = false;
};

}  // namespace sluice::tilera
