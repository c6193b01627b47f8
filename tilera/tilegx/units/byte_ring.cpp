#include "shm/byte_ring.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&ring_is_valid, &copy_once, &clear_ring, &pieces_at<std::byte>, &pieces_at<const std::byte>>;
template struct Emitted<&ByteConsumer::available, &ByteConsumer::observe, &ByteConsumer::retire>;
template struct Emitted<&ByteProducer::unread, &ByteProducer::space, &ByteProducer::reserve, &ByteProducer::publish,
                        &ByteProducer::can_switch, &ByteProducer::switch_to>;

}  // namespace sluice::tilera
