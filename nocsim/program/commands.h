// The program's commands. Each returns its exit status, or throws BadOption or CannotWrite.
#pragma once

#include <string>
#include <vector>

namespace nocsim::program {

using Arguments = std::vector<std::string>;

int sweep_command(const Arguments& arguments);
int zeroload_command(const Arguments& arguments);
int request_command(const Arguments& arguments);
int bench_command(const Arguments& arguments);
int profiles_command(const Arguments& arguments);

struct Command {
  const char* name;
  const char* meaning;
  int (*run)(const Arguments&);
};

}  // namespace nocsim::program
