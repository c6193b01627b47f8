// The bytes of a case, read as choices. Beyond their end everything is 0, so each prefix of a case is a case,
// and what a mutation changes is one choice, seldom all that follow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace sluice::fuzz {

[[noreturn]] inline void failed(const char* file, int line, const char* what) {
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  abort();
}

}  // namespace sluice::fuzz

// What has to hold, in every build.
#define FUZZ_CHECK(condition) ((condition) ? void() : ::sluice::fuzz::failed(__FILE__, __LINE__, #condition))

namespace sluice::fuzz {

class Input {
 public:
  Input(const uint8_t* bytes, std::size_t n) : at_(bytes), end_(bytes + n) {}

  bool empty() const { return at_ == end_; }
  const uint8_t* rest() const { return at_; }
  std::size_t rest_bytes() const { return std::size_t(end_ - at_); }
  void skip(std::size_t n) { at_ += n < rest_bytes() ? n : rest_bytes(); }
  uint8_t byte() { return at_ == end_ ? 0 : *at_++; }
  uint64_t word(int bytes = 8) {
    uint64_t w = 0;
    for (int i = 0; i < bytes; ++i) w |= uint64_t{byte()} << 8 * i;
    return w;
  }
  uint32_t below(uint32_t n) { return uint32_t(word(n > 256 ? 4 : 1)) % n; }
  bool flip() { return byte() & 1; }

  // A number as liars like them: small, at the edge of a width, a little beside `honest`, or anything.
  uint64_t lie(uint64_t honest) {
    switch (byte() % 6) {
      case 0: return honest + int8_t(byte());
      case 1: return uint64_t{1} << byte() % 64;
      case 2: return (uint64_t{1} << byte() % 64) - 1;
      case 3: return honest ^ uint64_t{1} << byte() % 64;
      case 4: return byte();
      default: return word();
    }
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

}  // namespace sluice::fuzz
