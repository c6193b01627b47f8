#include "nocsim/picture/svg.h"

#include <algorithm>
#include <cmath>

namespace nocsim::picture {
namespace {

constexpr const char* kStyle =
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#333}"
    ".title{font-size:15px;font-weight:600}.small{font-size:10px;fill:#666}"
    ".middle{text-anchor:middle}.right{text-anchor:end}"
    ".axis{stroke:#999;stroke-width:1}.grid{stroke:#e6e6e6;stroke-width:1}"
    ".line{fill:none;stroke-width:2}.router{fill:#fff;stroke:#778}";

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else
      result += c;
  }
  return result;
}

std::string heat(double share) {
  // Pale blue, yellow, red: each a stop of a straight line in RGB.
  constexpr double stops[][3] = {{226, 234, 244}, {253, 212, 118}, {226, 92, 51}, {140, 10, 37}};
  const double at = std::clamp(share, 0.0, 1.0) * 3;
  const int low = std::min(2, static_cast<int>(at));
  int rgb[3];
  for (int i = 0; i < 3; ++i)
    rgb[i] = static_cast<int>(stops[low][i] + (stops[low + 1][i] - stops[low][i]) * (at - low));
  char color[16];
  std::snprintf(color, sizeof color, "#%02x%02x%02x", rgb[0] & 255, rgb[1] & 255, rgb[2] & 255);
  return color;
}

double round_step(double span, int steps) {
  const double rough = span / steps;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0})
    if (power * factor >= rough) return power * factor;
  return power * 10;
}

std::string number(double value, int most_decimals) {
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.*f", most_decimals, value);
  std::string text = digits;
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

Svg::Svg(double width, double height) {
  add("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
      "%.0f\">\n",
      width, height, width, height);
  add("<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", kStyle);
}

Svg& Svg::add(const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string piece(static_cast<size_t>(length) + 1, '\0');
  std::vsnprintf(piece.data(), piece.size(), format, again);
  va_end(again);
  piece.pop_back();
  text_ += piece;
  return *this;
}

Svg& Svg::text(double x, double y, std::string_view klass, std::string_view what) {
  return add("<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y,
             std::string(klass).c_str(), escaped(what).c_str());
}

Svg& Svg::begin_group(std::string_view where) {
  return add("<g transform=\"%s\">\n", std::string(where).c_str());
}
Svg& Svg::end_group() { return add("</g>\n"); }

std::string Svg::finish(bool as_page, std::string_view title) {
  text_ += "</svg>\n";
  if (!as_page) return text_;
  return "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>" + escaped(title) +
         "</title>\n<body style=\"margin:2em;background:#fff\">\n" + text_ + "</body></html>\n";
}

}  // namespace nocsim::picture
