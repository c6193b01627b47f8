// The policy file (TOML; docs/policy.md) becomes the core's table.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/core/policy.h"

namespace sluice::monitor {

struct PolicyFile {
  std::string path;
  std::unique_ptr<core::Policy> table;
  std::vector<std::string> names;  // of the rules, perhaps empty
};

// What is wrong, "FILE:LINE: reason" or, of the file as a whole, "FILE: reason"; empty: `out` is filled. Errors are
// told one at a time, the first one first.
std::string read_policy(const std::string& path, PolicyFile& out);
// The same of a text; `path` is only its name.
std::string parse_policy(std::string_view text, const std::string& path, PolicyFile& out);

}  // namespace sluice::monitor
