// Moving a connection that waits (docs/protocol.md, "A connection that waits too long").
//
// Withdrawal: the initiator may take a connection back as long as the acceptor has not accepted
// it. Each writes its own slot and looks at the other's. Never do both serve it, and if neither
// does at once, the initiator is told to connect again.
//
// Report: an initiator waits because everybody is busy, an acceptor goes to sleep because nobody
// seems to wait. At least one of them learns of the other.
#include "model.h"

namespace {

constexpr uint32_t kAccepted = 8, kRedirect = 16, kWithdrawn = 64;

struct Withdrawal : rl::test_suite<Withdrawal, 2> {
  rl::atomic<uint32_t> initiators;
  rl::atomic<uint32_t> acceptors;
  bool moved = false, accepted = false;

  void before() {
    initiators.store(0, rl::memory_order_relaxed);
    acceptors.store(0, rl::memory_order_relaxed);
  }

  void initiator() {
    initiators.store(kWithdrawn, rl::memory_order_relaxed);         // X0
    model::full_fence($);
    moved = !(acceptors.load(rl::memory_order_acquire) & kAccepted);  // X1
  }

  void acceptor() {
    acceptors.store(kAccepted, rl::memory_order_release);           // Y0
    model::full_fence($);
    accepted = !(initiators.load(rl::memory_order_acquire) & kWithdrawn);  // Y1
    if (!accepted) acceptors.store(kRedirect, rl::memory_order_release);   // Y2
  }

  void thread(unsigned index) { index == 0 ? initiator() : acceptor(); }

  void after() {
    bool told = acceptors.load(rl::memory_order_relaxed) == kRedirect;
    RL_ASSERT(!(moved && accepted));
    RL_ASSERT(moved || accepted || told);
  }
};

struct Report : rl::test_suite<Report, 2> {
  rl::atomic<uint32_t> waited;
  rl::atomic<uint32_t> accepting;
  bool found_idle = false, found_waiting = false;

  void before() {
    waited.store(0, rl::memory_order_relaxed);
    accepting.store(0, rl::memory_order_relaxed);
  }

  void coordinator() {
    waited.store(1, rl::memory_order_release);                      // V0
    model::full_fence($);
    found_idle = accepting.load(rl::memory_order_relaxed) != 0;     // V1
  }

  void acceptor() {
    accepting.store(1, rl::memory_order_release);                   // W0
    model::full_fence($);
    found_waiting = waited.load(rl::memory_order_relaxed) != 0;     // W1
  }

  void thread(unsigned index) { index == 0 ? coordinator() : acceptor(); }
  void after() { RL_ASSERT(found_idle || found_waiting); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) model::left_out = argv[1];
  int withdrawal = model::run<Withdrawal>(model::kExhaustive, 0, rl::test_result_user_assert_failed);
  int report = model::run<Report>(model::kExhaustive, 0, rl::test_result_user_assert_failed);
  return *model::left_out ? withdrawal & report : withdrawal | report;
}
