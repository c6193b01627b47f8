#include "monitor/region_list.h"

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

namespace sluice::monitor {

std::string RegionList::json() const {
  using Json = nlohmann::json;
  Json domains = Json::array(), pairs = Json::array();
  // Those that live, and of the dead those from which they descend.
  std::set<DomainId> listed;
  for (DomainId living = shm::kCoordinator + 1; living < shm::kFirstInFlight; ++living) {
    if (core_.domain(living).presence == core::Presence::kAbsent) continue;
    for (DomainId d = living; core::DomainTable::is_valid(d) && listed.insert(d).second; d = core_.domain(d).parent) {
      const core::Domain& domain = core_.domain(d);
      // Of a child that has not said hello the process is not known.
      bool known = domain.presence == core::Presence::kPresent || domain.presence == core::Presence::kExpected;
      domains.push_back({{"domain", d}, {"pid", known ? domain.identity.pid : 0}, {"parent", domain.parent}});
    }
  }
  struct stat st {};
  fstat(directory_.fd(), &st);
  ino_t directory = st.st_ino;
  for (const auto& [key, region] : pairs_.all())
    if (fstat(region.fd.get(), &st) == 0)
      pairs.push_back({{"inode", st.st_ino}, {"writers", region.writers}, {"readers", region.readers}});
  tickets_.for_each_opposite([&](int fd, const PairKey& key, std::vector<DomainId> readers) {
    if (fstat(fd, &st) != 0) return;
    readers.push_back(key.writer);
    pairs.push_back({{"inode", st.st_ino}, {"writers", {key.reader}}, {"readers", readers}});
  });
  return Json{{"pid", getpid()},
              {"protect", options_.protect_name()},
              {"directory", directory},
              {"domains", domains},
              {"pairs", pairs}}
      .dump();
}

}  // namespace sluice::monitor
