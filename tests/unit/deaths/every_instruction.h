// Kills a process at each instruction of an operation on shared memory, one after the other, and lets the test look at
// what it left behind.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <new>

namespace sluice::shm::test {

// A T that children share with us.
template <class T>
class SharedMemory {
 public:
  SharedMemory() {
    void* p = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(p != MAP_FAILED);
    it_ = new (p) T;
  }
  ~SharedMemory() { munmap(static_cast<void*>(it_), sizeof(T)); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  T& operator*() const { return *it_; }
  T* operator->() const { return it_; }

 private:
  T* it_;
};

// A child that stops, runs `operation`, and stops again.
template <class Operation>
pid_t start_traced(Operation&& operation) {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    kill(getpid(), SIGSTOP);
    operation();
    kill(getpid(), SIGUSR1);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSTOPPED(status));
  return child;
}

// One instruction further. False: the operation is over.
inline bool step(pid_t child) {
  int status = 0;
  REQUIRE(ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSTOPPED(status));
  return WSTOPSIG(status) != SIGUSR1;
}

inline void end(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// `operation(T&)` in a child that dies after 0, 1, 2, ... instructions, on a fresh T each time; then `look(T&, over)`
// here. Returns how often.
template <class T, class Operation, class Look>
uint32_t die_at_every_instruction(Operation&& operation, Look&& look) {
  for (uint32_t instructions = 0;; ++instructions) {
    SharedMemory<T> memory;
    pid_t child = start_traced([&] { operation(*memory); });
    bool over = false;
    for (uint32_t i = 0; i < instructions && !over; ++i) over = !step(child);
    end(child);
    look(*memory, over);
    if (over) return instructions;
  }
}

}  // namespace sluice::shm::test
