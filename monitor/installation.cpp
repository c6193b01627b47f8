#include "monitor/installation.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>

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

// From bindir to another folder, so that a tree that was moved or staged (DESTDIR) works as well.
fs::path installed_folder(const char* folder) {
  const fs::path prefix = SLUICE_PREFIX;
  return own_folder() / (prefix / folder).lexically_relative(prefix / SLUICE_BINDIR);
}

// Empty if this is no build directory.
fs::path source_folder() {
  std::ifstream file(own_folder() / ".." / "meson-info" / "meson-info.json");
  auto info = nlohmann::json::parse(file, nullptr, false);
  nlohmann::json::json_pointer source("/directories/source");
  return info.is_object() ? fs::path(info.value(source, "")) : fs::path();
}

}  // namespace

std::string find_library() {
  const char* name = "libsluice.so";
  return first_accessible({own_folder() / ".." / "preload" / name, installed_folder(SLUICE_LIBDIR) / name,
                           fs::path(SLUICE_PREFIX) / SLUICE_LIBDIR / name},
                          R_OK);
}

std::string find_daemon() { return first_accessible({own_folder() / "sluiced"}, X_OK); }

std::string find_bench_programs() {
  fs::path folder = first_accessible({own_folder() / ".." / "bench" / "pingpong",
                                      installed_folder(SLUICE_BENCHDIR) / "pingpong"},
                                     X_OK);
  return folder.parent_path().string();
}

std::string find_bench_script() {
  const char* name = "sluice-bench";
  return first_accessible({source_folder() / "bench" / name, installed_folder(SLUICE_BENCHDIR) / name}, R_OK);
}

}  // namespace sluice::monitor
