#include "shm/demux_queue.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&DemuxProducer::try_send, &DemuxProducer::try_stage, &DemuxProducer::publish, &DemuxProducer::is_drained>;
template struct Emitted<&DemuxConsumer::next, &DemuxConsumer::empty, &DemuxConsumer::try_take, &DemuxConsumer::Place::is_filled>;

}  // namespace sluice::tilera
