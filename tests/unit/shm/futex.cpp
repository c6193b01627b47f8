#include "shm/futex.h"

#include <errno.h>

#include <catch2/catch.hpp>
#include <thread>

#include "tests/unit/shm/two_domains.h"

namespace sluice::shm {
namespace {

timespec in_milliseconds(long ms) {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += ms * 1'000'000;
  t.tv_sec += t.tv_nsec / 1'000'000'000;
  t.tv_nsec %= 1'000'000'000;
  return t;
}

TEST_CASE("waiting for a word that has changed returns at once") {
  std::atomic<uint32_t> word{1};
  CHECK(futex_wait(word, 0, nullptr) == -EAGAIN);
}

TEST_CASE("a wait ends at its deadline and leaves errno alone") {
  std::atomic<uint32_t> word{0};
  timespec deadline = in_milliseconds(1);
  errno = 1234;
  CHECK(futex_wait(word, 0, &deadline) == -ETIMEDOUT);
  CHECK(errno == 1234);
}

TEST_CASE("a deadline in the past ends the wait at once") {
  std::atomic<uint32_t> word{0};
  timespec past{1, 0};
  CHECK(futex_wait(word, 0, &past) == -ETIMEDOUT);
}

TEST_CASE("a sleeper on a mapping that it cannot write is woken through another mapping") {
  test::MappedRegion region(kPageBytes);
  auto& rung = region.as_written<Shared<uint32_t>>();
  const auto& doorbell = region.as_read<Shared<uint32_t>>();
  std::thread sleeper([&] {
    while (doorbell.load(std::memory_order_acquire) == 0) {
      long result = futex_wait(doorbell, 0, nullptr);
      if (result != 0 && result != -EAGAIN && result != -EINTR) std::abort();
    }
  });
  rung.store(1, std::memory_order_release);
  futex_wake(rung);
  sleeper.join();
  SUCCEED();
}

TEST_CASE("waking a word on which nobody sleeps does nothing") {
  std::atomic<uint32_t> word{0};
  futex_wake(word);
  CHECK(word == 0);
}

}  // namespace
}  // namespace sluice::shm
