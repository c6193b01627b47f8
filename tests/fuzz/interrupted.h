// Runs an operation and changes the memory that it reads in the middle of it: at one point, whose number the case says.
//
// Targets are compiled with -finstrument-functions: the compiler calls us at the beginning and the end of each function,
// inlined ones too, and so between any two loads of a Shared<T>. A case does the same each time, without signals
// or other threads. What lies between two functions' ends is left to the race (readers.h).
#pragma once

#include <cstdint>

#define FUZZ_UNTRACED __attribute__((no_instrument_function))

namespace sluice::fuzz {

class Interruption {
 public:
  using Change = void (*)(void*);

  // Calls `change(argument)` at the n-th point of what follows, or in end(), if there are not so many.
  FUZZ_UNTRACED static void begin(uint32_t n, Change change, void* argument) {
    change_ = change;
    argument_ = argument;
    left_ = n;
  }
  FUZZ_UNTRACED static void end() {
    if (left_ != 0) strike();
  }
  FUZZ_UNTRACED static void point() {
    if (left_ != 0 && --left_ == 0) strike();
  }

 private:
  FUZZ_UNTRACED static void strike() {
    left_ = 0;
    change_(argument_);
  }
  static inline uint32_t left_ = 0;
  static inline Change change_ = nullptr;
  static inline void* argument_ = nullptr;
};

}  // namespace sluice::fuzz

extern "C" FUZZ_UNTRACED inline __attribute__((used)) void __cyg_profile_func_enter(void*, void*) { sluice::fuzz::Interruption::point(); }
extern "C" FUZZ_UNTRACED inline __attribute__((used)) void __cyg_profile_func_exit(void*, void*) { sluice::fuzz::Interruption::point(); }
