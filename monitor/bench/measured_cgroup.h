// A cgroup (v2) of the benchmark's own, below that of the caller, for the programs of one run. The process that
// makes it is in it, so that one that is empty is a dead process's: the next run removes it.
#pragma once

#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor::bench {

class MeasuredCgroup {
 public:
  ~MeasuredCgroup();
  // What went wrong, or empty.
  std::string create();
  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }

 private:
  std::string parent_, path_;
  Descriptor fd_;
};

}  // namespace sluice::monitor::bench
