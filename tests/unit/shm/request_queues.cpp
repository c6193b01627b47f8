#include "shm/request_queues.h"

#include <catch2/catch.hpp>
#include <memory>

namespace sluice::shm {
namespace {

Message numbered(uint64_t n) {
  Message m{};
  m.id = uint32_t(n);
  return m;
}

// A client of a coordinator that offers it both queues.
struct EitherQueue {
  std::unique_ptr<ClientRegion> client = std::make_unique<ClientRegion>();
  std::unique_ptr<ReplyRegion> replies = std::make_unique<ReplyRegion>();
  std::unique_ptr<SharedQueueRegion> queue = std::make_unique<SharedQueueRegion>();
  MessageConsumer divided{&client->requests, &replies->requests_head};
  SharedConsumer shared{queue.get()};
  Message popped{};
  DomainId sender = kNobody;

  RequestQueues join(RequestQueue told) {
    replies->queue = told;
    return {kEitherQueue, *client, *replies, queue.get(), 10};
  }
  bool pop_divided() { return divided.try_pop(popped); }
  bool pop_shared() { return shared.try_pop(popped, sender); }
};

TEST_CASE_METHOD(EitherQueue, "a client begins with the queue that it is told") {
  CHECK(join(kDividedQueue).current() == kDividedQueue);
  CHECK(join(kSharedQueue).current() == kSharedQueue);
}

TEST_CASE_METHOD(EitherQueue, "without a choice the coordinator's word does not count") {
  replies->queue = kSharedQueue;
  RequestQueues own{kDividedQueue, *client, *replies, nullptr, 10};
  REQUIRE(own.try_push(numbered(1)));
  CHECK(pop_divided());
}

TEST_CASE_METHOD(EitherQueue, "a client goes over to the shared queue once its ring is empty") {
  RequestQueues requests = join(kDividedQueue);
  REQUIRE(requests.try_push(numbered(1)));
  replies->queue = kSharedQueue;
  REQUIRE(requests.try_push(numbered(2)));  // the first is still to be taken
  CHECK(requests.current() == kDividedQueue);
  CHECK_FALSE(pop_shared());
  REQUIRE(pop_divided());
  REQUIRE(pop_divided());
  CHECK(popped.id == 2);
  REQUIRE(requests.try_push(numbered(3)));
  CHECK_FALSE(pop_divided());
  REQUIRE(pop_shared());
  CHECK(popped.id == 3);
  CHECK(sender == 10);
}

TEST_CASE_METHOD(EitherQueue, "a client goes back to its ring once all of its entries are taken") {
  RequestQueues requests = join(kSharedQueue);
  Shared<uint64_t> claim{0};
  SharedProducer other(queue.get(), &claim, 11);
  REQUIRE(other.try_push(numbered(1)));
  REQUIRE(requests.try_push(numbered(2)));
  replies->queue = kDividedQueue;
  REQUIRE(pop_shared());
  REQUIRE(requests.try_push(numbered(3)));  // only the other one's was taken
  CHECK_FALSE(pop_divided());
  REQUIRE(pop_shared());
  REQUIRE(pop_shared());
  REQUIRE(requests.try_push(numbered(4)));
  CHECK(requests.current() == kDividedQueue);
  REQUIRE(pop_divided());
  CHECK(popped.id == 4);
}

TEST_CASE_METHOD(EitherQueue, "what is staged and not published keeps a client at its ring") {
  RequestQueues requests = join(kDividedQueue);
  REQUIRE(requests.try_stage(numbered(1)));
  replies->queue = kSharedQueue;
  REQUIRE(requests.try_stage(numbered(2)));
  REQUIRE(requests.publish());
  REQUIRE(pop_divided());
  REQUIRE(pop_divided());
  CHECK_FALSE(pop_shared());
}

TEST_CASE_METHOD(EitherQueue, "a word that is no queue counts as the ring") {
  RequestQueues requests = join(kDividedQueue);
  replies->queue = 7;
  REQUIRE(requests.try_push(numbered(1)));
  CHECK(pop_divided());
}

}  // namespace
}  // namespace sluice::shm
