#include "shm/channel.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

using namespace sluice::shm;

namespace {

struct Memory {
  std::unique_ptr<std::byte, decltype(&std::free)> bytes{
      static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kChannelBytes)), &std::free};
  Channel channel{bytes.get()};
  Memory() {
    std::memset(static_cast<void*>(bytes.get()), 0, kChannelBytes);
    channel.header().limit.store(65536);
  }
  bool write(const std::string& s) {
    uint64_t word = channel.word();
    Pieces<std::byte> p = channel.reserve(word, s.size());
    std::memcpy(p.first, s.data(), p.first_bytes);
    std::memcpy(p.second, s.data() + p.first_bytes, p.second_bytes);
    return channel.publish(word, s.size());
  }
  std::string read(std::size_t most = SIZE_MAX) {
    std::size_t n = std::min(most, channel.readable(channel.word()));
    Pieces<const std::byte> p = channel.observe(n);
    std::string s(reinterpret_cast<const char*>(p.first), p.first_bytes);
    s.append(reinterpret_cast<const char*>(p.second), p.second_bytes);
    channel.retire(n);
    return s;
  }
};

}  // namespace

TEST_CASE("a channel begins in kernel mode") {
  Memory m;
  CHECK_FALSE(Channel::is_ring(m.channel.word()));
  CHECK(m.channel.readable(m.channel.word()) == 0);
  CHECK(m.channel.enter(m.channel.word()));
  CHECK(Channel::is_ring(m.channel.word()));
}

TEST_CASE("a reader goes to sleep only while the ring is empty and nothing came since it looked") {
  Memory m;
  REQUIRE(m.channel.enter(m.channel.word()));
  uint64_t before = m.channel.word();
  REQUIRE(m.write("x"));
  CHECK_FALSE(m.channel.sleep(before));
  CHECK_FALSE(m.channel.sleep(m.channel.word()));
  CHECK(m.read() == "x");
  CHECK(m.channel.sleep(m.channel.word()));
}

TEST_CASE("a wish for the ring is not the ring") {
  Memory m;
  REQUIRE(m.channel.want(m.channel.word()));
  uint64_t wanted = m.channel.word();
  CHECK(Channel::is_wanted(wanted));
  CHECK_FALSE(m.channel.publish(wanted, 1));
  CHECK_FALSE(m.channel.want(wanted));
  REQUIRE(m.channel.enter(wanted));
  CHECK(m.write("x"));
  m.channel.leave();
  REQUIRE(m.channel.want(m.channel.word()));
  CHECK_FALSE(m.channel.sleep(m.channel.word()));
  CHECK(m.read() == "x");
  CHECK(m.channel.sleep(m.channel.word()));
  CHECK(Channel::is_kernel(m.channel.word()));
}

TEST_CASE("a writer that loses to a sleeping reader has published nothing") {
  Memory m;
  REQUIRE(m.channel.enter(m.channel.word()));
  uint64_t seen = m.channel.word();
  REQUIRE(m.channel.sleep(seen));
  CHECK_FALSE(m.channel.publish(seen, 5));
  CHECK(m.channel.readable(m.channel.word()) == 0);
}

TEST_CASE("leaving keeps what is in the ring") {
  Memory m;
  REQUIRE(m.channel.enter(m.channel.word()));
  REQUIRE(m.write("kept"));
  m.channel.leave();
  CHECK_FALSE(Channel::is_ring(m.channel.word()));
  CHECK(m.read() == "kept");
}

TEST_CASE("the ring takes as much as its limit says, across the wrap") {
  Memory m;
  REQUIRE(m.channel.enter(m.channel.word()));
  uint64_t sent = 0, got = 0;
  auto piece_of = [](uint64_t at, std::size_t n) {
    std::string s(n, 0);
    for (std::size_t i = 0; i < n; ++i) s[i] = char((at + i) * 7 % 251);
    return s;
  };
  for (int i = 0; i < 200; ++i) {
    CHECK(m.channel.space(m.channel.word()) == 65536 - (sent - got));
    std::size_t n = std::min<std::size_t>(m.channel.space(m.channel.word()), 20'011);
    REQUIRE(m.write(piece_of(sent, n)));
    sent += n;
    std::string s = m.read(17'003);
    CHECK(s == piece_of(got, s.size()));
    got += s.size();
  }
}

TEST_CASE("lies about positions give nothing to read and no space") {
  Memory m;
  REQUIRE(m.channel.enter(m.channel.word()));
  m.channel.header().head.store(12345);
  CHECK(m.channel.readable(m.channel.word()) == 0);
  CHECK(m.channel.space(m.channel.word()) == 0);
  m.channel.header().head.store(0);
  m.channel.header().word.store(uint64_t{1} << 40 | kRingMode);
  CHECK(m.channel.readable(m.channel.word()) == 0);
  CHECK(m.channel.space(m.channel.word()) == 0);
  m.channel.header().word.store(kRingMode);
  m.channel.header().limit.store(~0u);
  CHECK(m.channel.space(m.channel.word()) == kChannelRingBytes);
}
