// What all targets of shm/ have in common. A target is a type with
//   begin(Input&)     an honest state, before the case begins
//   disturb(Input&)   the hostile side writes something somewhere into what is its own
//   step(Input&)      the honest side does one operation and checks what it was told
// A case is a sequence of these; some disturbances come in the middle of a step (interrupted.h). In a race
// another thread disturbs all the time.
#pragma once

#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "tests/fuzz/input.h"
#include "tests/fuzz/interrupted.h"

namespace sluice::fuzz {

// Memory between pages that nobody may touch, of which only what is used exists. clear() makes it zero again.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    FUZZ_CHECK(p != MAP_FAILED);
    base_ = static_cast<std::byte*>(p) + kGuard;
    FUZZ_CHECK(mprotect(base_, bytes, PROT_READ | PROT_WRITE) == 0);
  }
  std::byte* base() const { return base_; }
  template <class T>
  T& as() const { return *reinterpret_cast<T*>(base_); }
  void clear() { madvise(base_, bytes_, MADV_DONTNEED); }
  bool holds(const std::byte* from, std::size_t n, std::size_t first = 0) const {
    return n == 0 || (from >= base_ + first && n <= bytes_ && from <= base_ + bytes_ - n);
  }

 private:
  static constexpr std::size_t kGuard = std::size_t{4} << 20;
  std::byte* base_;
  std::size_t bytes_;
};

template <class Target>
void run_case(Target& target, Input& in) {
  struct Disturbance {
    Target* target;
    Input* in;
  } disturbance{&target, &in};
  target.begin(in);
  while (!in.empty()) {
    uint8_t choice = in.byte();
    if (choice % 4 == 0) {
      target.disturb(in);
    } else if (choice % 4 == 1) {
      Input later = in;  // the step's own choices come first, and are the same with and without
      Interruption::begin(1 + in.byte() % 96, [](void* p) {
        auto* d = static_cast<Disturbance*>(p);
        d->target->disturb(*d->in);
      }, &disturbance);
      target.step(later);
      Interruption::end();
    } else {
      target.step(in);
    }
  }
}

// Until `seconds` are over. Returns how many steps were taken.
template <class Target>
uint64_t run_race(Target& target, uint64_t seed, double seconds) {
  std::atomic<bool> over{false};
  auto filled = [](std::mt19937_64& random, uint8_t (&bytes)[64]) {
    for (int i = 0; i < 64; i += 8) {
      uint64_t w = random();
      memcpy(bytes + i, &w, 8);
    }
    return Input(bytes, 64);
  };
  uint8_t first[64];
  std::mt19937_64 random(seed);
  Input start = filled(random, first);
  target.begin(start);
  std::thread hostile([&] {
    std::mt19937_64 own(seed + 1);
    uint8_t bytes[64];
    while (!over.load(std::memory_order_relaxed)) {
      Input in = filled(own, bytes);
      target.disturb(in);
    }
  });
  auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t steps = 0;
  uint8_t bytes[64];
  while (std::chrono::steady_clock::now() < end)
    for (int i = 0; i < 1000; ++i, ++steps) {
      Input in = filled(random, bytes);
      target.step(in);
    }
  over = true;
  hostile.join();
  return steps;
}

}  // namespace sluice::fuzz

// The entry points of a target: libFuzzer's, and the race of driver.cpp.
#define FUZZ_READER(Target)                                                       \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t n) {    \
    static Target target;                                                         \
    sluice::fuzz::Input in(bytes, n);                                             \
    sluice::fuzz::run_case(target, in);                                           \
    return 0;                                                                     \
  }                                                                               \
  extern "C" uint64_t fuzz_race(uint64_t seed, double seconds) {                  \
    static Target target;                                                         \
    return sluice::fuzz::run_race(target, seed, seconds);                         \
  }
