// Stacks of their own: resuming, suspending, ends, cancellation. Also built with the portable
// switch.
#include "nocsim/fiber.h"

#include <catch2/catch.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace nocsim;

namespace {

constexpr size_t kStack = 64 * 1024;

struct Appends {
  std::string& to;
  char what;
  ~Appends() { to += what; }
};

}  // namespace

TEST_CASE("a fiber goes on where it suspended itself, with what it had on its stack") {
  std::string did;
  std::unique_ptr<Fiber> fiber;
  fiber = std::make_unique<Fiber>(kStack, [&] {
    double sum = 0.5;
    for (char c = 'a'; c < 'd'; ++c) {
      did += c;
      sum *= 2;
      fiber->suspend();
    }
    did += sum == 4 ? '4' : '?';
  });
  for (int i = 0; i < 3; ++i) {
    fiber->resume();
    did += '.';
  }
  REQUIRE_FALSE(fiber->finished());
  fiber->resume();
  REQUIRE(fiber->finished());
  fiber->resume();  // does nothing any more
  CHECK(did == "a.b.c.4");
}

TEST_CASE("fibers take turns, thousands of them") {
  constexpr int kFibers = 3000;
  std::vector<std::unique_ptr<Fiber>> fibers(kFibers);
  std::vector<int> turns(kFibers);
  for (int i = 0; i < kFibers; ++i)
    fibers[i] = std::make_unique<Fiber>(kStack, [&, i] {
      for (int turn = 0; turn < 5; ++turn) {
        turns[i] += turn;
        fibers[i]->suspend();
      }
    });
  for (int turn = 0; turn < 6; ++turn)
    for (const auto& fiber : fibers) fiber->resume();
  for (int i = 0; i < kFibers; ++i) {
    REQUIRE(fibers[i]->finished());
    REQUIRE(turns[i] == 10);
  }
}

TEST_CASE("what a fiber throws ends it and is kept") {
  Fiber fiber(kStack, [] { throw std::runtime_error("from the fiber"); });
  fiber.resume();
  REQUIRE(fiber.finished());
  REQUIRE_THROWS_WITH(std::rethrow_exception(fiber.failure()), "from the fiber");
}

TEST_CASE("a cancelled fiber runs its destructors, even if it catches exceptions") {
  std::string did;
  std::unique_ptr<Fiber> fiber;
  fiber = std::make_unique<Fiber>(kStack, [&] {
    const Appends outer{did, 'o'};
    try {
      const Appends inner{did, 'i'};
      fiber->suspend();
      did += '!';
    } catch (const std::exception&) {
      did += 'e';
    }
  });
  fiber->resume();
  fiber->cancel();
  CHECK(fiber->finished());
  CHECK_FALSE(fiber->failure());
  CHECK(did == "io");
}

TEST_CASE("a fiber that was never resumed is never run") {
  bool ran = false;
  {
    Fiber fiber(kStack, [&] { ran = true; });
  }
  CHECK_FALSE(ran);
}

TEST_CASE("handled exceptions stay with their fiber") {
  std::vector<std::unique_ptr<Fiber>> fibers(4);
  std::vector<int> caught(4, -1);
  for (int i = 0; i < 4; ++i)
    fibers[i] = std::make_unique<Fiber>(kStack, [&, i] {
      try {
        throw i;
      } catch (...) {
        fibers[i]->suspend();
        // The one that is being handled here, not what another fiber caught since.
        try {
          throw;
        } catch (int value) {
          caught[i] = value;
        }
      }
    });
  for (const auto& fiber : fibers) fiber->resume();
  for (int i : {2, 0, 3, 1}) fibers[i]->resume();
  CHECK(caught == std::vector<int>{0, 1, 2, 3});
}
