#include "shm/records.h"

#include "tilera/tilegx/units/emitted.h"

namespace sluice::tilera {

template struct Emitted<&shm::put_record_length, &shm::first_record>;

}  // namespace sluice::tilera
