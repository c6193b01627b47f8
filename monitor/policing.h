// The policy in force: read from its file at the start, and again when told to.
#pragma once

#include <random>

#include "monitor/core/coordinator_core.h"
#include "monitor/directory.h"
#include "monitor/options.h"
#include "monitor/policy_file.h"

namespace sluice::monitor {

class Policing {
 public:
  Policing(const Options& options, core::CoordinatorCore& core, DirectoryRegion& directory)
      : options_(options), core_(core), directory_(directory) {}

  // What is wrong with the file, or empty.
  std::string start();
  // A file that is wrong now is logged, and the old policy holds on.
  void reload();

  // Null: no file.
  const PolicyFile* file() const { return file_.table != nullptr ? &file_ : nullptr; }

 private:
  void enforce();

  const Options& options_;
  core::CoordinatorCore& core_;
  DirectoryRegion& directory_;
  PolicyFile file_;
  // Numbers of an earlier coordinator are others.
  uint32_t number_ = std::random_device()();
};

}  // namespace sluice::monitor
