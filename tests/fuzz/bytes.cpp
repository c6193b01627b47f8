// Byte rings, records in them and their handover: both sides of a connection, against a slot, ring descriptors, ring
// contents and a head that change at any time.
#include "shm/byte_ring.h"
#include "shm/records.h"
#include "tests/fuzz/readers.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

class Bytes {
 public:
  void begin(Input& in) {
    theirs_.clear();
    mine_.clear();
    head_seen_ = 0;
    Slot& t = their_slot();
    t.rings[1] = {0, uint32_t(kHeapOffset / kPageBytes), kSmallestRingLog2};
    t.switches = 1;
    t.tail = in.byte();
    in_mine().switch_to(uint32_t(kHeapOffset / kPageBytes), kSmallestRingLog2);
  }

  void disturb(Input& in) {
    Slot& s = their_slot();
    uint64_t near = mine().slot(kSlot).head.load(std::memory_order_relaxed);
    switch (in.byte() % 9) {
      case 0: return s.tail.store(in.lie(near + kSmallest), std::memory_order_release);
      case 1: return s.switches.store(uint32_t(in.lie(2)), std::memory_order_release);
      case 2: return __atomic_store_n(&s.rings[in.flip()].from, in.lie(near), __ATOMIC_RELAXED);
      case 3: return __atomic_store_n(&s.rings[in.flip()].page, uint32_t(in.lie(in.flip() ? kHeapOffset / kPageBytes : kPairBytes / kPageBytes)),
                                      __ATOMIC_RELAXED);
      case 4: return __atomic_store_n(&s.rings[in.flip()].size_log2, uint32_t(in.lie(kSmallestRingLog2 + in.byte() % 9)), __ATOMIC_RELAXED);
      case 5: return s.head.store(in.lie(in_mine().tail()), std::memory_order_release);
      case 6: {  // what is read as lengths
        std::size_t at = kHeapOffset + in.below(kSmallest - 8);
        return __atomic_store_n(reinterpret_cast<uint64_t*>(theirs_.base() + (at & ~std::size_t{7})), in.lie(16), __ATOMIC_RELAXED);
      }
      case 7: {  // an honest handover
        uint32_t n = s.switches.load(std::memory_order_relaxed) + 1;
        uint32_t log2 = kSmallestRingLog2 + in.byte() % 9;
        s.rings[n & 1] = {s.tail.load(std::memory_order_relaxed), uint32_t(kHeapOffset / kPageBytes) + in.byte() * 256u, log2};
        return s.switches.store(n, std::memory_order_release);
      }
      default: {  // honest bytes
        s.tail.fetch_add(in.byte(), std::memory_order_release);
        return;
      }
    }
  }

  void step(Input& in) {
    switch (in.byte() % 5) {
      case 0: return read(in, in.flip() ? in.byte() : 0);
      case 1: return read_record(in);
      case 2: return write(in);
      case 3: {
        int64_t n = consumer().available();
        return FUZZ_CHECK(n == -EPROTO || (n >= 0 && n <= int64_t{2} << kLargestRingLog2));
      }
      default: {  // a handover of ours
        ByteProducer p = in_mine();
        if (p.can_switch()) p.switch_to(uint32_t(kHeapOffset / kPageBytes) + in.byte() % 250 * 256u, kSmallestRingLog2 + in.byte() % 9);
      }
    }
  }

 private:
  static constexpr uint32_t kSlot = 2;
  static constexpr std::size_t kSmallest = std::size_t{1} << kSmallestRingLog2;

  PairView theirs() const { return {theirs_.base()}; }
  PairView mine() const { return {mine_.base()}; }
  Slot& their_slot() const { return theirs().slot(kSlot); }
  ByteConsumer consumer() const { return {theirs(), their_slot(), mine().slot(kSlot)}; }
  ByteProducer in_mine() { return {mine(), mine().slot(kSlot), &their_slot(), head_seen_}; }

  static uint64_t touch(const Pieces<const std::byte>& p) {
    uint64_t sum = 0;
    for (auto [from, n] : {std::pair{p.first, p.first_bytes}, {p.second, p.second_bytes}}) {
      for (std::size_t i = 0; i < n; i += kPageBytes / 2) sum += uint64_t(from[i]);
      if (n != 0) sum += uint64_t(from[n - 1]);
    }
    return sum;
  }
  void check(const Pieces<const std::byte>& p) const {
    FUZZ_CHECK(p.bytes() <= std::size_t{1} << kLargestRingLog2);
    FUZZ_CHECK(theirs_.holds(p.first, p.first_bytes, kHeapOffset) && theirs_.holds(p.second, p.second_bytes, kHeapOffset));
    sum_ += touch(p);
  }

  void read(Input& in, uint64_t skip) {
    Pieces<const std::byte> p;
    int error = consumer().observe(p, skip);
    FUZZ_CHECK(error == 0 || error == -EPROTO);
    FUZZ_CHECK(error == 0 || p.bytes() == 0);
    check(p);
    if (error == 0 && skip == 0) consumer().retire(p.bytes() < 64 ? p.bytes() : in.byte());
  }
  void read_record(Input&) {
    Pieces<const std::byte> queued, payload;
    if (consumer().observe(queued) != 0 || queued.bytes() == 0) return;
    int error = first_record(queued, payload);
    FUZZ_CHECK(error == 0 || error == -EPROTO);
    if (error != 0) return;
    FUZZ_CHECK(payload.bytes() + kRecordHeaderBytes <= queued.bytes());
    check(payload);
    consumer().retire(kRecordHeaderBytes + payload.bytes());
  }
  void write(Input& in) {
    ByteProducer p = in_mine();
    std::size_t wanted = in.flip() ? 4096 : in.byte();
    uint64_t unread = p.unread();
    FUZZ_CHECK(unread <= p.tail());
    std::size_t space = p.space(in.flip());
    FUZZ_CHECK(space <= p.size());
    Pieces<std::byte> room = p.reserve(wanted);
    FUZZ_CHECK(room.bytes() <= wanted && room.bytes() <= p.size());
    FUZZ_CHECK(mine_.holds(room.first, room.first_bytes, kHeapOffset) && mine_.holds(room.second, room.second_bytes, kHeapOffset));
    if (room.bytes() >= kRecordHeaderBytes) put_record_length({room.first, room.first_bytes, room.second, room.second_bytes}, 0);
    p.publish(room.bytes());
  }

  GuardedMemory theirs_{kPairBytes}, mine_{kPairBytes};
  uint64_t head_seen_ = 0;
  mutable uint64_t sum_ = 0;
};

}  // namespace
}  // namespace sluice::fuzz

FUZZ_READER(sluice::fuzz::Bytes)
