// sluice audit: looks from outside, in /proc, whether memory of one process can be written by another.
#pragma once

#include <string>

namespace sluice::monitor {

struct AuditOptions {
  std::string directory;
  bool json = false;
};

// 0: nothing is wrong; 1: something is, or there is no coordinator; each in a line.
int audit(const AuditOptions& options);

}  // namespace sluice::monitor
