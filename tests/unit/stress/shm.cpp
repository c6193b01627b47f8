// Two threads per ring, as two domains would use it, with data that can be checked. Built
// plainly and under ThreadSanitizer. A lost byte, message or wake-up shows as a hang, which the
// test's time limit ends.
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "shm/byte_ring.h"
#include "shm/demux_queue.h"
#include "shm/futex.h"
#include "shm/message_ring.h"
#include "shm/ready_queue.h"
#include "shm/shared_queue.h"
#include "shm/wake.h"
#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

// A mix of the position, so that a byte or word from another place is noticed.
uint64_t mixed(uint64_t n) {
  n = (n ^ n >> 31) * 0x9e3779b97f4a7c15;
  return n ^ n >> 29;
}

// The threads may share one CPU.
void let_the_other_run() { std::this_thread::yield(); }

// ---- byte ring --------------------------------------------------------------------------

constexpr uint64_t kBytes = 48'000'000;
constexpr uint32_t kPages[2] = {kHeapOffset / kPageBytes,
                                kHeapOffset / kPageBytes + (1 << kLargestRingLog2) / kPageBytes};

void fill(const Pieces<std::byte>& to, uint64_t position) {
  for (std::size_t i = 0; i < to.first_bytes; ++i) to.first[i] = std::byte(mixed(position++));
  for (std::size_t i = 0; i < to.second_bytes; ++i) to.second[i] = std::byte(mixed(position++));
}

// How many bytes are not what belongs to their position.
uint64_t wrong_bytes(const Pieces<const std::byte>& from, uint64_t position) {
  uint64_t wrong = 0;
  for (std::size_t i = 0; i < from.first_bytes; ++i) wrong += from.first[i] != std::byte(mixed(position++));
  for (std::size_t i = 0; i < from.second_bytes; ++i) wrong += from.second[i] != std::byte(mixed(position++));
  return wrong;
}

uint32_t send_with_handovers(ByteProducer producer) {
  std::mt19937 random(1);
  uint32_t switches = 0;
  auto next_ring = [&] {
    producer.switch_to(kPages[switches++ & 1], kSmallestRingLog2 + random() % 5);
  };
  next_ring();
  while (producer.tail() < kBytes) {
    if (random() % 16 == 0 && producer.can_switch()) next_ring();
    uint64_t left = kBytes - producer.tail();
    std::size_t wanted = std::min<uint64_t>(left, 1 + random() % 6000);
    if (producer.space(false) == 0 && producer.space(true) == 0) {
      let_the_other_run();
      continue;
    }
    Pieces<std::byte> to = producer.reserve(wanted);
    fill(to, producer.tail());
    producer.publish(to.bytes());
  }
  return switches;
}

// How many bytes were wrong.
uint64_t receive_all(ByteConsumer consumer) {
  std::mt19937 random(2);
  uint64_t wrong = 0, at = 0;
  while (at < kBytes) {
    Pieces<const std::byte> from;
    if (consumer.observe(from) != 0 || consumer.available() < int64_t(from.bytes())) return kBytes;
    if (from.bytes() == 0) {
      let_the_other_run();
      continue;
    }
    wrong += wrong_bytes(from, at);
    uint64_t taken = random() % 4 ? from.bytes() : 1 + random() % from.bytes();
    at += taken;
    consumer.retire(taken);
  }
  return wrong;
}

TEST_CASE("bytes cross a byte ring unharmed through hundreds of handovers") {
  test::TwoDomains domains;
  uint64_t head_seen = 0, wrong = 1;
  uint32_t switches = 0;
  std::thread receiver([&] {
    wrong = receive_all({domains.a_to_b.readers(), domains.a_to_b.readers().slot(1),
                         domains.b_to_a.writers().slot(1)});
  });
  std::thread sender([&] {
    switches = send_with_handovers({domains.a_to_b.writers(), domains.a_to_b.writers().slot(1),
                                    &domains.b_to_a.readers().slot(1), head_seen});
  });
  sender.join();
  receiver.join();
  CHECK(wrong == 0);
  CHECK(switches > 10);
}

// ---- message ring -----------------------------------------------------------------------

constexpr uint64_t kSent = 2'000'000;

Message numbered(uint64_t n) {
  Message m;
  m.type = uint16_t(n);
  m.status = uint16_t(mixed(n) & 0x7fff);
  m.id = uint32_t(n);
  for (uint64_t& word : m.words) word = mixed(n++);
  return m;
}

bool same(const Message& a, const Message& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

TEST_CASE("messages cross a message ring whole and in order") {
  test::MappedRegion client(kClientBytes), coordinator(kReplyBytes);
  uint64_t wrong = 0;
  std::thread receiver([&] {
    MessageConsumer consumer(&client.as_read<ClientRegion>().requests,
                             &coordinator.as_written<ReplyRegion>().requests_head);
    Message m;
    for (uint64_t n = 0; n < kSent; ++n) {
      while (!consumer.try_pop(m)) let_the_other_run();
      wrong += !same(m, numbered(n));
    }
  });
  std::thread sender([&] {
    MessageProducer producer(&client.as_written<ClientRegion>().requests,
                             &coordinator.as_read<ReplyRegion>().requests_head);
    for (uint64_t n = 0; n < kSent; ++n)
      while (!producer.try_push(numbered(n))) let_the_other_run();
  });
  sender.join();
  receiver.join();
  CHECK(wrong == 0);
}

TEST_CASE("packets cross a demux queue whole and in order") {
  test::MappedRegion client(kClientBytes), coordinator(kReplyBytes);
  auto packet = [](uint64_t n) {
    Message m{uint16_t(n & 0xff), uint16_t(mixed(n) & 0xfff), uint32_t(n % kFrameIds), {}};
    for (uint64_t i = 0; i < mixed(n) % (kMessageWords + 1); ++i) m.words[i] = mixed(n + i) | 1;
    return m;
  };
  uint64_t wrong = 0;
  std::thread receiver([&] {
    DemuxConsumer consumer(&client.as_read<ClientRegion>().demux_requests,
                           &coordinator.as_written<ReplyRegion>().demux_requests_head);
    Frame frame;
    Message m;
    for (uint64_t n = 0; n < kSent; ++n) {
      Taken taken;
      while ((taken = consumer.try_take(frame, m)) == Taken::kNothing) let_the_other_run();
      wrong += taken != Taken::kPacket || !same(m, packet(n));
    }
  });
  std::thread sender([&] {
    DemuxProducer producer(&client.as_written<ClientRegion>().demux_requests,
                           &coordinator.as_read<ReplyRegion>().demux_requests_head);
    for (uint64_t n = 0; n < kSent; ++n) {
      Message m = packet(n);
      while (!producer.try_send(frame_of(m, words_that_travel(m), 1), m)) let_the_other_run();
    }
  });
  sender.join();
  receiver.join();
  CHECK(wrong == 0);
}

// ---- ready queue, and sleeping on it ----------------------------------------------------

constexpr uint32_t kConnections = 37;
constexpr uint64_t kNews = 1'000'000;

// The consumer sleeps on the producer's doorbell whenever it has found nothing, so that lost
// news and lost wake-ups both end in a hang.
struct Announcements {
  test::TwoDomains domains;
  std::unique_ptr<Shared<uint64_t>[]> states = std::make_unique<Shared<uint64_t>[]>(kConnections);

  PairHeader& consumers_header() { return domains.b_to_a.writers().header(); }
  Shared<uint32_t>& doorbell() { return domains.a_to_b.writers().slot(0).doorbell; }

  void produce() {
    ReadyProducer producer(domains.a_to_b.writers().ready());
    const PairHeader& peer = domains.b_to_a.readers().header();
    uint64_t last[kConnections] = {};
    std::mt19937 random(3);
    for (uint64_t n = 1; n <= kNews; ++n) {
      uint32_t slot = n > kNews - kConnections ? uint32_t(kNews - n) : random() % kConnections;
      states[slot].store(n, std::memory_order_release);
      sleep_wake_fence();
      if (!producer.push(slot, last[slot], &peer.ready_head)) continue;
      sleep_wake_fence();
      if (peer.sleeping.load(std::memory_order_relaxed) & 1) {
        doorbell().fetch_add(1, std::memory_order_release);
        futex_wake(doorbell());
      }
    }
  }

  void consume() {
    ReadyConsumer consumer(domains.a_to_b.readers().ready(), &consumers_header().ready_head);
    uint64_t seen[kConnections] = {};
    uint32_t slots[8], final = 0;
    while (final < kConnections) {
      uint32_t n = consumer.take(slots, 8);
      for (uint32_t i = 0; i < n; ++i) {
        uint64_t state = states[slots[i]].load(std::memory_order_acquire);
        if (state != seen[slots[i]] && state > kNews - kConnections) ++final;
        seen[slots[i]] = state;
      }
      if (n == 0) sleep(consumer);
    }
  }

  void sleep(ReadyConsumer& consumer) {
    const Slot& theirs = domains.a_to_b.readers().slot(0);
    uint32_t rung = theirs.doorbell.load(std::memory_order_acquire);
    Shared<uint32_t>& sleeping = consumers_header().sleeping;
    sleeping.store(1, std::memory_order_relaxed);  // W0, ordered by the fence
    sleep_wake_fence();
    if (!consumer.has_fresh()) (void)futex_wait(theirs.doorbell, rung, nullptr);
    sleeping.store(0, std::memory_order_relaxed);  // a late bell does no harm
  }
};

TEST_CASE("no news is lost on a ready queue whose consumer sleeps") {
  Announcements all;
  std::thread consumer([&] { all.consume(); });
  std::thread producer([&] { all.produce(); });
  producer.join();
  consumer.join();
  SUCCEED();
}

TEST_CASE("two threads that sleep in turn never miss each other") {
  constexpr uint32_t kRounds = 20'000;
  struct alignas(kCacheLine) Side {
    Shared<uint32_t> published{0};
    Shared<uint32_t> wants{0};
    Shared<uint32_t> doorbell{0};
  };
  auto sides = std::make_unique<Side[]>(2);
  auto publish = [](Side& mine, Side& theirs, uint32_t n) {
    mine.published.store(n, std::memory_order_release);  // P0
    sleep_wake_fence();
    if (theirs.wants.load(std::memory_order_relaxed)) {  // P1
      mine.doorbell.fetch_add(1, std::memory_order_release);
      futex_wake(mine.doorbell);  // P2
    }
  };
  auto wait_for = [](Side& mine, Side& theirs, uint32_t n) {
    while (theirs.published.load(std::memory_order_acquire) < n) {
      uint32_t rung = theirs.doorbell.load(std::memory_order_acquire);
      mine.wants.store(1, std::memory_order_relaxed);  // W0
      sleep_wake_fence();
      if (theirs.published.load(std::memory_order_acquire) < n)  // W1
        (void)futex_wait(theirs.doorbell, rung, nullptr);       // W2
      mine.wants.store(0, std::memory_order_relaxed);  // a late bell does no harm
    }
  };
  std::thread pong([&] {
    for (uint32_t n = 1; n <= kRounds; ++n) {
      wait_for(sides[1], sides[0], n);
      publish(sides[1], sides[0], n);
    }
  });
  for (uint32_t n = 1; n <= kRounds; ++n) {
    publish(sides[0], sides[1], n);
    wait_for(sides[0], sides[1], n);
  }
  pong.join();
  SUCCEED();
}

// ---- shared queue -----------------------------------------------------------------------

constexpr uint32_t kProducers = 3;
constexpr uint64_t kEach = 400'000;

struct Crowd {
  std::unique_ptr<SharedQueueRegion> queue = std::make_unique<SharedQueueRegion>();
  std::unique_ptr<Shared<uint64_t>[]> claims = std::make_unique<Shared<uint64_t>[]>(kProducers);
  Shared<uint32_t> finished{0};
  uint64_t wrong = 0, received = 0, skipped = 0, abandoned = 0;

  void produce(uint32_t self) {
    SharedProducer producer(queue.get(), &claims[self], self);
    Message some[SharedProducer::kMostAtOnce];
    for (uint64_t n = 0; n < kEach;) {
      uint32_t at_once = 1 + uint32_t(n * self) % SharedProducer::kMostAtOnce;  // producer 0: one by one
      if (at_once > kEach - n) at_once = uint32_t(kEach - n);
      for (uint32_t i = 0; i < at_once; ++i) some[i] = numbered(n + i);
      uint32_t pushed = producer.push_some(some, at_once);
      if (pushed == 0) let_the_other_run();
      n += pushed;
    }
    finished.fetch_add(1, std::memory_order_release);
  }

  void die_repeatedly() {
    for (; abandoned < 2000; ++abandoned) {
      queue->tail.fetch_add(1, std::memory_order_acq_rel);
      let_the_other_run();
    }
    finished.fetch_add(1, std::memory_order_release);
  }

  bool is_covered(const SharedConsumer& consumer) const {
    for (uint32_t i = 0; i < kProducers; ++i)
      if (consumer.covers(claims[i].load(std::memory_order_acquire))) return true;
    return false;
  }

  void consume() {
    SharedConsumer consumer(queue.get());
    uint64_t next[kProducers] = {};
    Message m;
    DomainId sender;
    for (;;) {
      bool last_look = finished.load(std::memory_order_acquire) == kProducers + 1;
      if (consumer.try_pop(m, sender)) {
        ++received;
        wrong += sender >= kProducers || !same(m, numbered(next[sender]++));
      } else if (consumer.claimed()) {
        if (!is_covered(consumer) && consumer.skip()) ++skipped;
        let_the_other_run();
      } else if (last_look) {
        return;
      } else {
        let_the_other_run();
      }
    }
  }
};

TEST_CASE("requests of several producers cross a shared queue although others die in it") {
  Crowd crowd;
  std::vector<std::thread> threads;
  threads.emplace_back([&] { crowd.consume(); });
  for (uint32_t i = 0; i < kProducers; ++i) threads.emplace_back([&, i] { crowd.produce(i); });
  threads.emplace_back([&] { crowd.die_repeatedly(); });
  for (std::thread& t : threads) t.join();
  CHECK(crowd.wrong == 0);
  CHECK(crowd.received == kProducers * kEach);
  CHECK(crowd.skipped == crowd.abandoned);
}

}  // namespace
}  // namespace sluice::shm
