#include "nocsim/picture/heat_map.h"

#include <algorithm>

namespace nocsim::picture {
namespace {

// A link has a lane of its own for each direction, right of its axis as one drives.
struct Lane {
  double x1, y1, x2, y2;
};

Lane lane_of(Place from, int port, double cell) {
  const double gap = cell * 0.13, half = cell * 0.27;
  const double x = (from.x + 0.5) * cell, y = (from.y + 0.5) * cell;
  switch (port) {
    case kNorth:
      return {x + gap, y - half, x + gap, y - cell + half};
    case kEast:
      return {x + half, y + gap, x + cell - half, y + gap};
    case kSouth:
      return {x - gap, y + half, x - gap, y + cell - half};
    default:
      return {x - half, y - gap, x - cell + half, y - gap};
  }
}

void draw_scale(Svg& svg, double most, double y) {
  constexpr int kSteps = 24;
  for (int i = 0; i < kSteps; ++i)
    svg.add("<rect x=\"%.1f\" y=\"%.1f\" width=\"8.5\" height=\"10\" fill=\"%s\"/>\n", i * 8.0, y,
            heat(i / (kSteps - 1.0)).c_str());
  svg.text(0, y + 24, "small", "0");
  svg.text(kSteps * 8.0, y + 24, "right small", number(most) + " flits/cycle");
}

}  // namespace

void draw_heat_map(Svg& svg, const Config& config, const std::vector<LinkUse>& links, double side) {
  const double cell = side / std::max(config.width, config.height);
  double most = 1e-9;
  for (const LinkUse& link : links)
    if (is_link(link.port)) most = std::max(most, link.flits_per_cycle);
  for (const LinkUse& link : links) {
    const Place place = config.place_of(link.from);
    if (link.port == kLocal) {
      svg.add(
          "<rect class=\"router\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
          "rx=\"%.1f\"><title>tile %u takes %s flits/cycle</title></rect>\n",
          (place.x + 0.25) * cell, (place.y + 0.25) * cell, cell / 2, cell / 2, cell * 0.08,
          link.from, number(link.flits_per_cycle).c_str());
      if (cell > 24)
        svg.text((place.x + 0.5) * cell, (place.y + 0.5) * cell + 4, "middle small",
                 std::to_string(link.from));
      continue;
    }
    const Lane lane = lane_of(place, link.port, cell);
    svg.add(
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
        "stroke-width=\"%.1f\"><title>%u to the %c: %s flits/cycle</title></line>\n",
        lane.x1, lane.y1, lane.x2, lane.y2, heat(link.flits_per_cycle / most).c_str(), cell * 0.16,
        link.from, name_of(link.port), number(link.flits_per_cycle).c_str());
  }
  draw_scale(svg, most, cell * config.height + 8);
}

}  // namespace nocsim::picture
