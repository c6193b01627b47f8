#include "monitor/bench/rows.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <fstream>

namespace sluice::monitor::bench {

int write_rows(const std::string& name, const nlohmann::json& rows) {
  if (name.empty()) return 0;
  std::string text = rows.dump(1) + "\n";
  if (name == "-") return fputs(text.c_str(), stdout) < 0;
  std::ofstream file(name);
  file << text << std::flush;
  if (file) return 0;
  fprintf(stderr, "sluice: %s: %s\n", name.c_str(), strerror(errno));
  return 1;
}

}  // namespace sluice::monitor::bench
