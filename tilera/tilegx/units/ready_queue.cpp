#include "shm/ready_queue.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&ReadyProducer::push, &ReadyConsumer::has_fresh, &ReadyConsumer::take>;

}  // namespace sluice::tilera
