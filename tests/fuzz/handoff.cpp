// A socket pair's handoff: a reader and a writer, while another one who holds an end writes anything into all of it.
#include "shm/handoff.h"
#include "tests/fuzz/readers.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

class SocketPair {
 public:
  void begin(Input& in) {
    memory_.clear();
    end_ = in.flip();
    if (in.flip()) direction().word.store(in.lie(0), std::memory_order_relaxed);
  }

  void disturb(Input& in) {
    Direction& d = direction();
    uint64_t word = d.word.load(std::memory_order_relaxed);
    switch (in.byte() % 6) {
      case 0: return d.word.store(in.lie(word), std::memory_order_release);
      case 1: return d.head.store(in.lie(Handoff::tail(word)), std::memory_order_release);
      case 2: return (void)d.word.fetch_xor(in.byte() & 3, std::memory_order_acq_rel);  // the mode
      case 3: {  // an honest entrance, of a reader with much room or little
        uint64_t seen = word;
        return (void)handoff().enter(seen, in.word(3));
      }
      case 4: return d.writing.store(uint32_t(in.lie(0)), std::memory_order_release);
      default: return __atomic_store_n(&reinterpret_cast<uint64_t*>(memory_.base())[in.word(3) % (kHandoffBytes / 8)], in.word(), __ATOMIC_RELAXED);
    }
  }

  void step(Input& in) {
    uint64_t word = handoff().word();
    std::size_t wanted = in.flip() ? in.byte() : in.word(3);
    switch (in.byte() % 7) {
      case 0: {  // as preload/files/pair_end.cpp reads
        std::size_t n = handoff().readable(word);
        FUZZ_CHECK(n <= kHandoffRingBytes);
        if (n > wanted) n = wanted;
        Pieces<const std::byte> p = handoff().observe(n);
        check(p, n);
        return handoff().retire(n);
      }
      case 1: {
        std::size_t n = Handoff::mode(word) == Handoff::kRing ? Handoff::credit(word) : 0;
        if (n > wanted) n = wanted;
        if (n > kMostHanded) n = kMostHanded;
        Pieces<std::byte> p = handoff().reserve(word, n);
        check({p.first, p.first_bytes, p.second, p.second_bytes}, n);
        return (void)handoff().publish(word, n);
      }
      case 2: return (void)handoff().enter(word, wanted);
      case 3: return (void)handoff().want(word);
      case 4: return (void)handoff().rest(word);
      case 5: return (void)handoff().sleep(word);
      default: handoff().leave();
    }
  }

 private:
  static constexpr std::size_t kMostHanded = 32 * 1024;  // at once, whatever the credit
  Handoff handoff() const { return Handoff(memory_.base(), end_); }
  Direction& direction() const { return handoff().direction(); }
  void check(const Pieces<const std::byte>& p, std::size_t n) const {
    FUZZ_CHECK(p.bytes() == n);
    std::size_t ring = kPageBytes + end_ * kHandoffRingBytes;  // of this direction
    for (auto [bytes, count] : {std::pair{p.first, p.first_bytes}, {p.second, p.second_bytes}})
      FUZZ_CHECK(memory_.holds(bytes, count, ring) && bytes + count <= memory_.base() + ring + kHandoffRingBytes);
  }
  GuardedMemory memory_{kHandoffBytes};
  unsigned end_ = 0;
};

}  // namespace
}  // namespace sluice::fuzz

FUZZ_READER(sluice::fuzz::SocketPair)
