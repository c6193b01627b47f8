// A chart of lines and points over two linear axes.
#pragma once

#include <string>
#include <vector>

#include "nocsim/picture/svg.h"

namespace nocsim::picture {

struct Dot {
  double x;
  double y;
};

struct Series {
  std::string name;
  std::string color;
  std::vector<Dot> dots;
  bool line = true;  // else rings, for what others published
  bool dashed = false;
};

struct Chart {
  double width = 440;
  double height = 300;
  std::string title;
  std::string x_name;
  std::string y_name;
  double x_most = 1;
  double y_most = 1;  // what is above is cut off
  std::vector<Series> series;
};

void draw(Svg& svg, const Chart& chart);

}  // namespace nocsim::picture
