#include "shm/noc_queues.h"

#include <catch2/catch.hpp>

#include "shm/request_queues.h"
#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

constexpr DomainId kSelf = 4711;

Message numbered(uint64_t n) {
  Message m{};
  m.type = 7;
  m.id = uint32_t(n);
  m.words[6] = n + 1;  // the longest there is
  return m;
}

// A client and the coordinator, each with its own view of both regions.
struct Noc {
  test::MappedRegion mine{kClientBytes};
  test::MappedRegion theirs{kReplyBytes};
  NocServer server{mine.as_read<ClientRegion>(), theirs.as_written<ReplyRegion>(), kSelf};
  NocClient client{mine.as_written<ClientRegion>(), theirs.as_read<ReplyRegion>(), kSelf};
  Message m{};

  bool ask(uint64_t n) { return client.try_stage(numbered(n)) && (client.publish(), true); }
  Taken serve() { return server.try_take(m); }
  void answer() {
    server.count_reply();
    REQUIRE(server.try_stage(m));
    server.publish();
  }
  DemuxWords& requests() { return mine.as_written<ClientRegion>().demux_requests; }
  const DemuxWords& doorbells() { return theirs.as_read<ReplyRegion>().demux_doorbells; }
};

TEST_CASE_METHOD(Noc, "a client has no credits before it has looked, and then those that it was given") {
  CHECK(client.credits() == 0);
  REQUIRE(ask(0));
  CHECK(client.credits() == kNocCredits - 1);
}

TEST_CASE_METHOD(Noc, "without credits a client asks nothing, though there is room") {
  for (uint64_t n = 0; n < kNocCredits; ++n) REQUIRE(ask(n));
  CHECK_FALSE(ask(99));
  for (uint64_t n = 0; n < kNocCredits; ++n) REQUIRE(serve() == Taken::kPacket);
  CHECK(serve() == Taken::kNothing);
  CHECK_FALSE(ask(99));  // the queue is empty, but the replies have still to come
}

TEST_CASE_METHOD(Noc, "a credit comes back with the reply, once it is taken") {
  for (uint64_t n = 0; n < kNocCredits; ++n) REQUIRE(ask(n));
  REQUIRE(serve() == Taken::kPacket);
  answer();
  CHECK_FALSE(ask(99));
  Message reply;
  REQUIRE(client.try_receive(reply));
  CHECK(reply.id == 0);
  CHECK(ask(14));
  CHECK_FALSE(ask(99));
}

TEST_CASE_METHOD(Noc, "the credit of a request without a reply comes back by itself") {
  for (uint64_t n = 0; n < kNocCredits; ++n) REQUIRE(ask(n));
  for (uint64_t n = 0; n < 3; ++n) REQUIRE(serve() == Taken::kPacket);
  answer();
  server.give_credits();
  CHECK(ask(14));
  CHECK(ask(15));
  CHECK_FALSE(ask(99));
  Message reply;
  REQUIRE(client.try_receive(reply));
  CHECK(ask(16));
  CHECK_FALSE(ask(99));
}

TEST_CASE_METHOD(Noc, "as many requests of the greatest length as there are credits fit, and as many replies") {
  for (uint64_t round = 0; round < 50; ++round) {
    for (uint64_t n = 0; n < kNocCredits; ++n) REQUIRE(ask(n));
    for (uint64_t n = 0; n < kNocCredits; ++n) {
      REQUIRE(serve() == Taken::kPacket);
      answer();
    }
    server.give_credits();
    Message reply;
    for (uint64_t n = 0; n < kNocCredits; ++n) {
      REQUIRE(client.try_receive(reply));
      REQUIRE(reply.id == n);
      REQUIRE(reply.words[6] == n + 1);
    }
    REQUIRE_FALSE(client.try_receive(reply));
    REQUIRE(client.credits() == kNocCredits);
  }
}

TEST_CASE_METHOD(Noc, "credits are never more than were given, whoever answers what") {
  uint64_t x = 88172645463325252, asked = 0, taken = 0, replies = 0, received = 0;
  for (int n = 0; n < 100'000; ++n) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    Message reply;
    switch (x % 4) {
      case 0: asked += ask(asked); break;
      case 1:
        if (serve() != Taken::kPacket) break;
        ++taken;
        if (x & 16) answer(), ++replies;
        break;
      case 2: server.give_credits(); break;
      default: received += client.try_receive(reply);
    }
    // Under way, answered and not received, or in the client's hand.
    REQUIRE(client.credits() + (asked - taken) + (replies - received) <= kNocCredits);
  }
  CHECK(asked > 10'000);
  CHECK(received > 1'000);
}

TEST_CASE_METHOD(Noc, "the number of credits given goes on past what a frame can say") {
  for (uint64_t n = 0; n < kFrameIds + 100; ++n) {
    if (!ask(n)) FAIL("no credit for request " << n);
    if (serve() != Taken::kPacket) FAIL("no request " << n);
    server.give_credits();
  }
  CHECK(ask(0));
}

TEST_CASE_METHOD(Noc, "a request in another one's name breaks the queue") {
  NocClient liar(mine.as_written<ClientRegion>(), theirs.as_read<ReplyRegion>(), kSelf + 1);
  REQUIRE(liar.try_stage(numbered(0)));
  liar.publish();
  CHECK(serve() == Taken::kBroken);
}

TEST_CASE_METHOD(Noc, "a client that sends without credits finds no more room than there is") {
  DemuxProducer raw(&requests(), &theirs.as_read<ReplyRegion>().demux_requests_head);
  uint32_t sent = 0;
  while (raw.try_send({7, 0, 0, kSelf, 1}, {})) ++sent;
  CHECK(sent == kDemuxWords);
  uint32_t replies = 0;
  for (uint32_t n = 0; n < sent; ++n) {
    REQUIRE(serve() == Taken::kPacket);
    m.words[6] = 1;
    server.count_reply();
    replies += server.try_stage(m);
  }
  CHECK(replies == kDemuxWords / kFramedWords);
  server.give_credits();
}

TEST_CASE_METHOD(Noc, "a doorbell is rung for each packet; those that do not fit are owed") {
  for (uint32_t n = 0; n < kDemuxWords + 50; ++n) {
    server.owe_doorbell();
    CHECK(server.ring_doorbells() == (n < kDemuxWords));
  }
  CHECK(doorbells().tail.load() == kDemuxWords);
  CHECK(server.owes_doorbells());
  client.take_doorbells();
  CHECK(server.ring_doorbells());
  CHECK_FALSE(server.owes_doorbells());
  CHECK(doorbells().tail.load() == kDemuxWords + 50);
  CHECK_FALSE(server.ring_doorbells());
}

TEST_CASE_METHOD(Noc, "a client survives whatever is in its queues") {
  ReplyRegion& r = theirs.as_written<ReplyRegion>();
  uint64_t x = 88172645463325252;
  for (int n = 0; n < 10'000; ++n) {
    for (DemuxWords* q : {&r.demux_replies, &r.demux_doorbells, &r.demux_control}) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      q->words[x % kDemuxPlaces].store(x, std::memory_order_relaxed);
      q->tail.store(x >> 56 == 0 ? x : q->tail.load() + x % 5, std::memory_order_relaxed);
    }
    Message reply;
    (void)client.try_receive(reply);
    client.take_doorbells();
    (void)ask(uint64_t(n));
    REQUIRE(requests().tail.load() <= kDemuxWords);  // nobody takes any
  }
}

TEST_CASE_METHOD(Noc, "a client of a coordinator with a network-on-chip uses nothing else") {
  RequestQueues queues{kNocQueue, mine.as_written<ClientRegion>(), theirs.as_read<ReplyRegion>(), nullptr, kSelf};
  REQUIRE(queues.try_push(numbered(3)));
  CHECK(mine.as_read<ClientRegion>().requests.entries[0].first.load() == 0);
  REQUIRE(serve() == Taken::kPacket);
  CHECK(m.id == 3);
  Message reply;
  CHECK_FALSE(queues.try_receive(reply));
  answer();
  REQUIRE(queues.try_receive(reply));
  CHECK(reply.id == 3);
  const Shared<uint64_t>& packets = RequestQueues::packets(kNocQueue, theirs.as_read<ReplyRegion>());
  CHECK(packets.load() == 0);
  server.owe_doorbell();
  REQUIRE(server.ring_doorbells());
  CHECK(packets.load() == 1);
  queues.note_packets();
  CHECK(mine.as_read<ClientRegion>().demux_doorbells_head.load() == 1);
}

TEST_CASE_METHOD(Noc, "staged requests are there once they are published") {
  RequestQueues queues{kNocQueue, mine.as_written<ClientRegion>(), theirs.as_read<ReplyRegion>(), nullptr, kSelf};
  for (uint64_t n = 0; n < 5; ++n) REQUIRE(queues.try_stage(numbered(n)));
  CHECK(serve() == Taken::kNothing);
  REQUIRE(queues.publish());
  for (uint64_t n = 0; n < 5; ++n) REQUIRE(serve() == Taken::kPacket);
}

}  // namespace
}  // namespace sluice::shm
