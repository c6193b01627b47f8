// The two variables that a program needs to be with us, given back to one that is started with
// another environment: a server that clears its own keeps its children with us.
#pragma once

#include <cstddef>

namespace sluice::preload {

// Start-up: what this program was started with.
void note_environment(const char* directory);

// Where the environment of a program to be started is written if it lacks something: on the caller's
// stack, as a vfork child must not allocate.
class Environment {
 public:
  explicit Environment(char* const* envp);
  // Of stack that complete() needs; 0: the environment is good as it is.
  size_t room() const { return room_; }
  char* const* complete(void* room) const;

 private:
  char* const* envp_;
  const char* preload_ = nullptr;  // its LD_PRELOAD, without us
  bool wants_preload_ = false;
  bool wants_directory_ = false;
  size_t count_ = 0;
  size_t room_ = 0;
};

}  // namespace sluice::preload

// An expression: `envp`, or what takes its place in this function.
#define COMPLETE_ENVIRONMENT(envp)                                       \
  ({                                                                     \
    ::sluice::preload::Environment environment_(envp);                   \
    size_t room_ = environment_.room();                                  \
    room_ == 0 ? (envp) : environment_.complete(__builtin_alloca(room_)); \
  })
