// A pipe's channel: a reader and a writer, while another one who holds the pipe writes anything into all of it.
#include "shm/channel.h"
#include "tests/fuzz/readers.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

class Pipe {
 public:
  void begin(Input& in) {
    memory_.clear();
    header().limit.store(in.flip() ? 65536 : uint32_t(in.lie(65536)), std::memory_order_relaxed);
    if (in.flip()) header().word.store(in.lie(0), std::memory_order_relaxed);
  }

  void disturb(Input& in) {
    ChannelHeader& h = header();
    switch (in.byte() % 5) {
      case 0: return h.word.store(in.lie(h.head.load(std::memory_order_relaxed) << 2 | kRingMode), std::memory_order_release);
      case 1: return h.head.store(in.lie(h.word.load(std::memory_order_relaxed) >> 2), std::memory_order_release);
      case 2: return h.limit.store(uint32_t(in.lie(kChannelRingBytes)), std::memory_order_release);
      case 3: return (void)h.word.fetch_xor(in.byte() & kModeBits, std::memory_order_acq_rel);
      default: return __atomic_store_n(&reinterpret_cast<uint64_t*>(memory_.base())[in.word(2) % (kChannelBytes / 8)], in.word(), __ATOMIC_RELAXED);
    }
  }

  void step(Input& in) {
    uint64_t word = channel().word();
    std::size_t wanted = in.flip() ? in.byte() : in.word(3);
    switch (in.byte() % 6) {
      case 0: {  // as preload/pipes.cpp reads
        std::size_t n = channel().readable(word);
        FUZZ_CHECK(n <= kChannelRingBytes);
        if (n > wanted) n = wanted;
        Pieces<const std::byte> p = channel().observe(n);
        check(p, n);
        return channel().retire(n);
      }
      case 1: {
        std::size_t n = channel().space(word);
        FUZZ_CHECK(n <= kChannelRingBytes);
        if (n > wanted) n = wanted;
        Pieces<std::byte> p = channel().reserve(word, n);
        check({p.first, p.first_bytes, p.second, p.second_bytes}, n);
        return (void)channel().publish(word, n);
      }
      case 2: return (void)channel().enter(word);
      case 3: return (void)channel().want(word);
      case 4: return (void)channel().sleep(word);
      default: channel().leave();
    }
  }

 private:
  Channel channel() const { return Channel(memory_.base()); }
  ChannelHeader& header() const { return memory_.as<ChannelHeader>(); }
  void check(const Pieces<const std::byte>& p, std::size_t n) const {
    FUZZ_CHECK(p.bytes() == n);
    FUZZ_CHECK(memory_.holds(p.first, p.first_bytes, kPageBytes) && memory_.holds(p.second, p.second_bytes, kPageBytes));
  }
  GuardedMemory memory_{kChannelBytes};
};

}  // namespace
}  // namespace sluice::fuzz

FUZZ_READER(sluice::fuzz::Pipe)
