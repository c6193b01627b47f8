#include "shm/shared_queue.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&SharedProducer::try_push, &SharedProducer::push_some, &SharedProducer::has_room,
                        &SharedProducer::is_drained>;
template struct Emitted<&SharedConsumer::claimed, &SharedConsumer::has_next, &SharedConsumer::claimed_count,
                        &SharedConsumer::try_pop, &SharedConsumer::covers, &SharedConsumer::skip>;

}  // namespace sluice::tilera
