#include "monitor/audit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <unordered_map>
#include <vector>

#include "monitor/coordinator_link.h"
#include "monitor/descriptor.h"
#include "monitor/key_audit.h"
#include "monitor/process.h"
#include "shm/layout.h"

namespace sluice::monitor {
namespace {

using Json = nlohmann::ordered_json;
using shm::DomainId;

// ---- what the coordinator says ------------------------------------------------------------

struct Pair {
  std::set<DomainId> writers, readers;
};

class Known {
 public:
  explicit Known(const Json& j)
      : coordinator_(j.value("pid", 0)), sealed_(j.value("protect", "") != "none"), directory_(j.value("directory", ino_t{0})) {
    for (const Json& d : j["domains"]) {
      parents_[d["domain"]] = d["parent"];
      if (d["pid"] != 0) domains_[d["pid"]] = d["domain"];
    }
    for (const Json& p : j["pairs"]) {
      Pair& pair = pairs_[p["inode"]];
      for (const Json& d : p["writers"]) pair.writers.insert(d.get<DomainId>());
      for (const Json& d : p["readers"]) pair.readers.insert(d.get<DomainId>());
    }
  }
  pid_t coordinator() const { return coordinator_; }
  bool sealed() const { return sealed_; }
  ino_t directory() const { return directory_; }
  const Pair* pair(ino_t inode) const {
    auto found = pairs_.find(inode);
    return found == pairs_.end() ? nullptr : &found->second;
  }
  // kNobody: it is not known.
  DomainId domain_of(pid_t pid) const {
    auto found = domains_.find(pid);
    return found == domains_.end() ? shm::kNobody : found->second;
  }
  // Whether it is one of them, or was forked by one.
  bool descends(DomainId domain, const std::set<DomainId>& from) const {
    for (int generations = 0; generations < 64 && domain != shm::kNobody; ++generations) {
      if (from.contains(domain)) return true;
      auto parent = parents_.find(domain);
      domain = parent == parents_.end() ? shm::kNobody : parent->second;
    }
    return false;
  }

 private:
  pid_t coordinator_;
  bool sealed_;
  ino_t directory_;
  std::unordered_map<pid_t, DomainId> domains_;
  std::unordered_map<DomainId, DomainId> parents_;
  std::unordered_map<ino_t, Pair> pairs_;
};

// ---- what /proc says ----------------------------------------------------------------------

// A piece of a region in a process, or a descriptor of it.
struct Use {
  pid_t pid;
  ino_t inode;
  std::string kind;   // what follows "sluice-" in its name
  std::string place;  // in /proc/PID
  bool mapped, writable;
};

std::string path_of(pid_t pid, const std::string& file) { return "/proc/" + std::to_string(pid) + "/" + file; }

std::vector<std::string> entries_of(const std::string& directory) {
  std::vector<std::string> names;
  DIR* d = opendir(directory.c_str());
  if (d == nullptr) return names;
  while (dirent* e = readdir(d))
    if (e->d_name[0] != '.') names.emplace_back(e->d_name);
  closedir(d);
  return names;
}

std::vector<pid_t> processes() {
  std::vector<pid_t> pids;
  for (const std::string& name : entries_of("/proc"))
    if (int pid = atoi(name.c_str()); pid > 0) pids.push_back(pid);
  return pids;
}

pid_t parent_of(pid_t pid) {
  std::ifstream file(path_of(pid, "stat"));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::size_t name = text.rfind(')');
  int parent = 0;
  if (name != std::string::npos) sscanf(text.c_str() + name + 1, " %*c %d", &parent);
  return parent;
}

constexpr std::string_view kMark = "/memfd:sluice-";

// "pair" of "/memfd:sluice-pair (deleted)"; empty: none of ours.
std::string kind_in(const std::string& name) {
  if (!name.starts_with(kMark)) return {};
  return name.substr(kMark.size(), name.find(' ', kMark.size()) - kMark.size());
}

// Where memfds are: inodes of other file systems mean nothing.
dev_t device_of_memory() {
  static const dev_t device = [] {
    Descriptor fd(memfd_create("sluice", MFD_CLOEXEC));
    struct stat st {};
    return fd && fstat(fd.get(), &st) == 0 ? st.st_dev : dev_t{0};
  }();
  return device;
}

// What /proc shows there may be something else by now, whose opening would wait.
Descriptor open_at(pid_t pid, const std::string& place) {
  return Descriptor(open(path_of(pid, place).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

void add_mappings(pid_t pid, std::vector<Use>& uses) {
  std::ifstream maps(path_of(pid, "maps"));
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string range, access, offset, device, name;
    ino_t inode;
    if (!(words >> range >> access >> offset >> device >> inode >> std::ws) || !std::getline(words, name)) continue;
    unsigned major, minor;
    std::string kind = kind_in(name);
    if (kind.empty() || sscanf(device.c_str(), "%x:%x", &major, &minor) != 2) continue;
    if (makedev(major, minor) == device_of_memory())
      uses.push_back({pid, inode, kind, "map_files/" + range, true, access.size() > 1 && access[1] == 'w'});
  }
}

void add_descriptors(pid_t pid, std::vector<Use>& uses) {
  for (const std::string& fd : entries_of(path_of(pid, "fd"))) {
    char target[256];
    ssize_t n = readlink(path_of(pid, "fd/" + fd).c_str(), target, sizeof target);
    std::string kind = n > 0 ? kind_in(std::string(target, std::size_t(n))) : std::string();
    struct stat st;
    if (kind.empty() || stat(path_of(pid, "fd/" + fd).c_str(), &st) != 0 || st.st_dev != device_of_memory()) continue;
    uses.push_back({pid, st.st_ino, kind, "fd/" + fd, false, false});
  }
}

// As its header has it; empty if that cannot be seen.
Pair pair_in(const Use& u) {
  shm::PairHeader h{};
  Descriptor fd = open_at(u.pid, u.place);
  if (!fd || pread(fd.get(), static_cast<void*>(&h), sizeof h, 0) != ssize_t(sizeof h) || h.magic != shm::kMagic) return {};
  return {{h.writer}, {h.reader}};
}

// ---- the rules ----------------------------------------------------------------------------

// A client's region and its replies name no domain: who maps them must be one process and what it forked.
class Judge {
 public:
  Judge(const Known& known, const std::vector<Use>& uses) : known_(known) {
    for (const Use& u : uses)
      if (u.kind == "directory" && u.mapped) clients_.insert(u.pid);
    for (const Use& u : uses)
      if ((u.kind == "replies" || u.kind == "client") && u.mapped && u.pid != known.coordinator()) owners_[u.inode].insert(u.pid);
  }

  // What is wrong with it, or empty.
  std::string judge(const Use& u) const {
    bool own = u.pid == known_.coordinator();
    if (u.kind == "pair") return judge_pair(u, own);
    if (u.kind == "client") return own ? no_write(u) : one_family(u);
    if (u.kind == "replies") return own ? "" : !no_write(u).empty() ? no_write(u) : one_family(u);
    if (u.kind == "directory") return own || u.inode != known_.directory() ? "" : no_write(u);
    return {};  // requests, passed, channel, handoff: several may write these, by design (docs/security.md)
  }

 private:
  static std::string no_write(const Use& u) { return u.writable ? "can write what is another's" : ""; }

  std::string judge_pair(const Use& u, bool own) const {
    if (own) return u.mapped ? "the coordinator maps it" : "";
    const Pair* listed = known_.pair(u.inode);
    Pair pair = listed != nullptr ? *listed : pair_in(u);
    if (pair.writers.empty()) return {};
    // Not listed is what is between a process and itself; and what an earlier coordinator introduced, of which
    // this one does not know to whom it was passed on, and those may not have turned to it yet.
    if (listed == nullptr && pair.writers != pair.readers && clients_.contains(u.pid)) return {};
    if (is_of(u.pid, pair.writers)) return {};
    if (!is_of(u.pid, pair.readers)) return u.mapped ? "maps what is between two others" : "holds what is between two others";
    return no_write(u);
  }
  // Itself, or forked by one of them; as the coordinator knows, or the kernel of one that it does not.
  bool is_of(pid_t pid, const std::set<DomainId>& domains) const {
    for (int generations = 0; generations < 64 && pid > 1; ++generations, pid = parent_of(pid))
      if (DomainId d = known_.domain_of(pid); d != shm::kNobody) return known_.descends(d, domains);
    return false;
  }
  // All who have it so must descend from one process.
  std::string one_family(const Use& u) const {
    auto found = owners_.find(u.inode);
    if (!u.mapped || found == owners_.end() || found->second.size() < 2) return {};
    std::set<DomainId> others;
    for (pid_t pid : found->second)
      if (DomainId d = known_.domain_of(pid); pid != u.pid && d != shm::kNobody) others.insert(d);
    DomainId own = known_.domain_of(u.pid);
    if (is_of(u.pid, others)) return {};
    bool is_ancestor = own != shm::kNobody && std::all_of(others.begin(), others.end(), [&](DomainId d) { return known_.descends(d, {own}); });
    return is_ancestor ? "" : "has what is another's";
  }

  const Known& known_;
  std::set<pid_t> clients_;  // of any coordinator
  std::map<ino_t, std::set<pid_t>> owners_;  // who maps a client's region or its replies
};

// What is missing in the seals of a region that only its writer is to write. Empty as well if they cannot be seen.
std::string missing_seals(const Use& u) {
  Descriptor fd = open_at(u.pid, u.place);
  int seals = fd ? fcntl(fd.get(), F_GET_SEALS) : -1;
  if (seals < 0) return {};
  std::string missing;
  for (auto [seal, name] : {std::pair{F_SEAL_SHRINK, "shrink"}, {F_SEAL_GROW, "grow"}, {F_SEAL_SEAL, "seal"}, {F_SEAL_FUTURE_WRITE, "future_write"}})
    if ((seals & seal) == 0) missing += std::string(missing.empty() ? "is not sealed against " : ", ") + name;
  return missing;
}

bool is_to_be_sealed(const std::string& kind) {
  return kind == "pair" || kind == "client" || kind == "replies" || kind == "directory";
}

// ---- looking ------------------------------------------------------------------------------

struct Findings {
  std::size_t processes = 0, regions = 0, mappings = 0, sealed = 0, keyed = 0;
  std::map<StrayInstruction, std::size_t> stray;  // in how many processes
  // By what stays the same when it is looked at again.
  std::map<std::string, Json> wrong;
};

void note(Findings& f, const Use& u, const std::string& what) {
  std::string id = std::to_string(u.pid) + " " + std::to_string(u.inode) + " " + what;
  f.wrong[id] = {{"pid", u.pid}, {"command", command_of(u.pid)}, {"region", u.kind}, {"inode", u.inode}, {"where", u.place}, {"what", what}};
}

// All that concerns this coordinator: memory that somebody has who reads its directory.
std::vector<Use> uses_of(const Known& known) {
  std::vector<Use> uses;
  for (pid_t pid : processes()) {
    add_mappings(pid, uses);
    add_descriptors(pid, uses);
  }
  std::set<pid_t> clients;
  std::set<ino_t> ours;
  for (const Use& u : uses)
    if (u.inode == known.directory()) clients.insert(u.pid);
  for (const Use& u : uses)
    if (clients.contains(u.pid)) ours.insert(u.inode);
  std::erase_if(uses, [&](const Use& u) { return u.kind != "directory" && !ours.contains(u.inode); });
  return uses;
}

// --protect=keys: a process that has begun with it has no region without.
void look_at_keys(pid_t pid, Findings& f) {
  KeyUse use = key_use_of(pid);
  f.keyed += use.keyed;
  for (const StrayInstruction& s : use.stray) ++f.stray[s];
  for (const std::string& place : use.open_regions)
    f.wrong[std::to_string(pid) + " " + place] = {{"pid", pid}, {"command", command_of(pid)}, {"region", "any"}, {"inode", 0}, {"where", place}, {"what", "has no key"}};
}

Findings look(const Known& known) {
  Findings f;
  std::vector<Use> uses = uses_of(known);
  std::set<pid_t> involved;
  Judge judge(known, uses);
  std::set<ino_t> regions;
  for (const Use& u : uses) {
    if (u.kind == "directory" && u.inode != known.directory()) continue;
    involved.insert(u.pid);
    f.mappings += u.mapped;
    std::string what = judge.judge(u);
    if (!what.empty()) note(f, u, what);
    if (!regions.insert(u.inode).second || !is_to_be_sealed(u.kind) || !known.sealed()) continue;
    std::string missing = missing_seals(u);
    // One that its maker has not handed out may be on its way to be sealed.
    if (!missing.empty() && (u.kind != "pair" || known.pair(u.inode) != nullptr)) note(f, u, missing);
    f.sealed += missing.empty();
  }
  for (pid_t pid : involved)
    if (pid != known.coordinator()) look_at_keys(pid, f);
  f.processes = involved.size();
  f.regions = regions.size();
  return f;
}

// Processes come and go while they are looked at: what is wrong is wrong each time.
constexpr int kLooks = 3;

bool look_again(const AuditOptions& o, Findings& f) {
  std::map<std::string, Json> wrong;
  for (int looks = 0; looks < kLooks; ++looks) {
    Answer answer = ask(o.directory, shm::kRegions);
    if (answer.outcome != Outcome::kAnswered) {
      fprintf(stderr, "sluice: %s\n", explain(answer.outcome, o.directory).c_str());
      return false;
    }
    Json j = Json::parse(answer.text, nullptr, false);
    if (j.is_discarded()) return false;
    f = look(Known(j));
    if (looks > 0) std::erase_if(f.wrong, [&](const auto& finding) { return !wrong.contains(finding.first); });
    wrong = f.wrong;
    if (wrong.empty()) break;
  }
  return true;
}

}  // namespace

int audit(const AuditOptions& o) {
  Findings f;
  if (!look_again(o, f)) return 1;
  Json wrong = Json::array();
  for (const auto& [id, finding] : f.wrong) wrong.push_back(finding);
  if (o.json) {
    Json stray = Json::array();
    for (const auto& [s, count] : f.stray) stray.push_back({{"file", s.file}, {"offset", s.offset}, {"instruction", s.name}, {"processes", count}});
    Json j = {{"processes", f.processes}, {"regions", f.regions}, {"mappings", f.mappings}, {"sealed", f.sealed},
              {"keyed", f.keyed}, {"stray", stray}, {"violations", wrong}};
    puts(j.dump(2).c_str());
  } else {
    printf("%zu processes, %zu regions, %zu mappings, %zu of the regions sealed: %zu violations\n", f.processes, f.regions,
           f.mappings, f.sealed, wrong.size());
    for (const Json& w : wrong)
      printf("%s/%d, %s: region \"%s\", inode %lu: %s\n", w["command"].get<std::string>().c_str(), w["pid"].get<int>(),
             w["where"].get<std::string>().c_str(), w["region"].get<std::string>().c_str(), w["inode"].get<unsigned long>(),
             w["what"].get<std::string>().c_str());
    if (f.keyed > 0) printf("%zu processes with keys; instructions in them that change rights, besides the library's:\n", f.keyed);
    for (const auto& [s, count] : f.stray)
      printf("  %s+%#lx: %s (in %zu)\n", s.file.c_str(), s.offset, s.name.c_str(), count);
  }
  return wrong.empty() ? 0 : 1;
}

}  // namespace sluice::monitor
