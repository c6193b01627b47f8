// Writes JSON, value after value. Commas are put in by themselves.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>

namespace nocsim::program {

class Json {
 public:
  Json& begin_array() { return open('['); }
  Json& end_array() { return close(']'); }
  Json& begin_object() { return open('{'); }
  Json& end_object() { return close('}'); }
  Json& key(std::string_view name) {
    string(name);
    text_ += ": ";
    comma_ = false;
    return *this;
  }
  Json& string(std::string_view value) {
    separate();
    text_ += '"';
    for (char c : value) {
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
    return *this;
  }
  Json& number(double value, int decimals) {
    char digits[64];
    std::snprintf(digits, sizeof digits, "%.*f", decimals, value);
    return raw(digits);
  }
  Json& integer(int64_t value) { return raw(std::to_string(value)); }
  Json& boolean(bool value) { return raw(value ? "true" : "false"); }
  Json& line() {
    separate();
    comma_ = false;
    text_ += '\n';
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  Json& raw(std::string_view value) {
    separate();
    text_ += value;
    return *this;
  }
  Json& open(char bracket) {
    separate();
    text_ += bracket;
    comma_ = false;
    return *this;
  }
  Json& close(char bracket) {
    text_ += bracket;
    comma_ = true;
    return *this;
  }
  void separate() {
    if (comma_) text_ += ", ";
    comma_ = true;
  }

  std::string text_;
  bool comma_ = false;
};

}  // namespace nocsim::program
