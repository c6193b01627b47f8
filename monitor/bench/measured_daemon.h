// A coordinator of the benchmark's own, in a directory that goes with it, and what the CPU counts of it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor::bench {

class MeasuredDaemon {
 public:
  ~MeasuredDaemon();
  // What went wrong, or empty. `cpu`: -1 for any.
  std::string start(const std::string& queues, const std::string& poll, int cpu);
  const std::string& directory() const { return directory_; }
  pid_t pid() const { return pid_; }

  void begin_counting();
  void end_counting();
  // Of the process since begin_counting(). Where perf_event_open(2) counts no cycles they are its CPU time, in
  // ticks of the time stamp counter; empty where there is neither. Cache misses: empty where they are not counted.
  std::optional<uint64_t> cycles() const { return cycles_.value ? cycles_.value : ticks_; }
  bool counts_cycles() const { return cycles_.value.has_value(); }
  std::optional<uint64_t> cache_misses() const { return misses_.value; }

 private:
  struct Counter {
    Descriptor fd;
    std::optional<uint64_t> value;
  };
  static void open(Counter& c, pid_t pid, uint64_t what);
  static void read(Counter& c);
  std::string directory_;
  pid_t pid_ = -1;
  Counter cycles_, misses_;
  std::optional<uint64_t> ticks_;
  uint64_t ticks_at_begin_ = 0, cpu_ns_at_begin_ = 0, ns_at_begin_ = 0;
};

}  // namespace sluice::monitor::bench
