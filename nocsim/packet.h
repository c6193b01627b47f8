// Packets and flits. A packet's particulars stand once, in the pool; a flit on its way is four
// bytes that say which packet, and whether it is the last.
#pragma once

#include <cstdint>
#include <vector>

#include "nocsim/geometry.h"

namespace nocsim {

using PacketId = uint32_t;

struct Packet {
  Node from = 0;
  Node to = 0;
  uint16_t to_x = 0;
  uint16_t to_y = 0;
  uint16_t flits = 1;
  uint16_t queue = 0;  // at the receiver
  Cycle created = 0;
  Cycle injected = 0;  // when its first flit left the node
  uint64_t tag = 0;    // the sender's
};

class Flit {
 public:
  Flit() = default;
  Flit(PacketId packet, bool is_tail) : bits_(packet << 1 | (is_tail ? 1 : 0)) {}
  PacketId packet() const { return bits_ >> 1; }
  bool is_tail() const { return bits_ & 1; }

 private:
  uint32_t bits_ = 0;
};

class PacketPool {
 public:
  PacketId create(const Packet& packet) {
    if (free_.empty()) {
      packets_.push_back(packet);
      return static_cast<PacketId>(packets_.size() - 1);
    }
    const PacketId id = free_.back();
    free_.pop_back();
    packets_[id] = packet;
    return id;
  }
  void destroy(PacketId id) { free_.push_back(id); }

  Packet& operator[](PacketId id) { return packets_[id]; }
  const Packet& operator[](PacketId id) const { return packets_[id]; }
  size_t alive() const { return packets_.size() - free_.size(); }

 private:
  std::vector<Packet> packets_;
  std::vector<PacketId> free_;
};

}  // namespace nocsim
