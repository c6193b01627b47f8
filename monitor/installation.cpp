#include "monitor/installation.h"

#include <unistd.h>

#include <filesystem>
#include <initializer_list>

namespace sluice::monitor {
namespace {

namespace fs = std::filesystem;

fs::path own_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

std::string first_accessible(std::initializer_list<fs::path> paths, int access_mode) {
  for (const fs::path& path : paths)
    if (access(path.c_str(), access_mode) == 0) return path.lexically_normal().string();
  return {};
}

}  // namespace

std::string find_library() {
  return first_accessible({own_folder() / ".." / "preload" / "libsluice.so", SLUICE_LIBRARY}, R_OK);
}

std::string find_daemon() { return first_accessible({own_folder() / "sluiced"}, X_OK); }

}  // namespace sluice::monitor
