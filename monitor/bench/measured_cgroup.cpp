#include "monitor/bench/measured_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace sluice::monitor::bench {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "sluice-bench.";
constexpr int kPatienceMs = 5000;  // for programs that are about to leave the cgroup

// From proc(5), mountinfo: the fifth field is the mount point, the type comes after a dash.
std::string mount_point() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string word, point;
    for (int i = 0; i < 5; ++i) fields >> point;
    while (fields >> word && word != "-") {
    }
    if (fields >> word && word == "cgroup2") return point;
  }
  return {};
}

// "/..." of "0::/...", cgroups(7); empty for the root, and for one outside of our namespace.
std::string own_cgroup() {
  std::ifstream cgroups("/proc/self/cgroup");
  for (std::string line; std::getline(cgroups, line);)
    if (line.rfind("0::", 0) == 0 && line.find("/..") == std::string::npos) return line.size() > 4 ? line.substr(3) : "";
  return {};
}

bool join(const std::string& cgroup) {
  std::ofstream file(cgroup + "/cgroup.procs");
  file << getpid() << std::flush;
  return bool(file);
}

// A cgroup with processes in it is not removed.
void remove_abandoned(const std::string& parent) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored))
    if (entry.path().filename().string().rfind(kPrefix, 0) == 0) rmdir(entry.path().c_str());
}

}  // namespace

std::string MeasuredCgroup::create() {
  std::string mount = mount_point();
  if (mount.empty()) return "no cgroup v2 is mounted";
  parent_ = mount + own_cgroup();
  remove_abandoned(parent_);
  std::string path = parent_ + "/" + kPrefix + std::to_string(getpid());
  if (mkdir(path.c_str(), 0755) != 0) return path + ": " + strerror(errno);
  path_ = path;
  if (!join(path_)) return path_ + "/cgroup.procs: " + strerror(errno);
  fd_ = Descriptor(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd_ ? "" : path_ + ": " + strerror(errno);
}

MeasuredCgroup::~MeasuredCgroup() {
  if (path_.empty()) return;
  fd_.close();
  join(parent_);
  for (int ms = 0; ms < kPatienceMs && rmdir(path_.c_str()) != 0 && errno == EBUSY; ms += 10)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace sluice::monitor::bench
