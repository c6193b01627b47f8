// Where the other programs and the shim are: beside this one in a build directory, or installed.
#pragma once

#include <string>

namespace sluice::monitor {

// Empty when there is none.
std::string find_library();  // libsluice.so
std::string find_daemon();   // sluiced
// What `sluice bench` is made of: the folder of the benchmark programs, and the script that runs them, which
// for a build directory is in its sources.
std::string find_bench_programs();
std::string find_bench_script();

}  // namespace sluice::monitor
