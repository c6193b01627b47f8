#include "nocsim/zero_load.h"

namespace nocsim {

Cycle ZeroLoad::measure(Node from, Node to, int flits) {
  const Place place = network_.config().place_of(to);
  const Cycle created = network_.cycle();
  const PacketId packet = network_.packets().create({.from = from,
                                                     .to = to,
                                                     .to_x = static_cast<uint16_t>(place.x),
                                                     .to_y = static_cast<uint16_t>(place.y),
                                                     .flits = static_cast<uint16_t>(flits),
                                                     .created = created});
  Cycle latency = 0;
  // Credits that are still on their way when the packet has arrived are waited for, too.
  const int rest = network_.config().credit_flight() + 1;
  for (int left = flits, idle = 0; idle < rest; latency ? ++idle : 0) {
    network_.begin_cycle();
    if (network_.arrivals_at(to)) {
      for_each_bit(network_.arrivals_at(to), [&](int vc) {
        if (network_.take(to, vc).is_tail()) latency = network_.cycle() - created;
      });
    }
    if (left && network_.vcs_with_room(from) & 1)
      network_.inject(from, 0, Flit(packet, --left == 0));
    network_.end_cycle();
  }
  network_.packets().destroy(packet);
  return latency;
}

}  // namespace nocsim
