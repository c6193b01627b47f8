#include "shm/handoff.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

using shm::Handoff;

template struct Emitted<&Handoff::readable, &Handoff::observe, &Handoff::retire, &Handoff::want, &Handoff::enter, &Handoff::rest,
                        &Handoff::sleep, &Handoff::leave, &Handoff::reserve, &Handoff::publish>;

}  // namespace sluice::tilera
