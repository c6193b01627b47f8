#include "nocsim/picture/chart.h"

#include <algorithm>

namespace nocsim::picture {
namespace {

constexpr double kLeft = 56, kTop = 34, kRight = 12, kBottom = 44;

class Drawing {
 public:
  Drawing(Svg& svg, const Chart& chart)
      : svg_(svg),
        chart_(chart),
        width_(chart.width - kLeft - kRight),
        height_(chart.height - kTop - kBottom) {}

  void axes() {
    svg_.text(kLeft, 18, "title", chart_.title);
    const double x_step = round_step(chart_.x_most, 6), y_step = round_step(chart_.y_most, 6);
    for (double x = 0; x <= chart_.x_most * 1.0001; x += x_step) {
      svg_.add("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at_x(x),
               kTop, at_x(x), kTop + height_);
      svg_.text(at_x(x), kTop + height_ + 16, "middle small", number(x));
    }
    for (double y = 0; y <= chart_.y_most * 1.0001; y += y_step) {
      svg_.add("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kLeft,
               at_y(y), kLeft + width_, at_y(y));
      svg_.text(kLeft - 6, at_y(y) + 4, "right small", number(y));
    }
    svg_.add("<path class=\"axis\" fill=\"none\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", kLeft, kTop,
             kTop + height_, kLeft + width_);
    svg_.text(kLeft + width_ / 2, chart_.height - 10, "middle", chart_.x_name);
    svg_.add("<text transform=\"translate(14 %.1f) rotate(-90)\" class=\"middle\">%s</text>\n",
             kTop + height_ / 2, escaped(chart_.y_name).c_str());
  }

  void line(const Series& series) {
    std::string path;
    const Dot* last = nullptr;
    for (const Dot& dot : series.dots) {
      Dot end = dot;
      const bool leaves = dot.y > chart_.y_most;
      if (leaves && !last) break;
      if (leaves)
        end = {last->x + (dot.x - last->x) * (chart_.y_most - last->y) / (dot.y - last->y),
               chart_.y_most};
      path += (path.empty() ? "M" : "L") + number(at_x(end.x), 1) + " " + number(at_y(end.y), 1);
      if (leaves) break;
      svg_.add(
          "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"><title>%s: %s, "
          "%s</title></circle>\n",
          at_x(dot.x), at_y(dot.y), series.color.c_str(), escaped(series.name).c_str(),
          number(dot.x).c_str(), number(dot.y, 2).c_str());
      last = &dot;
    }
    svg_.add("<path class=\"line\" stroke=\"%s\"%s d=\"%s\"/>\n", series.color.c_str(),
             series.dashed ? " stroke-dasharray=\"5 4\"" : "", path.c_str());
  }

  void rings(const Series& series) {
    for (const Dot& dot : series.dots)
      if (dot.y <= chart_.y_most)
        svg_.add(
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"6\" fill=\"none\" stroke=\"%s\" "
            "stroke-width=\"2\"><title>%s: %s, %s</title></circle>\n",
            at_x(dot.x), at_y(dot.y), series.color.c_str(), escaped(series.name).c_str(),
            number(dot.x).c_str(), number(dot.y, 2).c_str());
  }

  void legend() {
    double y = kTop + 14;
    for (const Series& series : chart_.series) {
      const double x = kLeft + 12;
      if (series.line)
        svg_.add("<path class=\"line\" stroke=\"%s\"%s d=\"M%.1f %.1fh20\"/>\n",
                 series.color.c_str(), series.dashed ? " stroke-dasharray=\"5 4\"" : "", x, y - 4);
      else
        svg_.add(
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"none\" stroke=\"%s\" "
            "stroke-width=\"2\"/>\n",
            x + 10, y - 4, series.color.c_str());
      svg_.text(x + 28, y, "", series.name);
      y += 16;
    }
  }

 private:
  double at_x(double x) const { return kLeft + width_ * x / chart_.x_most; }
  double at_y(double y) const { return kTop + height_ - height_ * y / chart_.y_most; }

  Svg& svg_;
  const Chart& chart_;
  double width_, height_;
};

}  // namespace

void draw(Svg& svg, const Chart& chart) {
  Drawing drawing(svg, chart);
  drawing.axes();
  for (const Series& series : chart.series)
    series.line ? drawing.line(series) : drawing.rings(series);
  drawing.legend();
}

}  // namespace nocsim::picture
