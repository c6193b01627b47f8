// One request in space and time: a lane for each router on its way, a line for each flit's hop; and
// beside it the mesh, on which the flits move.
#pragma once

#include <string>

#include "nocsim/request.h"

namespace nocsim::picture {

std::string timeline(const RequestPlan& plan, const RequestTrace& trace, bool as_page);

}  // namespace nocsim::picture
