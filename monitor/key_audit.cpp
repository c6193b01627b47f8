#include "monitor/key_audit.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "monitor/descriptor.h"
#include "shm/key_instructions.h"

namespace sluice::monitor {
namespace {

struct Mapping {
  std::uint64_t begin, end, offset;
  bool executable;
  std::string range, name;
  int key;
};

bool is_region(const Mapping& m) { return m.name.starts_with("/memfd:sluice-"); }

std::string path_of(pid_t pid, const char* file) { return "/proc/" + std::to_string(pid) + "/" + file; }

// proc(5), smaps: a line for each mapping, and below it lines "Name: value".
std::vector<Mapping> mappings_of(pid_t pid) {
  std::vector<Mapping> all;
  std::ifstream smaps(path_of(pid, "smaps"));
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream words(line);
    std::string first, second, device, inode;
    words >> first >> second;
    if (first == "ProtectionKey:" && !all.empty()) all.back().key = std::stoi(second);
    std::size_t dash = first.find('-');
    if (first.ends_with(':') || dash == std::string::npos || second.size() < 4) continue;
    Mapping m{};
    m.begin = std::stoull(first.substr(0, dash), nullptr, 16);
    m.end = std::stoull(first.substr(dash + 1), nullptr, 16);
    m.executable = second[2] == 'x';
    m.range = first;
    words >> std::hex >> m.offset >> device >> inode >> std::ws;
    std::getline(words, m.name);
    all.push_back(m);
  }
  return all;
}

void find_stray(int memory, const Mapping& m, std::set<StrayInstruction>& stray) {
  constexpr std::size_t kPiece = 1 << 20, kOverlap = shm::kKeyInstructionBytes - 1;
  std::vector<std::uint8_t> code(kPiece + kOverlap);
  for (std::uint64_t at = m.begin; at < m.end; at += kPiece) {
    ssize_t n = pread(memory, code.data(), std::min<std::uint64_t>(code.size(), m.end - at), off_t(at));
    if (n <= 0) return;
    shm::find_key_instructions(code.data(), std::size_t(n), [&](std::size_t i, shm::KeyInstruction k) {
      bool in_file = !m.name.empty() && m.name[0] == '/';
      stray.insert({in_file ? m.name : "[anonymous]", (in_file ? m.offset + (at - m.begin) : at) + i,
                    k == shm::KeyInstruction::kWrpkru ? "wrpkru" : "xrstor"});
    });
  }
}

// The library that has the key: variables with it follow its code.
std::set<std::string> keyed_files(const std::vector<Mapping>& mappings) {
  std::set<std::string> files;
  int key = 0;  // its; the program may have others
  for (const Mapping& m : mappings)
    if (is_region(m) && m.key != 0) key = m.key;
  for (const Mapping& m : mappings)
    if (m.key != 0 && m.key == key && !m.name.empty() && m.name[0] == '/' && !is_region(m)) files.insert(m.name);
  return files;
}

}  // namespace

KeyUse key_use_of(pid_t pid) {
  KeyUse use;
  std::vector<Mapping> mappings = mappings_of(pid);
  for (const Mapping& m : mappings) use.keyed |= is_region(m) && m.key != 0;
  if (!use.keyed) return use;
  std::set<std::string> own = keyed_files(mappings);
  Descriptor memory(open(path_of(pid, "mem").c_str(), O_RDONLY | O_CLOEXEC));
  for (const Mapping& m : mappings) {
    if (is_region(m) && m.key == 0) use.open_regions.push_back("map_files/" + m.range);
    if (memory && m.executable && !own.contains(m.name)) find_stray(memory.get(), m, use.stray);
  }
  return use;
}

}  // namespace sluice::monitor
