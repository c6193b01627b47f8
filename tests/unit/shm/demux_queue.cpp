#include "shm/demux_queue.h"

#include <catch2/catch.hpp>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

// A message of which so many words travel.
Message numbered(uint64_t n, uint32_t words = kMessageWords) {
  Message m{};
  m.type = 7;
  m.id = uint32_t(n);
  for (uint32_t i = 0; i < words; ++i) m.words[i] = n * 8 + i + 1;
  return m;
}

struct Demux {
  test::MappedRegion client{kClientBytes};
  test::MappedRegion coordinator{kReplyBytes};
  DemuxProducer producer{&client.as_written<ClientRegion>().demux_requests,
                         &coordinator.as_read<ReplyRegion>().demux_requests_head};
  DemuxConsumer consumer{&client.as_read<ClientRegion>().demux_requests,
                         &coordinator.as_written<ReplyRegion>().demux_requests_head};
  Frame frame;
  Message taken{};

  DemuxWords& ring() { return client.as_written<ClientRegion>().demux_requests; }
  Shared<uint64_t>& head() { return coordinator.as_written<ReplyRegion>().demux_requests_head; }
  bool send(const Message& m) { return producer.try_send(frame_of(m, words_that_travel(m), 9), m); }
  Taken take() { return consumer.try_take(frame, taken); }
  bool take_is(const Message& m) {
    return take() == Taken::kPacket && taken.type == m.type && taken.id == m.id &&
           std::equal(m.words, m.words + kMessageWords, taken.words);
  }
  // Words as a producer that is not ours would write them, published as one that says so.
  void write(uint64_t at, std::initializer_list<uint64_t> words, uint64_t tail) {
    for (uint64_t w : words) ring().words[at++ % kDemuxPlaces].store(w);
    ring().tail.store(tail);
  }
};

TEST_CASE_METHOD(Demux, "an empty demux queue gives nothing") {
  CHECK(consumer.empty());
  CHECK(take() == Taken::kNothing);
}

TEST_CASE_METHOD(Demux, "packets of every length arrive whole and in order, around the ring many times") {
  for (uint64_t n = 0; n < 20 * kDemuxPlaces; n += 8) {
    for (uint32_t words = 0; words <= kMessageWords; ++words) REQUIRE(send(numbered(n + words, words)));
    for (uint32_t words = 0; words <= kMessageWords; ++words) REQUIRE(take_is(numbered(n + words, words)));
    REQUIRE(consumer.empty());
  }
  CHECK(frame.sender == 9);
}

TEST_CASE_METHOD(Demux, "a demux queue holds 118 words, and takes nothing of a packet that does not fit") {
  for (uint64_t n = 0; n < kDemuxWords / kFramedWords; ++n) REQUIRE(send(numbered(n)));
  static_assert(kDemuxWords % kFramedWords == 6);
  uint64_t tail = ring().tail.load();
  CHECK_FALSE(send(numbered(99)));
  CHECK_FALSE(send(numbered(99, 6)));
  CHECK(ring().tail.load() == tail);
  CHECK(send(numbered(14, 5)));
  CHECK(ring().tail.load() == kDemuxWords);
  CHECK_FALSE(send(numbered(99, 0)));
  REQUIRE(take_is(numbered(0)));
  CHECK(send(numbered(15)));
  CHECK_FALSE(send(numbered(99, 0)));
  for (uint64_t n = 1; n < 14; ++n) REQUIRE(take_is(numbered(n)));
  CHECK(take_is(numbered(14, 5)));
  CHECK(take_is(numbered(15)));
  CHECK(producer.is_drained());
}

TEST_CASE_METHOD(Demux, "staged packets are there once they are published, all of them") {
  for (uint64_t n = 0; n < 5; ++n) REQUIRE(producer.try_stage(frame_of(numbered(n), 7, 9), numbered(n)));
  CHECK(take() == Taken::kNothing);
  producer.publish();
  for (uint64_t n = 0; n < 5; ++n) CHECK(take_is(numbered(n)));
  CHECK(take() == Taken::kNothing);
}

TEST_CASE_METHOD(Demux, "who looks at many queues sees where the next packet will be") {
  for (uint64_t n = 0; n < 3 * kDemuxPlaces; ++n) {
    DemuxConsumer::Place place = consumer.next();
    CHECK_FALSE(place.is_filled());
    REQUIRE(send(numbered(n, n % 8)));
    CHECK(place.is_filled());
    REQUIRE(take_is(numbered(n, n % 8)));
  }
}

TEST_CASE_METHOD(Demux, "an impossible head means a full queue") {
  REQUIRE(send(numbered(0)));
  for (uint64_t n = 1; n < 14; ++n) REQUIRE(send(numbered(n)));
  for (uint64_t lie : {uint64_t{kDemuxWords} + 1, uint64_t{1} << 40, UINT64_MAX}) {
    head().store(lie);
    CHECK_FALSE(send(numbered(99)));
  }
  head().store(kFramedWords);
  CHECK(send(numbered(14)));
}

TEST_CASE_METHOD(Demux, "a packet that tail cuts off is a broken queue, and no word of it is taken") {
  for (uint32_t there = 1; there < kFramedWords; ++there) {
    write(0, {Frame{7, kMessageWords}.packed(), 1, 2, 3}, there);
    CHECK(take() == Taken::kBroken);
    CHECK(take() == Taken::kBroken);
    CHECK(head().load() == 0);
  }
}

TEST_CASE_METHOD(Demux, "a frame that no message has is a broken queue") {
  for (uint32_t words = kMessageWords + 1; words < 16; ++words) {  // kInLine included
    write(0, {Frame{7, words}.packed()}, 20);
    CHECK(take() == Taken::kBroken);
  }
}

TEST_CASE_METHOD(Demux, "a tail that no honest producer has is a broken queue") {
  REQUIRE(send(numbered(0)));
  REQUIRE(take_is(numbered(0)));
  for (uint64_t lie : {uint64_t{kFramedWords - 1}, uint64_t{kFramedWords + kDemuxWords + 1}, uint64_t{0}, UINT64_MAX, uint64_t{1} << 63}) {
    write(kFramedWords, {Frame{7, 0}.packed()}, lie);
    CHECK(take() == Taken::kBroken);
  }
  CHECK(head().load() == kFramedWords);
}

TEST_CASE_METHOD(Demux, "good packets before a broken one are taken") {
  REQUIRE(send(numbered(0, 2)));
  write(3, {Frame{7, 15}.packed()}, 5);
  CHECK(take_is(numbered(0, 2)));
  CHECK(take() == Taken::kBroken);
}

TEST_CASE_METHOD(Demux, "whatever is in the words, a taken packet is one that a message can be") {
  uint64_t x = 88172645463325252;
  uint32_t packets = 0, broken = 0;
  for (int n = 0; n < 100'000; ++n) {
    for (Shared<uint64_t>& w : ring().words) w.store(x ^= x << 13, std::memory_order_relaxed), x ^= x >> 7, x ^= x << 17;
    uint64_t before = head().load();
    ring().tail.store(before + x % (kDemuxWords + 10));
    Taken t = take();
    packets += t == Taken::kPacket;
    broken += t == Taken::kBroken;
    uint64_t moved = head().load() - before;
    REQUIRE(moved == (t == Taken::kPacket ? 1 + frame.words : 0));
    REQUIRE((t != Taken::kPacket || frame.words <= kMessageWords));
    n += 99;
  }
  CHECK(packets > 0);
  CHECK(broken > 0);
}

}  // namespace
}  // namespace sluice::shm
