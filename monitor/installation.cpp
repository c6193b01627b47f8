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

// From bindir to libdir, so that a tree that was moved or staged (DESTDIR) works as well.
fs::path installed_library_folder() {
  const fs::path prefix = SLUICE_PREFIX, libdir = prefix / SLUICE_LIBDIR;
  return own_folder() / libdir.lexically_relative(prefix / SLUICE_BINDIR);
}

}  // namespace

std::string find_library() {
  const char* name = "libsluice.so";
  return first_accessible({own_folder() / ".." / "preload" / name, installed_library_folder() / name,
                           fs::path(SLUICE_PREFIX) / SLUICE_LIBDIR / name},
                          R_OK);
}

std::string find_daemon() { return first_accessible({own_folder() / "sluiced"}, X_OK); }

}  // namespace sluice::monitor
