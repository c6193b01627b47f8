// Where the other programs and the shim are: beside this one in a build directory, or installed.
#pragma once

#include <string>

namespace sluice::monitor {

// Empty when there is none.
std::string find_library();  // libsluice.so
std::string find_daemon();   // sluiced

}  // namespace sluice::monitor
