#include "shm/message_ring.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&MessageProducer::try_push, &MessageProducer::try_stage, &MessageProducer::publish,
                        &MessageProducer::is_drained>;
template struct Emitted<&MessageConsumer::next, &MessageConsumer::empty, &MessageConsumer::try_pop,
                        &MessageConsumer::Place::is_filled>;

}  // namespace sluice::tilera
