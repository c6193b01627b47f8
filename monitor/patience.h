// So that nobody holds up the coordinator by descriptors that it has to close.
//
// The last close(2) of a TCP socket with SO_LINGER waits until the peer has taken everything, for as long as the option
// says; it may be somebody's who sends it to us, by itself, in the queue of another socket, or unread when we hang up. The
// wait ends when a signal comes. So while packets are received and clients buried a timer sends one every
// kPatienceUs, also if the first comes just before the wait.
#pragma once

#include <signal.h>
#include <sys/time.h>

#include <cstdint>

namespace sluice::monitor {

class Patience {
 public:
  static constexpr suseconds_t kPatienceUs = 1000;

  static void catch_signal() {
    struct sigaction action {};
    action.sa_handler = [](int) { losses_ = losses_ + 1; };  // no SA_RESTART: it is to interrupt
    sigaction(SIGALRM, &action, nullptr);
  }
  void begin() {
    if (!begun_) set(kPatienceUs);
    begun_ = true;
  }
  void end() {
    if (begun_) set(0);
    begun_ = false;
  }
  // How often it has been lost.
  static uint32_t losses() { return uint32_t(losses_); }

 private:
  static void set(suseconds_t us) {
    itimerval t{{0, us}, {0, us}};
    setitimer(ITIMER_REAL, &t, nullptr);
  }
  static inline volatile sig_atomic_t losses_ = 0;
  bool begun_ = false;
};

}  // namespace sluice::monitor
