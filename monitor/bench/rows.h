// The rows that a benchmark writes for other programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace sluice::monitor::bench {

// To a file, or for - to standard output; for an empty name nowhere. Returns the exit status, and says on stderr
// what went wrong.
int write_rows(const std::string& file, const nlohmann::json& rows);

}  // namespace sluice::monitor::bench
