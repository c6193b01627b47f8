#include "shm/request_queues.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using shm::RequestQueues;

template struct Emitted<&RequestQueues::try_push, &RequestQueues::try_stage, &RequestQueues::publish>;

}  // namespace sluice::tilera
