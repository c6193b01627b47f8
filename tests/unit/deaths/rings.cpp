// A process may die at any instruction. What the others then find is a message or none, never a part of one,
// and they go on.
#include <cstring>
#include <string>

#include "shm/byte_ring.h"
#include "shm/channel.h"
#include "shm/demux_queue.h"
#include "shm/handoff.h"
#include "shm/message_ring.h"
#include "shm/ready_queue.h"
#include "shm/shared_queue.h"
#include "tests/unit/deaths/every_instruction.h"

namespace sluice::shm {
namespace {

using test::die_at_every_instruction;

Message filled(uint8_t with) {
  Message m;
  std::memset(&m, with, sizeof m);
  return m;
}

bool is_filled(const Message& m, uint8_t with) {
  Message expected = filled(with);
  return std::memcmp(&m, &expected, sizeof m) == 0;
}

struct Queue {
  SharedQueueRegion region;
  Shared<uint64_t> claims[2];
};

TEST_CASE("a producer that dies while it pushes into a shared queue stops nobody") {
  constexpr uint32_t kAtOnce = 3;
  uint32_t arrivals[kAtOnce + 1] = {};
  uint32_t deaths = die_at_every_instruction<Queue>(
      [](Queue& q) {
        Message some[kAtOnce] = {filled(1), filled(1), filled(1)};
        (void)SharedProducer(&q.region, &q.claims[0], 10).push_some(some, kAtOnce);
      },
      [&](Queue& q, bool) {
        SharedProducer living(&q.region, &q.claims[1], 11);
        SharedConsumer consumer(&q.region);
        REQUIRE(living.try_push(filled(2)));
        Message m;
        DomainId sender;
        uint32_t from_the_dead = 0;
        bool from_the_living = false;
        for (uint32_t looks = 0; looks < 2 * kAtOnce + 2 && !from_the_living; ++looks) {
          if (!consumer.try_pop(m, sender)) {
            // The dead one's claim counts no more, and the living one's is over.
            REQUIRE(consumer.claimed());
            REQUIRE_FALSE(consumer.covers(q.claims[1].load()));
            REQUIRE(consumer.skip());
            continue;
          }
          REQUIRE((sender == 10 || sender == 11));
          REQUIRE(is_filled(m, sender == 10 ? 1 : 2));
          if (sender == 10) ++from_the_dead;
          else from_the_living = true;
        }
        REQUIRE(from_the_living);
        REQUIRE_FALSE(consumer.claimed());
        ++arrivals[from_the_dead];
      });
  CHECK(deaths > 20);
  for (uint32_t n : arrivals) CHECK(n > 0);
}

TEST_CASE("while it lives, no entry is skipped that it may still publish") {
  test::SharedMemory<Queue> q;
  pid_t child = test::start_traced([&] { (void)SharedProducer(&q->region, &q->claims[0], 10).try_push(filled(1)); });
  SharedConsumer consumer(&q->region);
  Message m;
  DomainId sender;
  uint32_t held = 0;
  bool popped = false;
  do {
    if (popped || !consumer.claimed()) continue;
    // In the coordinator's order: the entry, the claims, and the entry again.
    if (consumer.try_pop(m, sender)) {
      popped = true;
    } else {
      REQUIRE(consumer.covers(q->claims[0].load()));
      ++held;
    }
  } while (test::step(child));
  test::end(child);
  CHECK(held > 0);
  CHECK(popped);
  CHECK(is_filled(m, 1));
}

struct Messages {
  MessageEntries entries;
  Shared<uint64_t> head;
};

TEST_CASE("a producer that dies while it pushes a message has said all of it or nothing") {
  uint32_t arrived = 0;
  uint32_t deaths = die_at_every_instruction<Messages>(
      [](Messages& r) { (void)MessageProducer(&r.entries, &r.head).try_push(filled(3)); },
      [&](Messages& r, bool) {
        MessageConsumer consumer(&r.entries, &r.head);
        Message m;
        if (!consumer.try_pop(m)) return;
        ++arrived;
        REQUIRE(is_filled(m, 3));
        REQUIRE_FALSE(consumer.try_pop(m));
      });
  CHECK(arrived > 0);
  CHECK(arrived < deaths);
}

TEST_CASE("a consumer that dies while it takes a message has taken it or not") {
  uint32_t left = 0;
  uint32_t deaths = die_at_every_instruction<Messages>(
      [](Messages& r) {
        MessageProducer producer(&r.entries, &r.head);
        (void)producer.try_push(filled(4));
        MessageConsumer consumer(&r.entries, &r.head);
        Message m;
        (void)consumer.try_pop(m);
      },
      [&](Messages& r, bool) {
        uint64_t said = (r.entries.entries[0].first.load() & kLapMark) == lap_mark(0), head = r.head.load();
        REQUIRE(head <= said);
        left += said - head;
      });
  CHECK(left > 0);
  CHECK(left < deaths);
}

struct Packets {
  DemuxWords words;
  Shared<uint64_t> head;
};

TEST_CASE("a producer that dies while it sends a packet has sent all of it or nothing") {
  Message sent{9, 9, 9, {1, 2, 3}};
  uint32_t arrived = 0;
  uint32_t deaths = die_at_every_instruction<Packets>(
      [&](Packets& p) { (void)DemuxProducer(&p.words, &p.head).try_send(frame_of(sent, 3, 9), sent); },
      [&](Packets& p, bool) {
        DemuxConsumer consumer(&p.words, &p.head);
        Frame frame;
        Message m;
        Taken taken = consumer.try_take(frame, m);
        REQUIRE(taken != Taken::kBroken);
        if (taken == Taken::kNothing) return;
        ++arrived;
        REQUIRE(std::memcmp(&m, &sent, sizeof m) == 0);
        REQUIRE(consumer.try_take(frame, m) == Taken::kNothing);
      });
  CHECK(arrived > 0);
  CHECK(arrived < deaths);
}

// Two pair regions, as far as one slot and its first rings need them.
struct Connection {
  alignas(kPageBytes) std::byte a_to_b[kHeapOffset + (256u << 10)];
  alignas(kPageBytes) std::byte b_to_a[kHeapOffset];
  static constexpr uint32_t kSlot = 2;
  static constexpr uint32_t kFirstPage = kHeapOffset / kPageBytes;
  Slot& sender() { return PairView{a_to_b}.slot(kSlot); }
  Slot& receiver() { return PairView{b_to_a}.slot(kSlot); }
  void send(const std::string& bytes) {
    uint64_t head_seen = 0;
    ByteProducer p({a_to_b}, sender(), &receiver(), head_seen);
    Pieces<std::byte> to = p.reserve(bytes.size());
    std::memcpy(to.first, bytes.data(), to.first_bytes);
    if (to.second_bytes > 0) std::memcpy(to.second, bytes.data() + to.first_bytes, to.second_bytes);
    p.publish(to.bytes());
  }
  void switch_to(uint32_t page, uint32_t log2) {
    uint64_t head_seen = 0;
    ByteProducer({a_to_b}, sender(), &receiver(), head_seen).switch_to(page, log2);
  }
  std::string receive() {
    ByteConsumer c({a_to_b}, sender(), receiver());
    std::string all;
    Pieces<const std::byte> p;
    while (c.observe(p) == 0 && p.bytes() > 0) {
      all.append(reinterpret_cast<const char*>(p.first), p.first_bytes);
      all.append(reinterpret_cast<const char*>(p.second), p.second_bytes);
      c.retire(p.bytes());
    }
    return all;
  }
};

TEST_CASE("a sender that dies has sent whole pieces, also across a handover") {
  uint32_t counts[4] = {};
  uint32_t deaths = die_at_every_instruction<Connection>(
      [](Connection& c) {
        c.switch_to(Connection::kFirstPage, 12);
        c.send("first piece ");
        c.switch_to(Connection::kFirstPage + 16, 16);
        c.send("second piece ");
        c.send("third piece");
      },
      [&](Connection& c, bool) {
        std::string all = c.receive();
        const char* wholes[] = {"", "first piece ", "first piece second piece ", "first piece second piece third piece"};
        int which = 0;
        while (which < 4 && all != wholes[which]) ++which;
        CAPTURE(all);
        REQUIRE(which < 4);
        ++counts[which];
      });
  CHECK(deaths > 50);
  for (uint32_t n : counts) CHECK(n > 0);
}

TEST_CASE("a receiver that dies while it takes bytes gives the sender its space or not") {
  uint32_t taken = 0;
  uint32_t deaths = die_at_every_instruction<Connection>(
      [](Connection& c) {
        c.switch_to(Connection::kFirstPage, 12);
        c.send("some bytes");
        (void)ByteConsumer({c.a_to_b}, c.sender(), c.receiver()).retire(10);
      },
      [&](Connection& c, bool) {
        uint64_t head = c.receiver().head.load();
        REQUIRE((head == 0 || head == 10));
        taken += head == 10;
      });
  CHECK(taken > 0);
  CHECK(taken < deaths);
}

struct Ready {
  ReadyEntry entries[kSlots];
  Shared<uint64_t> head;
};

TEST_CASE("a producer that dies while it announces a connection has announced that one or none") {
  uint32_t announced = 0;
  uint32_t deaths = die_at_every_instruction<Ready>(
      [](Ready& r) {
        uint64_t last = 0;
        (void)ReadyProducer(r.entries).push(77, last, &r.head);
      },
      [&](Ready& r, bool) {
        ReadyConsumer consumer(r.entries, &r.head);
        uint32_t slots[2];
        uint32_t n = consumer.take(slots, 2);
        REQUIRE(n <= 1);
        if (n == 1) REQUIRE(slots[0] == 77);
        announced += n;
      });
  CHECK(announced > 0);
  CHECK(announced < deaths);
}

struct Pipe {
  alignas(kPageBytes) std::byte memory[kChannelBytes];
  Channel channel() { return Channel(memory); }
  void write(const std::string& bytes) {
    uint64_t word = channel().word();
    Pieces<std::byte> p = channel().reserve(word, bytes.size());
    std::memcpy(p.first, bytes.data(), p.first_bytes);
    std::memcpy(p.second, bytes.data() + p.first_bytes, p.second_bytes);
    (void)channel().publish(word, bytes.size());
  }
};

TEST_CASE("a writer that dies has written whole pieces into a channel") {
  uint32_t counts[3] = {};
  uint32_t deaths = die_at_every_instruction<Pipe>(
      [](Pipe& p) {
        (void)p.channel().enter(p.channel().word());
        p.write("eins");
        p.write("zwei");
      },
      [&](Pipe& p, bool) {
        std::size_t n = p.channel().readable(p.channel().word());
        REQUIRE(n % 4 == 0);
        REQUIRE(n <= 8);
        Pieces<const std::byte> bytes = p.channel().observe(n);
        REQUIRE(std::string(reinterpret_cast<const char*>(bytes.first), n) == std::string("einszwei").substr(0, n));
        ++counts[n / 4];
      });
  CHECK(deaths > 20);
  for (uint32_t n : counts) CHECK(n > 0);
}

struct SocketPair {
  alignas(kPageBytes) std::byte memory[kHandoffBytes];
  Handoff way() { return Handoff(memory, 0); }
  void read_and_write() {
    uint64_t word = way().word();
    (void)way().want(word);
    word = way().word();
    (void)way().enter(word, 10);
    for (const char* piece : {"eins", "zwei"}) {
      Pieces<std::byte> p = way().reserve(word, 4);
      std::memcpy(p.first, piece, 4);
      (void)way().publish(word, 4);
      word = way().word();
    }
    way().retire(way().readable(word));
    (void)way().rest(word);
  }
};

TEST_CASE("whoever dies in a handoff leaves whole pieces there, and nobody else's way to the kernel closed") {
  uint32_t counts[3] = {};
  uint32_t deaths = die_at_every_instruction<SocketPair>(
      [](SocketPair& p) { p.read_and_write(); },
      [&](SocketPair& p, bool) {
        p.way().leave();
        std::size_t n = p.way().readable(p.way().word());
        REQUIRE(n % 4 == 0);
        REQUIRE(n <= 8);
        Pieces<const std::byte> bytes = p.way().observe(n);
        REQUIRE(std::string(reinterpret_cast<const char*>(bytes.first), n) == std::string("einszwei").substr(0, n));
        ++counts[n / 4];
        REQUIRE(p.way().want(p.way().word()));
      });
  CHECK(deaths > 20);
  for (uint32_t n : counts) CHECK(n > 0);
}

}  // namespace
}  // namespace sluice::shm
