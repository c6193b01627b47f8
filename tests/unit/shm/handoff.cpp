#include "shm/handoff.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

using namespace sluice::shm;

namespace {

struct Pair {
  std::unique_ptr<std::byte, decltype(&std::free)> bytes{
      static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kHandoffBytes)), &std::free};
  Handoff to_first{bytes.get(), 0}, to_second{bytes.get(), 1};
  Pair() { std::memset(static_cast<void*>(bytes.get()), 0, kHandoffBytes); }
};

bool enter(const Handoff& h, std::size_t room) {
  uint64_t word = h.word();
  if (Handoff::mode(word) == Handoff::kKernel && !h.want(word)) return false;
  word = h.word();
  return h.enter(word, room);
}
bool write(const Handoff& h, const std::string& s) {
  uint64_t word = h.word();
  if (Handoff::mode(word) != Handoff::kRing || Handoff::credit(word) < s.size()) return false;
  Pieces<std::byte> p = h.reserve(word, s.size());
  std::memcpy(p.first, s.data(), p.first_bytes);
  std::memcpy(p.second, s.data() + p.first_bytes, p.second_bytes);
  return h.publish(word, s.size());
}
std::string read(const Handoff& h) {
  std::size_t n = h.readable(h.word());
  Pieces<const std::byte> p = h.observe(n);
  std::string s(reinterpret_cast<const char*>(p.first), p.first_bytes);
  s.append(reinterpret_cast<const char*>(p.second), p.second_bytes);
  h.retire(n);
  return s;
}

}  // namespace

TEST_CASE("bytes are handed only to a reader that is inside, and as many as it has room for") {
  Pair p;
  CHECK_FALSE(write(p.to_first, "x"));
  REQUIRE(p.to_first.want(p.to_first.word()));
  CHECK_FALSE(write(p.to_first, "x"));
  REQUIRE(enter(p.to_first, 5));
  CHECK_FALSE(write(p.to_first, "123456"));
  CHECK(write(p.to_first, "123"));
  CHECK_FALSE(write(p.to_first, "456"));
  CHECK(write(p.to_first, "45"));
  CHECK(Handoff::credit(p.to_first.word()) == 0);
  CHECK(read(p.to_first) == "12345");
  REQUIRE(p.to_first.rest(p.to_first.word()));
  CHECK_FALSE(write(p.to_first, "x"));
}

TEST_CASE("a reader does not leave while there is something that it has not seen") {
  Pair p;
  REQUIRE(enter(p.to_first, 100));
  uint64_t before = p.to_first.word();
  REQUIRE(write(p.to_first, "abc"));
  CHECK_FALSE(p.to_first.rest(before));
  CHECK_FALSE(p.to_first.sleep(before));
  CHECK(read(p.to_first) == "abc");
  CHECK(p.to_first.rest(p.to_first.word()));
}

TEST_CASE("a writer that goes to the kernel ends a ring, a rest and a wish") {
  for (int mode = 0; mode < 3; mode++) {
    Pair p;
    REQUIRE(p.to_first.want(p.to_first.word()));
    uint64_t word = p.to_first.word();
    if (mode > 0) REQUIRE(p.to_first.enter(word, 10));
    if (mode > 1) REQUIRE(p.to_first.rest(word));
    word = p.to_first.word();
    p.to_first.leave();
    CHECK(Handoff::mode(p.to_first.word()) == Handoff::kKernel);
    CHECK_FALSE(p.to_first.enter(word, 10));
    CHECK_FALSE(p.to_first.publish(word, 1));
  }
}

TEST_CASE("credit of an earlier call is not credit of this one") {
  Pair p;
  REQUIRE(enter(p.to_first, 10));
  REQUIRE(write(p.to_first, "ab"));
  uint64_t earlier = p.to_first.word();
  CHECK(read(p.to_first) == "ab");
  REQUIRE(p.to_first.rest(p.to_first.word()));
  REQUIRE(enter(p.to_first, 3));
  CHECK_FALSE(p.to_first.publish(earlier, 8));
  CHECK(Handoff::credit(p.to_first.word()) == 3);
}

TEST_CASE("what was handed over is found after the reader's death and across the ring's end") {
  Pair p;
  for (std::size_t moved = 0; moved < 3 * kHandoffRingBytes; moved += 50'000) {
    REQUIRE(enter(p.to_second, kHandoffRingBytes * 2));
    std::string piece(50'000, char('a' + moved % 23));
    REQUIRE(write(p.to_second, piece));
    p.to_second.leave();
    CHECK(p.to_second.readable(p.to_second.word()) == piece.size());
    CHECK(read(p.to_second) == piece);
  }
  CHECK(p.to_first.readable(p.to_first.word()) == 0);
}

TEST_CASE("a lie about positions is nothing to read") {
  Pair p;
  p.to_first.direction().word.store(~uint64_t{0} & ~uint64_t{3});
  CHECK(p.to_first.readable(p.to_first.word()) == 0);
  p.to_first.direction().head.store(~uint64_t{0});
  CHECK(p.to_first.readable(p.to_first.word()) <= kHandoffRingBytes);
}
