// A program on a stack of its own, that runs when it is resumed and stops where it suspends itself.
//
// The stack has a guard page below it. What the program throws ends it and is kept. A program that
// is to end early is cancelled: what it waits for throws Cancelled, so that its destructors run.
// All fibers of one thread stay in it.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>

namespace nocsim {

// Not a std::exception: a program that catches those is still cancelled.
struct Cancelled {};

class Fiber {
 public:
  Fiber(size_t stack_bytes, std::function<void()> body);
  ~Fiber();  // cancels it
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs it until it suspends itself or ends. Not from within a fiber of this thread.
  void resume();
  // Called by the fiber itself. Throws Cancelled if it was cancelled meanwhile.
  void suspend();
  void cancel();

  bool finished() const { return finished_; }
  // What ended it, if not its return or a cancellation.
  std::exception_ptr failure() const { return failure_; }

 private:
  static void enter();
  void run();
  void switch_in();
  void switch_out();

  // What the C++ run-time library keeps for each thread on exceptions that are being handled.
  struct HandledExceptions {
    void* caught = nullptr;
    unsigned uncaught = 0;
  };
  void exchange_exceptions();

  std::function<void()> body_;
  char* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  void* stack_ = nullptr;          // where it goes on
  void* callers_stack_ = nullptr;  // where resume() goes on
  HandledExceptions exceptions_;
  std::exception_ptr failure_;
  bool started_ = false;
  bool finished_ = false;
  bool cancelled_ = false;

  // For AddressSanitizer.
  void* fake_stack_ = nullptr;
  void* callers_fake_stack_ = nullptr;
  const void* callers_bottom_ = nullptr;
  size_t callers_size_ = 0;
};

}  // namespace nocsim
