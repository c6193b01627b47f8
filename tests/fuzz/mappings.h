// What this process has mapped, as proc_pid_maps(5) tells it.
#pragma once

#include <stdio.h>
#include <string.h>

#include <cstddef>
#include <cstdint>

namespace sluice::fuzz {

struct Mapping {
  std::byte* base;
  std::size_t bytes;
  bool writable, shared;
  const char* line;  // the whole of it
  bool is_of(const char* name) const { return strstr(line, name) != nullptr; }
};

template <class F>
void each_mapping(F&& f) {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  while (maps != nullptr && fgets(line, sizeof line, maps) != nullptr) {
    uintptr_t begin, end;
    char rights[8];
    if (sscanf(line, "%lx-%lx %7s", &begin, &end, rights) != 3) continue;
    f(Mapping{reinterpret_cast<std::byte*>(begin), end - begin, rights[1] == 'w', rights[3] == 's', line});
  }
  if (maps != nullptr) fclose(maps);
}

}  // namespace sluice::fuzz
