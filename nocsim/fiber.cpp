#include "nocsim/fiber.h"

#include <cxxabi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

// NOCSIM_UCONTEXT: the portable switch also where there is a faster one, to test it.
#if !defined(__x86_64__) || defined(NOCSIM_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace nocsim {
namespace {

thread_local Fiber* starting = nullptr;

#if defined(__SANITIZE_ADDRESS__)
void announce_switch(void** keep, const void* bottom, size_t size) {
  __sanitizer_start_switch_fiber(keep, bottom, size);
}
void switched(void* kept, const void** bottom, size_t* size) {
  __sanitizer_finish_switch_fiber(kept, bottom, size);
}
#else
void announce_switch(void**, const void*, size_t) {}
void switched(void*, const void**, size_t*) {}
#endif

}  // namespace

// ---- the switch -------------------------------------------------------------------------

#if defined(__x86_64__) && !defined(NOCSIM_UCONTEXT)

// Leaves the registers that a called function has to preserve on the stack, stores the stack's
// position in *from and goes on where `to` was left (System V ABI, AMD64 supplement, 3.2.1).
extern "C" void nocsim_switch_stack(void** from, void* to);
asm(R"(
.pushsection .text
.globl nocsim_switch_stack
.type nocsim_switch_stack, @function
nocsim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size nocsim_switch_stack, . - nocsim_switch_stack
.popsection
)");

namespace {

void* first_stack(char*, char* top, void (*entry)()) {
  auto* words = reinterpret_cast<uint64_t*>(top);
  words[-1] = 0;  // nobody to return to; keeps the entry's stack aligned as after a call
  words[-2] = reinterpret_cast<uint64_t>(entry);
  for (int i = 3; i <= 8; ++i) words[-i] = 0;
  return words - 8;
}

void switch_stack(void** from, void* to) { nocsim_switch_stack(from, to); }

}  // namespace

#else

namespace {

void* first_stack(char* bottom, char* top, void (*entry)()) {
  // The context lies at the stack's top; below it is what the program uses.
  constexpr size_t kContext = (sizeof(ucontext_t) + 63) / 64 * 64;
  auto* context = new (top - kContext) ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = bottom;
  context->uc_stack.ss_size = static_cast<size_t>(top - bottom) - kContext;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

void switch_stack(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

}  // namespace

#endif

// ---- the fiber --------------------------------------------------------------------------

Fiber::Fiber(size_t stack_bytes, std::function<void()> body) : body_(std::move(body)) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  memory_bytes_ = (stack_bytes + page - 1) / page * page + page;
  void* memory = mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  if (mprotect(memory_, page, PROT_NONE) != 0) {
    munmap(memory_, memory_bytes_);
    throw std::bad_alloc();
  }
  stack_ = first_stack(memory_ + page, memory_ + memory_bytes_, &Fiber::enter);
}

Fiber::~Fiber() {
  cancel();
  munmap(memory_, memory_bytes_);
}

void Fiber::enter() { starting->run(); }

void Fiber::run() {
  switched(nullptr, &callers_bottom_, &callers_size_);
  try {
    body_();
  } catch (const Cancelled&) {
  } catch (...) {
    failure_ = std::current_exception();
  }
  finished_ = true;
  switch_out();
}

void Fiber::exchange_exceptions() {
  HandledExceptions others;
  void* globals = abi::__cxa_get_globals();
  std::memcpy(&others, globals, sizeof others);
  std::memcpy(globals, &exceptions_, sizeof exceptions_);
  exceptions_ = others;
}

void Fiber::resume() {
  if (finished_) return;
  if (!started_) starting = this;
  started_ = true;
  switch_in();
}

void Fiber::switch_in() {
  exchange_exceptions();
  announce_switch(&callers_fake_stack_, memory_, memory_bytes_);
  switch_stack(&callers_stack_, stack_);
  switched(callers_fake_stack_, nullptr, nullptr);
  exchange_exceptions();
}

void Fiber::switch_out() {
  // One that has finished never comes back, and its fake stack goes with it.
  announce_switch(finished_ ? nullptr : &fake_stack_, callers_bottom_, callers_size_);
  switch_stack(&stack_, callers_stack_);
  switched(fake_stack_, &callers_bottom_, &callers_size_);
}

void Fiber::suspend() {
  switch_out();
  if (cancelled_) throw Cancelled{};
}

void Fiber::cancel() {
  if (!started_) finished_ = true;
  cancelled_ = true;
  // A destructor may wait for something, and is then told again.
  while (!finished_) resume();
}

}  // namespace nocsim
