#include "shm/ready_queue.h"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

// A tells B: the entries are in A->B, ready_head in B->A.
struct Ready {
  test::TwoDomains domains;
  ReadyProducer producer{domains.a_to_b.writers().ready()};
  ReadyConsumer consumer{domains.a_to_b.readers().ready(), &domains.b_to_a.writers().header().ready_head};
  const Shared<uint64_t>* head = &domains.b_to_a.readers().header().ready_head;
  std::vector<uint64_t> last = std::vector<uint64_t>(kSlots);

  Shared<uint64_t>& entry(uint32_t i) { return domains.a_to_b.writers().ready()[i]; }
  Shared<uint64_t>& ready_head() { return domains.b_to_a.writers().header().ready_head; }
  bool push(uint32_t slot) { return producer.push(slot, last[slot], head); }
  std::vector<uint32_t> take(uint32_t capacity = 16) {
    std::vector<uint32_t> slots(capacity);
    slots.resize(consumer.take(slots.data(), capacity));
    return slots;
  }
};

using Slots = std::vector<uint32_t>;

TEST_CASE_METHOD(Ready, "an empty ready queue gives nothing") {
  CHECK_FALSE(consumer.has_fresh());
  CHECK(take().empty());
  CHECK(ready_head() == 0);
}

TEST_CASE_METHOD(Ready, "connections with news come out in the order of the news") {
  CHECK(push(5));
  CHECK(push(0));
  CHECK(push(kSlots - 1));
  CHECK(consumer.has_fresh());
  CHECK(take() == Slots{5, 0, kSlots - 1});
  CHECK_FALSE(consumer.has_fresh());
  CHECK(ready_head() == 3);
}

TEST_CASE_METHOD(Ready, "a connection is not announced twice before it is taken") {
  CHECK(push(5));
  CHECK_FALSE(push(5));
  CHECK(push(6));
  CHECK_FALSE(push(5));
  CHECK(take() == Slots{5, 6});
  CHECK(push(5));
  CHECK(take() == Slots{5});
}

TEST_CASE_METHOD(Ready, "a batch takes no more than its capacity") {
  for (uint32_t slot = 0; slot < 10; ++slot) push(slot);
  CHECK(take(4) == Slots{0, 1, 2, 3});
  CHECK(ready_head() == 4);
  CHECK(push(3));
  CHECK_FALSE(push(4));
  CHECK(take(4) == Slots{4, 5, 6, 7});
  CHECK(take(4) == Slots{8, 9, 3});
}

TEST_CASE_METHOD(Ready, "every connection at once fits, and the queue goes round many times") {
  for (int lap = 0; lap < 5; ++lap) {
    for (uint32_t slot = 0; slot < kSlots; ++slot) REQUIRE(push(slot));
    for (uint32_t slot = 0; slot < kSlots; ++slot) REQUIRE_FALSE(push(slot));
    REQUIRE(take(kSlots).size() == kSlots);
    REQUIRE_FALSE(consumer.has_fresh());
    push(1);
    REQUIRE(take() == Slots{1});
  }
}

TEST_CASE_METHOD(Ready, "entries of an earlier lap are not news") {
  for (uint32_t slot = 0; slot < kSlots; ++slot) push(slot);
  take(kSlots);
  push(7);
  CHECK(take() == Slots{7});
  CHECK_FALSE(consumer.has_fresh());
  CHECK(take().empty());
}

TEST_CASE_METHOD(Ready, "a producer that cannot see the consumer's head adds an entry each time") {
  // The consumer may have taken the last one: not to add would lose the news.
  CHECK(producer.push(5, last[5], nullptr));
  CHECK(producer.push(5, last[5], nullptr));
  CHECK(take() == Slots{5, 5});
  CHECK(producer.push(5, last[5], nullptr));
  CHECK_FALSE(push(5));
  CHECK(take() == Slots{5});
  CHECK(push(5));
}

TEST_CASE_METHOD(Ready, "a ready consumer made anew goes on where the last one stopped") {
  push(1);
  push(2);
  CHECK(take(1) == Slots{1});
  consumer = ReadyConsumer(domains.a_to_b.readers().ready(), &ready_head());
  CHECK(take() == Slots{2});
}

TEST_CASE_METHOD(Ready, "the lap counter may overflow") {
  constexpr uint64_t kPosition = (uint64_t{1} << 32) * kSlots + 5;  // lap 2^32 + 1
  ready_head() = kPosition;
  consumer = ReadyConsumer(domains.a_to_b.readers().ready(), &ready_head());
  entry(5) = uint64_t{1} << 32 | 42;
  CHECK(take() == Slots{42});
  CHECK_FALSE(consumer.has_fresh());
}

TEST_CASE_METHOD(Ready, "any entry that a producer writes yields an index of a slot") {
  std::mt19937_64 random(3);
  for (uint32_t i = 0; i < 1000; ++i) entry(i) = uint64_t{1} << 32 | uint32_t(random());
  for (uint32_t slot : take(2000)) REQUIRE(slot < kSlots);
  CHECK(ready_head() == 1000);
}

TEST_CASE_METHOD(Ready, "a head beyond what was pushed is ignored") {
  CHECK(push(5));
  ready_head() = 2;
  CHECK_FALSE(push(5));
  ready_head() = UINT64_MAX;
  CHECK_FALSE(push(5));
  ready_head() = 1;
  CHECK(push(5));
}

TEST_CASE_METHOD(Ready, "a head that goes back makes the producer stop at a full queue") {
  for (uint32_t slot = 0; slot < kSlots; ++slot) REQUIRE(push(slot));
  ready_head() = 1;
  CHECK(push(0));
  ready_head() = 0;
  for (uint32_t slot = 1; slot < 100; ++slot) CHECK_FALSE(push(slot));
}

}  // namespace
}  // namespace sluice::shm
