#include "monitor/bench/raw_limits.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "shm/wake.h"

namespace sluice::monitor::bench {
namespace {

constexpr uint32_t kWarmUp = 2000, kRoundTrips = 20000;
constexpr uint32_t kLooks = 1000;  // before the other one, on the same CPU, has its turn

struct alignas(128) Line {
  std::atomic<uint32_t> number{0};
};

void stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (cpu >= 0) (void)sched_setaffinity(0, sizeof set, &set);
}

void await(const Line& line, uint32_t number) {
  for (uint32_t looks = 1; line.number.load(std::memory_order_acquire) != number; ++looks)
    looks % kLooks == 0 ? void(sched_yield()) : shm::cpu_relax();
}

}  // namespace

double line_round_trip_us(int cpu, int other_cpu) {
  using Clock = std::chrono::steady_clock;
  Line there, back;
  std::thread other([&] {
    stay_on(other_cpu);
    for (uint32_t i = 1; i <= kWarmUp + kRoundTrips; ++i) {
      await(there, i);
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
      await(back, i);
    }
    us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / kRoundTrips;
  });
  one.join();
  other.join();
  return us;
}

}  // namespace sluice::monitor::bench
