// Packets one at a time through a mesh that is otherwise empty.
#pragma once

#include "nocsim/network.h"

namespace nocsim {

class ZeroLoad {
 public:
  explicit ZeroLoad(const Config& config) : network_(config) {}

  // Cycles from the creation of a packet to its last flit's arrival, simulated.
  Cycle measure(Node from, Node to, int flits);

 private:
  Network network_;
};

}  // namespace nocsim
