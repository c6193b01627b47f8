// The load of every link of a mesh, as colours.
#pragma once

#include <string_view>
#include <vector>

#include "nocsim/picture/svg.h"
#include "nocsim/sweep.h"

namespace nocsim::picture {

// Draws into a square of `side`, and a scale below it.
void draw_heat_map(Svg& svg, const Config& config, const std::vector<LinkUse>& links, double side);

}  // namespace nocsim::picture
