#include "shm/byte_ring.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <string>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

constexpr uint32_t kSlot = 3;
constexpr uint32_t kFirstPage = kHeapOffset / kPageBytes;
constexpr uint32_t kLastPage = kPairBytes / kPageBytes - 1;
constexpr uint32_t kOtherPage = kFirstPage + 1024;

// A sends to B through one slot.
struct Direction {
  test::TwoDomains domains;
  uint64_t head_seen = 0;

  Slot& sender() { return domains.a_to_b.writers().slot(kSlot); }
  Slot& receiver() { return domains.b_to_a.writers().slot(kSlot); }

  ByteProducer producer() {
    return {domains.a_to_b.writers(), sender(), &domains.b_to_a.readers().slot(kSlot), head_seen};
  }
  ByteConsumer consumer() {
    return {domains.a_to_b.readers(), domains.a_to_b.readers().slot(kSlot), receiver()};
  }

  // Sends what fits.
  std::size_t send(const std::string& bytes) {
    ByteProducer p = producer();
    (void)p.space(true);
    Pieces<std::byte> to = p.reserve(bytes.size());
    if (to.bytes() == 0) return 0;
    std::memcpy(to.first, bytes.data(), to.first_bytes);
    if (to.second_bytes != 0) std::memcpy(to.second, bytes.data() + to.first_bytes, to.second_bytes);
    p.publish(to.bytes());
    return to.bytes();
  }

  // What one observation shows.
  std::string look(uint64_t skip = 0) {
    Pieces<const std::byte> from;
    REQUIRE(consumer().observe(from, skip) == 0);
    std::string bytes(reinterpret_cast<const char*>(from.first), from.first_bytes);
    return bytes.append(reinterpret_cast<const char*>(from.second), from.second_bytes);
  }

  std::string receive(std::size_t at_most = std::string::npos) {
    std::string bytes = look().substr(0, at_most);
    consumer().retire(bytes.size());
    return bytes;
  }

  int observe() {
    Pieces<const std::byte> from;
    return consumer().observe(from);
  }
};

struct SmallRing : Direction {
  static constexpr std::size_t kSize = std::size_t{1} << kSmallestRingLog2;
  SmallRing() { producer().switch_to(kFirstPage, kSmallestRingLog2); }
};

std::string letters(std::size_t n, char first = 'a') {
  std::string s(n, first);
  for (std::size_t i = 0; i < n; ++i) s[i] = char(first + i % 23);
  return s;
}

TEST_CASE("a producer without a ring has no space and can get one") {
  Direction d;
  CHECK_FALSE(d.producer().has_ring());
  CHECK(d.producer().size() == 0);
  CHECK(d.producer().space(true) == 0);
  CHECK(d.producer().reserve(1).bytes() == 0);
  CHECK(d.producer().can_switch());
}

TEST_CASE("a consumer of a direction without a ring sees nothing") {
  Direction d;
  CHECK(d.consumer().available() == 0);
  CHECK(d.look().empty());
}

TEST_CASE_METHOD(SmallRing, "bytes come out as they went in") {
  CHECK(send("hello") == 5);
  CHECK(consumer().available() == 5);
  CHECK(producer().unread() == 5);
  CHECK(receive() == "hello");
  CHECK(consumer().available() == 0);
  CHECK(producer().unread() == 0);
}

TEST_CASE_METHOD(SmallRing, "several sends are one observation") {
  send("ab");
  send("cd");
  send("ef");
  CHECK(look() == "abcdef");
  CHECK(receive(3) == "abc");
  CHECK(receive() == "def");
}

TEST_CASE_METHOD(SmallRing, "looking with skip retires nothing") {
  send("abcdef");
  CHECK(look(4) == "ef");
  CHECK(look(6).empty());
  CHECK(look(7).empty());
  CHECK(look() == "abcdef");
}

TEST_CASE_METHOD(SmallRing, "a full ring has no space until bytes are retired") {
  CHECK(send(letters(kSize + 100)) == kSize);
  CHECK(producer().space(true) == 0);
  CHECK(producer().reserve(1).bytes() == 0);
  CHECK(receive(10) == letters(10));
  CHECK(producer().space(false) == 0);  // the cached head does not know yet
  CHECK(producer().space(true) == 10);
  CHECK(producer().reserve(100).bytes() == 10);
}

TEST_CASE_METHOD(SmallRing, "bytes wrap around the end of the ring") {
  send(letters(kSize - 3));
  receive();
  CHECK(producer().space(true) == kSize);
  Pieces<std::byte> to = producer().reserve(8);
  CHECK(to.first_bytes == 3);
  CHECK(to.second_bytes == 5);
  CHECK(to.second + (kSize - 3) == to.first);
  send("12345678");
  CHECK(look(2) == "345678");
  CHECK(look(3) == "45678");
  CHECK(receive() == "12345678");
}

TEST_CASE_METHOD(SmallRing, "every split of a full ring round the end keeps the bytes") {
  for (std::size_t shift = 0; shift < 64; ++shift) {
    std::string bytes = letters(kSize, char('a' + shift % 3));
    REQUIRE(send(bytes) == kSize);
    REQUIRE(receive() == bytes);
    REQUIRE(send("x") == 1);
    REQUIRE(receive() == "x");
  }
}

TEST_CASE_METHOD(SmallRing, "positions go on beyond four gigabytes") {
  constexpr uint64_t kFar = (uint64_t{1} << 40) - 2;
  sender().tail = kFar;
  receiver().head = kFar;
  CHECK(producer().unread() == 0);
  send("abcdef");
  CHECK(consumer().available() == 6);
  CHECK(receive() == "abcdef");
}

TEST_CASE_METHOD(SmallRing, "a producer whose peer has not attached counts every byte as unread") {
  ByteProducer alone(domains.a_to_b.writers(), sender(), nullptr, head_seen);
  send("abc");
  receive();
  CHECK(alone.unread() == 3);
  CHECK(alone.space(true) == kSize - 3);
}

TEST_CASE_METHOD(SmallRing, "after a handover old bytes come from the old ring and new ones from the new") {
  std::string old_bytes = letters(kSize);
  send(old_bytes);
  REQUIRE(producer().can_switch());
  producer().switch_to(kOtherPage, kSmallestRingLog2 + 2);
  CHECK(producer().size() == kSize * 4);
  CHECK(producer().space(true) == kSize * 4);
  CHECK(send("new bytes") == 9);

  CHECK(consumer().available() == int64_t(kSize) + 9);
  CHECK(producer().unread() == kSize + 9);
  CHECK(look() == old_bytes);
  CHECK(look(kSize) == "new bytes");
  CHECK(look(kSize - 1) == old_bytes.substr(kSize - 1));
  CHECK(receive() == old_bytes);
  CHECK(receive() == "new bytes");
}

TEST_CASE_METHOD(SmallRing, "a handover before the first byte needs no second observation") {
  producer().switch_to(kOtherPage, kSmallestRingLog2 + 1);
  send("abc");
  CHECK(receive() == "abc");
}

TEST_CASE_METHOD(SmallRing, "a second handover is refused until the head has passed the first") {
  send("abc");
  producer().switch_to(kOtherPage, kSmallestRingLog2 + 1);
  send("def");
  CHECK_FALSE(producer().can_switch());
  receive(2);
  CHECK_FALSE(producer().can_switch());
  receive(1);
  REQUIRE(producer().can_switch());
  producer().switch_to(kFirstPage, kSmallestRingLog2 + 2);
  send("ghi");
  CHECK(consumer().available() == 6);
  CHECK(receive() == "def");
  CHECK(receive() == "ghi");
}

TEST_CASE_METHOD(SmallRing, "space in the newest ring does not count what is unread in the old one") {
  send(letters(kSize));
  producer().switch_to(kOtherPage, kSmallestRingLog2);
  CHECK(producer().space(true) == kSize);
  send(letters(kSize));
  CHECK(producer().space(true) == 0);
  receive();
  CHECK(producer().space(true) == 0);
  receive(7);
  CHECK(producer().space(true) == 7);
}

TEST_CASE("two rings of the largest size, both full, are within what a consumer believes") {
  Direction d;
  constexpr std::size_t kLargest = std::size_t{1} << kLargestRingLog2;
  d.producer().switch_to(kFirstPage, kLargestRingLog2);
  REQUIRE(d.send(letters(kLargest)) == kLargest);
  d.producer().switch_to(kOtherPage, kLargestRingLog2);
  REQUIRE(d.send(letters(kLargest)) == kLargest);
  CHECK(d.consumer().available() == int64_t(2 * kLargest));
  CHECK(d.receive() == letters(kLargest));
  CHECK(d.receive() == letters(kLargest));
}

TEST_CASE("rings are valid only inside the heap and in sizes of the protocol") {
  CHECK(ring_is_valid({0, kFirstPage, kSmallestRingLog2}));
  CHECK(ring_is_valid({0, kLastPage, kSmallestRingLog2}));
  CHECK_FALSE(ring_is_valid({0, kLastPage, kSmallestRingLog2 + 1}));
  CHECK_FALSE(ring_is_valid({0, kLastPage + 1, kSmallestRingLog2}));
  CHECK_FALSE(ring_is_valid({0, kFirstPage - 1, kSmallestRingLog2}));
  CHECK_FALSE(ring_is_valid({0, 0, kSmallestRingLog2}));
  CHECK_FALSE(ring_is_valid({0, UINT32_MAX, kSmallestRingLog2}));
  for (uint32_t log2 : {0u, 1u, kSmallestRingLog2 - 1, kLargestRingLog2 + 1, 31u, 32u, 44u, 63u, 64u, UINT32_MAX})
    CHECK_FALSE(ring_is_valid({0, kFirstPage, log2}));
}

TEST_CASE_METHOD(SmallRing, "a consumer answers EPROTO to a tail behind its head") {
  send("abc");
  receive();
  sender().tail = 2;
  CHECK(consumer().available() == -EPROTO);
  CHECK(observe() == -EPROTO);
}

TEST_CASE_METHOD(SmallRing, "a consumer answers EPROTO to a tail beyond the ring") {
  sender().tail = kSize;
  CHECK(observe() == 0);
  sender().tail = kSize + 1;
  CHECK(observe() == -EPROTO);
  sender().tail = uint64_t{1} << 30;
  CHECK(consumer().available() == -EPROTO);
  CHECK(observe() == -EPROTO);
  sender().tail = UINT64_MAX;
  CHECK(consumer().available() == -EPROTO);
  CHECK(observe() == -EPROTO);
}

TEST_CASE_METHOD(SmallRing, "a consumer answers EPROTO to bytes without a ring") {
  sender().switches = 0;
  sender().tail = 1;
  CHECK(observe() == -EPROTO);
}

TEST_CASE_METHOD(SmallRing, "a consumer answers EPROTO to a ring outside the heap") {
  send("abc");
  for (RingRef lie : {RingRef{0, 0, 12}, RingRef{0, kFirstPage - 1, 12}, RingRef{0, kLastPage, 13},
                      RingRef{0, UINT32_MAX, 20}, RingRef{0, kFirstPage, 3}, RingRef{0, kFirstPage, 44},
                      RingRef{0, kFirstPage, UINT32_MAX}}) {
    sender().rings[1] = lie;
    CHECK(observe() == -EPROTO);
  }
}

TEST_CASE_METHOD(SmallRing, "a handover to a position in the future cannot show more than a ring") {
  send("abc");
  producer().switch_to(kOtherPage, kSmallestRingLog2);
  sender().rings[0].from = UINT64_MAX;
  CHECK(look() == "abc");
  sender().tail = kSize + 1;
  CHECK(observe() == -EPROTO);
}

TEST_CASE_METHOD(SmallRing, "nothing that a producer writes makes a consumer look outside the heap") {
  std::mt19937_64 random(1);
  auto wild = [&] { return random() >> (random() % 64); };
  auto near_page = [&] { return random() % 2 ? uint32_t(wild()) : kLastPage - uint32_t(random() % 300); };
  PairView region = domains.a_to_b.readers();
  uint32_t shown = 0;
  for (int i = 0; i < 300'000; ++i) {
    receiver().head = random() % 2 ? wild() : random() % 10'000;
    sender().tail = receiver().head + (random() % 2 ? wild() : random() % 10'000);
    sender().switches = uint32_t(random() % 8 ? random() % 5 : wild());
    for (RingRef& ring : sender().rings)
      ring = {random() % 2 ? wild() : receiver().head + random() % 5000, near_page(),
              random() % 2 ? uint32_t(wild()) : uint32_t(10 + random() % 12)};
    Pieces<const std::byte> out;
    int error = consumer().observe(out, random() % 4 ? 0 : random() % 10'000);
    if (error != 0) {
      REQUIRE(error == -EPROTO);
      continue;
    }
    shown += out.bytes() != 0;
    REQUIRE(out.bytes() <= std::size_t{1} << kLargestRingLog2);
    auto inside = [&](const std::byte* p, std::size_t n) {
      return n == 0 || (p >= region.base + kHeapOffset && p + n <= region.base + kPairBytes);
    };
    REQUIRE(inside(out.first, out.first_bytes));
    REQUIRE(inside(out.second, out.second_bytes));
  }
  CHECK(shown > 1000);
}

TEST_CASE_METHOD(SmallRing, "a producer ignores a head beyond its tail") {
  send(letters(kSize));
  receiver().head = kSize + 1;
  CHECK(producer().space(true) == 0);
  receiver().head = UINT64_MAX;
  CHECK(producer().space(true) == 0);
  CHECK(producer().unread() == kSize);
}

TEST_CASE_METHOD(SmallRing, "a producer ignores a head that goes back") {
  send("abcdef");
  receive();
  CHECK(producer().unread() == 0);
  receiver().head = 1;
  CHECK(producer().unread() == 0);
  CHECK(producer().space(true) == kSize);
}

TEST_CASE_METHOD(SmallRing, "whatever head a consumer writes, reserved space stays inside the ring") {
  std::mt19937_64 random(2);
  std::byte* ring = domains.a_to_b.writers().base + kHeapOffset;
  for (int i = 0; i < 100'000; ++i) {
    receiver().head = random() % 2 ? random() >> random() % 64 : producer().tail() - random() % 5000;
    std::size_t space = producer().space(true);
    REQUIRE(space <= kSize);
    Pieces<std::byte> to = producer().reserve(random() % 6000);
    REQUIRE(to.bytes() <= space);
    if (to.bytes() == 0) continue;
    REQUIRE((to.first >= ring && to.first + to.first_bytes <= ring + kSize));
    REQUIRE((to.second_bytes == 0 || (to.second == ring && to.second_bytes <= kSize)));
    producer().publish(to.bytes());
  }
}

// ---- cleared ----------------------------------------------------------------------------

struct Cleared : Direction {
  const std::byte* ring() { return domains.a_to_b.readers().base + std::size_t{kFirstPage} * kPageBytes; }
  std::size_t left(std::size_t bytes) {
    return bytes - std::size_t(std::count(ring(), ring() + bytes, std::byte{0}));
  }
};

TEST_CASE_METHOD(Cleared, "a cleared ring has nothing of what was written, wherever that began") {
  for (uint64_t from : {uint64_t{0}, uint64_t{100}, uint64_t{5000}, uint64_t{4095}}) {
    for (std::size_t bytes : {std::size_t{1}, std::size_t{3000}, std::size_t{4096}}) {
      RingRef r{from, kFirstPage, kSmallestRingLog2};
      auto* base = domains.a_to_b.writers().base + std::size_t{kFirstPage} * kPageBytes;
      for (std::size_t i = 0; i < bytes; ++i) base[(from + i) % 4096] = std::byte{'s'};
      REQUIRE(left(4096) == bytes);
      clear_ring(domains.a_to_b.writers(), r, from + bytes);
      CHECK(left(4096) == 0);
    }
  }
}

TEST_CASE_METHOD(Cleared, "clearing touches no more than was written, and not what lies behind the ring") {
  auto* base = domains.a_to_b.writers().base + std::size_t{kFirstPage} * kPageBytes;
  std::fill(base, base + 8192, std::byte{'s'});
  clear_ring(domains.a_to_b.writers(), {7, kFirstPage, kSmallestRingLog2}, 17);
  CHECK(left(8192) == 8192 - 10);
  clear_ring(domains.a_to_b.writers(), {7, kFirstPage, kSmallestRingLog2}, 1'000'000);  // many times round
  CHECK(left(8192) == 4096);
}

}  // namespace
}  // namespace sluice::shm
