// What `sluice audit` sees of --protect=keys: which memory of a process has a key, and who could change a thread's rights to it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace sluice::monitor {

// An instruction that changes rights, and is not the library's.
struct StrayInstruction {
  std::string file;  // or [anonymous]
  std::uint64_t offset;  // in the file; of what is in none, the address
  std::string name;
  auto operator<=>(const StrayInstruction&) const = default;
};

struct KeyUse {
  bool keyed = false;  // some of its regions have a key
  std::vector<std::string> open_regions;  // places in /proc/PID of mapped regions that have none
  std::set<StrayInstruction> stray;
};

// Of a process that may end while it is looked at.
KeyUse key_use_of(pid_t pid);

}  // namespace sluice::monitor
