#include "shm/channel.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using shm::Channel;

template struct Emitted<&Channel::readable, &Channel::observe, &Channel::retire, &Channel::enter, &Channel::want,
                        &Channel::sleep, &Channel::leave, &Channel::space, &Channel::reserve, &Channel::publish>;

}  // namespace sluice::tilera
