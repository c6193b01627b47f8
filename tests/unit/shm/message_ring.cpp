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
  Shared<uint64_t>& tail() { return client.as_written<ClientRegion>().requests.tail; }
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
  producer = MessageProducer(&client.as_written<ClientRegion>().requests,
                             &coordinator.as_read<ReplyRegion>().requests_head);
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

TEST_CASE_METHOD(Requests, "a jumping tail shows only what lies in the entries") {
  REQUIRE(producer.try_push(numbered(0)));
  for (uint64_t lie : {uint64_t{kMessages} * 5 + 3, uint64_t{1} << 63, UINT64_MAX}) {
    tail() = lie;
    Message m{};
    for (uint32_t i = 0; i < 3 * kMessages; ++i) REQUIRE(consumer.try_pop(m));
    CHECK((m.type == 7 || m.type == 0));
  }
}

TEST_CASE_METHOD(Requests, "a tail that goes back is no reason to stop or to crash") {
  for (uint64_t n = 0; n < 3; ++n) REQUIRE(producer.try_push(numbered(n)));
  for (uint64_t n = 0; n < 3; ++n) REQUIRE(pop_is(n));
  tail() = 1;
  Message m;
  CHECK(consumer.try_pop(m));
}

}  // namespace
}  // namespace sluice::shm
