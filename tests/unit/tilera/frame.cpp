#include "tilera/frame.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

using namespace sluice;
using shm::Frame;

namespace {

// What is sent comes back, word for word.
struct Echo {
  std::vector<uint64_t> words;
  std::size_t at = 0;

  tilera::TileId here() const { return 7; }
  tilera::Word header(tilera::TileId to, tilera::Queue queue) const { return to << 4 | queue << 8; }
  template <class... Words>
  void send(tilera::Word header, Words... w) {
    (words.push_back(header + sizeof...(w)), ..., words.push_back(w));
  }
  template <tilera::Queue kQueue>
  uint64_t receive() {
    return words.at(at++);
  }
  uint64_t available() { return at < words.size(); }
  template <tilera::Queue kQueue>
  uint32_t count() {
    return uint32_t(words.size() - at);
  }
  uint64_t cycle() { return at; }
  void fence() {}
};
static_assert(tilera::Noc<Echo> && !tilera::Modelled<Echo>);

}  // namespace

TEST_CASE("a frame keeps the largest value of each field, and each by itself") {
  const Frame fields[] = {{255}, {0, 15}, {0, 0, 4095}, {0, 0, 0, 65535}, {0, 0, 0, 0, (1u << 24) - 1}};
  uint64_t all = 0;
  for (const Frame& f : fields) {
    CHECK((all & f.packed()) == 0);
    all |= f.packed();
    Frame back = Frame::unpacked(f.packed());
    CHECK(back.type == f.type);
    CHECK(back.words == f.words);
    CHECK(back.status == f.status);
    CHECK(back.sender == f.sender);
    CHECK(back.id == f.id);
  }
  CHECK(all == ~uint64_t{0});
}

TEST_CASE("a frame of more words than a message has is not plausible") {
  for (uint32_t words = 0; words < 16; ++words) CHECK(Frame{0, words}.is_plausible() == (words <= 7 || words == 15));
}

TEST_CASE("a message arrives whole, and without the zeros at its end") {
  for (uint32_t words = 0; words <= shm::kMessageWords; ++words) {
    shm::Message m{uint16_t(words + 1), uint16_t(words * 3), 0xabcdef, {}};
    for (uint32_t i = 0; i < words; ++i) m.words[i] = i == 1 ? 0 : i + 1;
    if (words == 2) m.words[1] = 5;  // the last one is not zero
    Echo noc;
    tilera::send_message(noc, 3, tilera::kReplies, m);
    CHECK(noc.words.size() == 2 + words);
    CHECK(noc.words.at(0) == noc.header(3, tilera::kReplies) + 1 + words);
    noc.at = 1;
    Frame frame = Frame::unpacked(noc.receive<tilera::kReplies>());
    CHECK(frame.sender == 7);
    shm::Message back = tilera::receive_rest<tilera::kReplies>(noc, frame);
    CHECK(memcmp(&back, &m, sizeof m) == 0);
    CHECK(noc.available() == 0);
  }
}
