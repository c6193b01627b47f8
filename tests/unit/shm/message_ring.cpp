#include "shm/message_ring.h"

#include <catch2/catch.hpp>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

Message numbered(uint64_t n) {
  Message m{};
  m.type = 7;
  m.id = uint32_t(n);
  for (uint64_t& word : m.words) word = n * 3;
  return m;
}

// A client's requests: the ring in its region, the head in the coordinator's.
struct Requests {
  test::MappedRegion client{kClientBytes};
  test::MappedRegion coordinator{kReplyBytes};
  MessageProducer producer{&client.as_written<ClientRegion>().requests,
                           &coordinator.as_read<ReplyRegion>().requests_head};
  MessageConsumer consumer{&client.as_read<ClientRegion>().requests,
                           &coordinator.as_written<ReplyRegion>().requests_head};
  Shared<uint64_t>& head() { return coordinator.as_written<ReplyRegion>().requests_head; }
  bool pop_is(uint64_t n) {
    Message m;
    return consumer.try_pop(m) && m.type == 7 && m.id == n && m.words[0] == n * 3 && m.words[6] == n * 3;
  }
};

TEST_CASE_METHOD(Requests, "an empty message ring gives nothing") {
  Message m;
  CHECK(consumer.empty());
  CHECK_FALSE(consumer.try_pop(m));
}

TEST_CASE_METHOD(Requests, "staged messages are there once they are published, all of them") {
  for (uint64_t n = 0; n < kMessages; ++n) REQUIRE(producer.try_stage(numbered(n)));
  Message m;
  CHECK_FALSE(producer.try_stage(numbered(kMessages)));
  CHECK_FALSE(consumer.try_pop(m));
  producer.publish();
  for (uint64_t n = 0; n < kMessages; ++n) CHECK(pop_is(n));
  CHECK_FALSE(consumer.try_pop(m));
}

TEST_CASE_METHOD(Requests, "messages arrive whole and in order") {
  for (uint64_t n = 0; n < 10; ++n) REQUIRE(producer.try_push(numbered(n)));
  CHECK_FALSE(consumer.empty());
  for (uint64_t n = 0; n < 10; ++n) REQUIRE(pop_is(n));
  CHECK(consumer.empty());
}

TEST_CASE_METHOD(Requests, "a full message ring refuses a push until one message is taken") {
  for (uint64_t n = 0; n < kMessages; ++n) REQUIRE(producer.try_push(numbered(n)));
  CHECK_FALSE(producer.try_push(numbered(99)));
  CHECK(pop_is(0));
  CHECK(producer.try_push(numbered(kMessages)));
  CHECK_FALSE(producer.try_push(numbered(99)));
  for (uint64_t n = 1; n <= kMessages; ++n) REQUIRE(pop_is(n));
}

TEST_CASE_METHOD(Requests, "a message ring wraps around many times") {
  for (uint64_t n = 0; n < 10 * kMessages; n += 3) {
    for (uint64_t i = 0; i < 3; ++i) REQUIRE(producer.try_push(numbered(n + i)));
    for (uint64_t i = 0; i < 3; ++i) REQUIRE(pop_is(n + i));
  }
}

TEST_CASE_METHOD(Requests, "a message consumer made anew goes on where the last one stopped") {
  for (uint64_t n = 0; n < 5; ++n) REQUIRE(producer.try_push(numbered(n)));
  CHECK(pop_is(0));
  consumer = MessageConsumer(&client.as_read<ClientRegion>().requests, &head());
  CHECK(pop_is(1));
  CHECK(producer.try_push(numbered(5)));
  for (uint64_t n = 2; n <= 5; ++n) REQUIRE(pop_is(n));
}

TEST_CASE_METHOD(Requests, "an impossible head means a full ring") {
  for (uint64_t n = 0; n < kMessages; ++n) REQUIRE(producer.try_push(numbered(n)));
  for (uint64_t lie : {uint64_t{kMessages} + 1, uint64_t{1} << 40, UINT64_MAX}) {
    head() = lie;
    CHECK_FALSE(producer.try_push(numbered(99)));
  }
  head() = 1;
  CHECK(producer.try_push(numbered(kMessages)));
}

TEST_CASE_METHOD(Requests, "of staged messages none is there before the first one, whichever the lap") {
  for (uint64_t n = 0; n < 5 * kMessages; n += 7) {
    for (uint64_t i = 0; i < 7; ++i) REQUIRE(producer.try_stage(numbered(n + i)));
    CHECK(consumer.empty());
    producer.publish();
    for (uint64_t i = 0; i < 7; ++i) REQUIRE(pop_is(n + i));
    CHECK(consumer.empty());
  }
}

TEST_CASE_METHOD(Requests, "a status never looks like the mark of a lap") {
  Message m = numbered(0);
  m.status = 0xffff;
  for (uint64_t n = 0; n < 2 * kMessages; ++n) {
    CHECK(consumer.empty());
    REQUIRE(producer.try_push(m));
    Message out;
    REQUIRE(consumer.try_pop(out));
    CHECK(out.status == 0x7fff);
  }
}

TEST_CASE_METHOD(Requests, "who looks at many rings sees where the next message will be") {
  for (uint64_t n = 0; n < 3 * kMessages; ++n) {
    MessageConsumer::Place place = consumer.next();
    CHECK_FALSE(place.is_filled());
    REQUIRE(producer.try_push(numbered(n)));
    CHECK(place.is_filled());
    REQUIRE(pop_is(n));
  }
}

TEST_CASE_METHOD(Requests, "false marks show only what lies in the entries, one message for each look") {
  REQUIRE(producer.try_push(numbered(0)));
  for (uint64_t mark : {kLapMark, uint64_t{0}}) {
    for (MessageEntry& e : client.as_written<ClientRegion>().requests.entries) e.first.store((e.first.load() & ~kLapMark) | mark);
    Message m{};
    uint32_t got = 0;
    while (got < 3 * kMessages && consumer.try_pop(m)) ++got;
    CHECK(got <= kMessages);
    CHECK((m.type == 7 || m.type == 0));
  }
}

}  // namespace
}  // namespace sluice::shm
