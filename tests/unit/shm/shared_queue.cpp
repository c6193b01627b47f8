#include "shm/shared_queue.h"

#include <catch2/catch.hpp>
#include <memory>

namespace sluice::shm {
namespace {

Message numbered(uint64_t n) {
  Message m{};
  m.id = uint32_t(n);
  m.words[6] = n;
  return m;
}

// A queue that every client of a uid may write, so one mapping serves all.
struct SharedQueue {
  std::unique_ptr<SharedQueueRegion> queue = std::make_unique<SharedQueueRegion>();
  Shared<uint64_t> claims[2] = {};
  SharedProducer producers[2] = {{queue.get(), &claims[0], 10}, {queue.get(), &claims[1], 11}};
  SharedConsumer consumer{queue.get()};
  Message popped{};
  DomainId sender = kNobody;

  bool pop() { return consumer.try_pop(popped, sender); }

  // What a producer leaves behind that dies after A1 or, with a claim, after A2.
  uint64_t die_after_claiming(Shared<uint64_t>* claim) {
    if (claim != nullptr) claim->store(1);
    uint64_t ticket = queue->tail.fetch_add(1);
    if (claim != nullptr) claim->store(claim_of(ticket, 1));
    return ticket;
  }
};

TEST_CASE_METHOD(SharedQueue, "an empty shared queue gives nothing") {
  CHECK_FALSE(consumer.claimed());
  CHECK_FALSE(pop());
}

TEST_CASE_METHOD(SharedQueue, "messages of two producers arrive in the order of their claims") {
  REQUIRE(producers[0].try_push(numbered(1)));
  REQUIRE(producers[1].try_push(numbered(2)));
  REQUIRE(producers[0].try_push(numbered(3)));
  CHECK(consumer.claimed());
  for (uint64_t n = 1; n <= 3; ++n) {
    REQUIRE(pop());
    CHECK(popped.words[6] == n);
    CHECK(sender == (n == 2 ? 11 : 10));
  }
  CHECK_FALSE(consumer.claimed());
}

TEST_CASE_METHOD(SharedQueue, "a producer that is not pushing claims nothing") {
  REQUIRE(producers[0].try_push(numbered(1)));
  CHECK(claims[0] == 0);
  CHECK_FALSE(consumer.covers(claims[0]));
}

TEST_CASE_METHOD(SharedQueue, "a full shared queue refuses without claiming") {
  for (uint64_t n = 0; n < kSharedMessages; ++n) REQUIRE(producers[n % 2].try_push(numbered(n)));
  CHECK_FALSE(producers[0].try_push(numbered(99), 3));
  CHECK(queue->tail == kSharedMessages);
  REQUIRE(pop());
  CHECK(producers[0].try_push(numbered(kSharedMessages), 3));
  for (uint64_t n = 1; n <= kSharedMessages; ++n) {
    REQUIRE(pop());
    REQUIRE(popped.words[6] == n);
  }
}

TEST_CASE_METHOD(SharedQueue, "a claim without room is given up after the spins") {
  for (uint64_t n = 0; n < kSharedMessages; ++n) REQUIRE(producers[0].try_push(numbered(n)));
  queue->head = kSharedMessages;  // somebody lies about room, then the truth comes back
  queue->tail = 2 * kSharedMessages - 1;
  queue->head = kSharedMessages + 5;
  CHECK(producers[0].try_push(numbered(7), 3));
  queue->head = 0;
  CHECK_FALSE(producers[0].try_push(numbered(8), 3));
  CHECK(claims[0] == 0);
}

TEST_CASE_METHOD(SharedQueue, "the entry of a dead producer is skipped and the rest arrive") {
  REQUIRE(producers[0].try_push(numbered(1)));
  die_after_claiming(nullptr);
  REQUIRE(producers[1].try_push(numbered(2)));
  REQUIRE(pop());
  CHECK_FALSE(pop());
  REQUIRE(consumer.claimed());
  REQUIRE_FALSE((consumer.covers(claims[0]) || consumer.covers(claims[1])));
  CHECK(consumer.skip());
  REQUIRE(pop());
  CHECK(popped.words[6] == 2);
}

TEST_CASE_METHOD(SharedQueue, "a living producer's claim covers its ticket from before it is known") {
  claims[0] = 1;
  CHECK(consumer.covers(claims[0]));
  uint64_t ticket = die_after_claiming(&claims[0]);
  CHECK(ticket == 0);
  CHECK(consumer.covers(claims[0]));
  claims[0] = claim_of(ticket + 1, 1);
  CHECK_FALSE(consumer.covers(claims[0]));
}

TEST_CASE_METHOD(SharedQueue, "several messages with one claim arrive in their order") {
  Message some[SharedProducer::kMostAtOnce];
  for (uint64_t n = 0; n < SharedProducer::kMostAtOnce; ++n) some[n] = numbered(n);
  REQUIRE(producers[0].push_some(some, SharedProducer::kMostAtOnce) == SharedProducer::kMostAtOnce);
  CHECK(queue->tail == SharedProducer::kMostAtOnce);
  CHECK(claims[0] == 0);
  for (uint64_t n = 0; n < SharedProducer::kMostAtOnce; ++n) {
    CHECK_FALSE(producers[0].is_drained());
    REQUIRE(pop());
    CHECK(popped.words[6] == n);
  }
  CHECK(producers[0].is_drained());
  CHECK_FALSE(consumer.claimed());
}

TEST_CASE_METHOD(SharedQueue, "a claim covers all of its tickets and no other") {
  for (uint64_t first : {uint64_t{0}, uint64_t{1} << 48}) {
    for (uint64_t n : {uint64_t{1}, uint64_t{3}, uint64_t{16}}) {
      uint64_t claim = claim_of(first + 2, uint32_t(n));
      queue->tail = 100;
      SharedConsumer c(queue.get());
      for (uint64_t at = 0; at < 24; ++at) {
        CHECK(c.covers(claim) == (at >= 2 && at < 2 + n));
        REQUIRE(c.skip());
      }
    }
  }
  CHECK_FALSE(consumer.covers(0));
}

TEST_CASE_METHOD(SharedQueue, "several messages that do not fit are not claimed") {
  for (uint64_t n = 0; n < kSharedMessages - 2; ++n) REQUIRE(producers[0].try_push(numbered(n)));
  Message some[3] = {numbered(1), numbered(2), numbered(3)};
  CHECK(producers[0].push_some(some, 3, 3) == 0);
  CHECK(queue->tail == kSharedMessages - 2);
  CHECK(producers[0].push_some(some, 2, 3) == 2);
}

TEST_CASE_METHOD(SharedQueue, "an entry that was published in time is not skipped") {
  REQUIRE(producers[0].try_push(numbered(1)));
  REQUIRE(consumer.claimed());
  CHECK_FALSE(consumer.skip());
  REQUIRE(pop());
  CHECK(popped.words[6] == 1);
}

TEST_CASE_METHOD(SharedQueue, "entries of an earlier lap are not taken for a skipped one") {
  for (int lap = 0; lap < 3; ++lap) {
    for (uint64_t n = 0; n < kSharedMessages; ++n) {
      if (n % 7 == 3) {
        die_after_claiming(nullptr);
        REQUIRE_FALSE(pop());
        REQUIRE(consumer.skip());
      } else {
        REQUIRE(producers[0].try_push(numbered(n)));
        REQUIRE(pop());
        REQUIRE(popped.words[6] == n);
      }
    }
  }
  CHECK_FALSE(consumer.claimed());
}

TEST_CASE_METHOD(SharedQueue, "whatever producers write to tail, head and entries, the consumer stays inside") {
  for (uint64_t lie : {uint64_t{0}, uint64_t{1} << 20, UINT64_MAX}) {
    queue->tail = lie;
    queue->head = UINT64_MAX - lie;
    for (SharedEntry& e : queue->entries) e.sequence = lie;
    for (int i = 0; i < 100; ++i)
      if (!pop() && consumer.claimed()) consumer.skip();
  }
  SUCCEED();
}

}  // namespace
}  // namespace sluice::shm
