// posix_spawn(3): which descriptors of ours the new program gets, and the list of file actions
// that gives it their substitutes.
//
// The child that runs the actions is libc's own, with a copy of our descriptors. So the substitutes
// are put in place there, by actions of ours before the program's: nothing changes in this
// process, whose other threads go on using the connections. libc's list has no public layout; what
// we know of it is checked against libc before it is believed.
#pragma once

#include <spawn.h>

#include <cstdint>

#include "preload/escape.h"

namespace sluice::preload {

class SpawnPlan {
 public:
  explicit SpawnPlan(const posix_spawn_file_actions_t* actions);
  ~SpawnPlan();
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  // What libc is to do.
  const posix_spawn_file_actions_t* actions() const { return ours_.__actions != nullptr ? &ours_ : actions_; }
  // What the program would have open cannot be carried: see Departure.
  bool is_impossible() const { return impossible_; }
  // Whether libc did.
  void end(bool spawned);

 private:
  struct Open;
  uint32_t find_open(Open* open) const;
  void follow(Open* open, uint32_t& count) const;
  void prepare(const Open* open, uint32_t count);
  void write_actions();

  const posix_spawn_file_actions_t* actions_;
  posix_spawn_file_actions_t ours_{};
  Leaving* list_ = nullptr;
  bool* closed_at_the_end_ = nullptr;
  uint32_t count_ = 0;
  bool impossible_ = false;
  Carrier carrier_;
};

}  // namespace sluice::preload
