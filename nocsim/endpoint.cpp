#include "nocsim/endpoint.h"

#include <algorithm>

namespace nocsim {

int Endpoint::run(Network& network, Node node) {
  const uint64_t arrived = network.arrivals_at(node);
  if (!arrived) return -1;
  if (vc_ < 0) {
    const int vc = round_robin(arrived, (last_vc_ + 1) % network.config().vcs);
    const PacketId packet = network.arrival(node, vc).packet();
    queue_ = network.packets()[packet].queue;
    const bool alone = network.take(node, vc).is_tail();
    if (alone)
      network.packets().destroy(packet);
    else
      vc_ = vc;
    last_vc_ = vc;
    return -1;
  }
  if (!(arrived & bit(vc_)) || !has_room(queue_)) return -1;
  queues_[queue_].push_back(network.arrived_word(node, vc_));
  most_words_ = std::max(most_words_, ++words_);
  const Flit flit = network.take(node, vc_);
  if (flit.is_tail()) {
    network.packets().destroy(flit.packet());
    vc_ = -1;
  }
  return queue_;
}

uint64_t Endpoint::available() const {
  uint64_t set = 0;
  for (size_t q = 0; q < queues_.size(); ++q)
    if (!queues_[q].empty()) set |= bit(static_cast<int>(q));
  return set;
}

uint64_t Endpoint::pop(int queue) {
  const uint64_t word = queues_[queue].front();
  queues_[queue].pop_front();
  --words_;
  return word;
}

bool Endpoint::drain_one() {
  const uint64_t set = available();
  if (set) pop(lowest(set));
  return set != 0;
}

}  // namespace nocsim
