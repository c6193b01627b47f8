#include "monitor/bench/raw_limits.h"

#include <sched.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "shm/wake.h"

namespace sluice::monitor::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kWarmUp = 2000, kRoundTrips = 20000;
constexpr uint32_t kLooks = 1000;  // before the other one, perhaps on the same CPU, has its turn

struct alignas(128) Line {
  std::atomic<uint32_t> number{0};
};

void stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (cpu >= 0) (void)sched_setaffinity(0, sizeof set, &set);
}

uint32_t looks_between(int cpu, int other_cpu) { return cpu >= 0 && cpu == other_cpu ? 1 : kLooks; }

// Gives the CPU away after so many looks in vain.
template <typename Condition>
void await(uint32_t most_looks, Condition met) {
  for (uint32_t looks = 1; !met(); ++looks) looks % most_looks == 0 ? void(sched_yield()) : shm::cpu_relax();
}

void await(uint32_t most_looks, const Line& line, uint32_t number) {
  await(most_looks, [&] { return line.number.load(std::memory_order_acquire) == number; });
}

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Bytes from one thread to another. Each writes its own position, and keeps what it saw last of the other's.
class PlainRing {
 public:
  explicit PlainRing(uint32_t most_looks) : most_looks_(most_looks) {}
  void put(const char* bytes, std::size_t size) {
    for (std::size_t n; size > 0; bytes += n, size -= n) {
      await(most_looks_, [&] { return tail_ - head_seen_ < kBytes || look_for_space(); });
      n = std::min({size, kMostAtOnce, std::size_t(kBytes - (tail_ - head_seen_)), kBytes - tail_ % kBytes});
      memcpy(&bytes_[tail_ % kBytes], bytes, n);
      tail_ += n;
      published_.position.store(tail_, std::memory_order_release);
    }
  }

  // Takes what there is; returns how much that was.
  std::size_t take(char* bytes) {
    uint64_t tail = published_.position.load(std::memory_order_acquire);
    std::size_t n = std::min({std::size_t(tail - head_), kMostAtOnce, kBytes - head_ % kBytes});
    memcpy(bytes, &bytes_[head_ % kBytes], n);
    head_ += n;
    if (n > 0) retired_.position.store(head_, std::memory_order_release);
    return n;
  }

  // Takes all there is until `ended` is seen.
  void take_until(const std::atomic<bool>& ended) {
    std::vector<char> bytes(kMostAtOnce);
    await(most_looks_, [&] {
      bool last = ended.load(std::memory_order_acquire);
      while (take(bytes.data()) > 0) {
      }
      return last;
    });
  }

  static constexpr std::size_t kBytes = 1 << 20, kMostAtOnce = 64 << 10;

 private:
  struct alignas(128) Position {
    std::atomic<uint64_t> position{0};
  };
  bool look_for_space() {
    head_seen_ = retired_.position.load(std::memory_order_acquire);
    return tail_ - head_seen_ < kBytes;
  }
  uint32_t most_looks_;
  Position published_, retired_;
  alignas(128) uint64_t tail_ = 0;  // the producer's
  uint64_t head_seen_ = 0;
  alignas(128) uint64_t head_ = 0;  // the consumer's
  std::vector<char> bytes_ = std::vector<char>(kBytes);
};

constexpr std::size_t kPageBytes = 4096;

char* page_in(std::vector<char>& bytes) {
  uintptr_t address = reinterpret_cast<uintptr_t>(bytes.data());
  return bytes.data() + (kPageBytes - address % kPageBytes) % kPageBytes;
}

// Messages between two looks at the clock, which takes as long as a small one.
std::size_t batch_of(std::size_t size_bytes) {
  return std::clamp<std::size_t>(PlainRing::kMostAtOnce / size_bytes, 1, 1024);
}

}  // namespace

double line_round_trip_us(int cpu, int other_cpu) {
  Line there, back;
  uint32_t most_looks = looks_between(cpu, other_cpu);
  std::thread other([&] {
    stay_on(other_cpu);
    for (uint32_t i = 1; i <= kWarmUp + kRoundTrips; ++i) {
      await(most_looks, there, i);
      back.number.store(i, std::memory_order_release);
    }
  });
  double us = 0;
  std::thread one([&] {
    stay_on(cpu);
    Clock::time_point begin;
    for (uint32_t i = 1; i <= kWarmUp + kRoundTrips; ++i) {
      if (i == kWarmUp + 1) begin = Clock::now();
      there.number.store(i, std::memory_order_release);
      await(most_looks, back, i);
    }
    us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / kRoundTrips;
  });
  one.join();
  other.join();
  return us;
}

double ring_messages_per_s(std::size_t size_bytes, int cpu, int other_cpu, double seconds) {
  PlainRing ring(looks_between(cpu, other_cpu));
  std::atomic<bool> ended{false};
  std::thread consumer([&] {
    stay_on(other_cpu);
    ring.take_until(ended);
  });
  double rate = 0;
  std::thread producer([&] {
    stay_on(cpu);
    std::vector<char> message(size_bytes, 'm');
    auto send_for = [&](double wanted) {
      Clock::time_point begin = Clock::now();
      uint64_t messages = 0;
      do {
        for (std::size_t i = 0; i < batch_of(size_bytes); ++i) ring.put(message.data(), message.size());
        messages += batch_of(size_bytes);
      } while (seconds_since(begin) < wanted);
      return double(messages) / seconds_since(begin);
    };
    send_for(seconds / 10);
    rate = send_for(seconds);
    ended.store(true, std::memory_order_release);
  });
  producer.join();
  consumer.join();
  return rate;
}

double copy_gb_per_s(std::size_t size_bytes, int cpu, double seconds) {
  double rate = 0;
  std::thread copier([&] {
    stay_on(cpu);
    std::vector<char> source(size_bytes + kPageBytes, 's'), target(size_bytes + 2 * kPageBytes);
    const char* from = page_in(source);
    // Half a page further on: some CPUs copy slowly between places that are nearly at the same place of a page.
    char* to = page_in(target) + kPageBytes / 2;
    auto copy_for = [&](double wanted) {
      Clock::time_point begin = Clock::now();
      uint64_t copies = 0;
      do {
        for (std::size_t i = 0; i < batch_of(size_bytes); ++i) {
          memcpy(to, from, size_bytes);
          __asm__ __volatile__("" : : "r"(to) : "memory");  // each copy is wanted
        }
        copies += batch_of(size_bytes);
      } while (seconds_since(begin) < wanted);
      return double(copies) * double(size_bytes) / seconds_since(begin) / 1e9;
    };
    copy_for(seconds / 10);
    rate = copy_for(seconds);
  });
  copier.join();
  return rate;
}

}  // namespace sluice::monitor::bench
