#include "shm/noc_queues.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using namespace shm;

template struct Emitted<&NocClient::try_stage, &NocClient::publish, &NocClient::try_receive, &NocClient::take_doorbells>;
template struct Emitted<&NocServer::next, &NocServer::try_take, &NocServer::give_credits, &NocServer::try_stage,
                        &NocServer::publish, &NocServer::ring_doorbells>;

}  // namespace sluice::tilera
