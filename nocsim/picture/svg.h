// Writes SVG, element after element.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <string_view>

namespace nocsim::picture {

class Svg {
 public:
  Svg(double width, double height);

  // Raw markup, printf-like.
  [[gnu::format(printf, 2, 3)]] Svg& add(const char* format, ...);
  Svg& text(double x, double y, std::string_view klass, std::string_view what);
  // `where`: an SVG transform around what follows, until end_group().
  Svg& begin_group(std::string_view where);
  Svg& end_group();
  // The whole of it; `as_page`: in an HTML page.
  std::string finish(bool as_page, std::string_view title);

 private:
  std::string text_;
};

std::string escaped(std::string_view text);
// From pale to dark red for 0..1.
std::string heat(double share);
// 1, 2 or 5 times a power of ten, so that about `steps` of it make `span`.
double round_step(double span, int steps);
std::string number(double value, int most_decimals = 3);

}  // namespace nocsim::picture
