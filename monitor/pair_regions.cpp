#include "monitor/pair_regions.h"

#include <sys/stat.h>

#include <algorithm>

namespace sluice::monitor {
namespace {

// A pair that forks again and again freezes a region each time; the oldest are let go, which
// costs nothing but their lines in `sluice ss`.
constexpr std::ptrdiff_t kMostGenerations = 8;

}  // namespace

bool PairRegions::is_valid(int fd, const PairKey& key) {
  shm::PairHeader h{};
  if (pread(fd, static_cast<void*>(&h), sizeof h, 0) != ssize_t(sizeof h)) return false;
  return h.magic == shm::kMagic && h.version == shm::kProtocolVersion && h.writer == key.writer &&
         h.reader == key.reader && h.generation == key.generation;
}

bool PairRegions::is_written_by(int fd, DomainId writer) {
  shm::PairHeader h{};
  if (pread(fd, static_cast<void*>(&h), sizeof h, 0) != ssize_t(sizeof h)) return false;
  return h.magic == shm::kMagic && h.version == shm::kProtocolVersion && h.writer == writer && h.reader == writer;
}

void PairRegions::add(const PairKey& key, Descriptor fd) {
  auto old = regions_.find(key);
  if (old != regions_.end()) erase(old);
  unanswered_ += is_answer(key) ? -1 : 1;
  regions_[key] = {std::move(fd), {key.writer}, {key.reader}};
  of_domain_[key.writer].push_back(key);
  if (key.reader != key.writer) of_domain_[key.reader].push_back(key);
  forget_oldest(key);
}

void PairRegions::forget_oldest(const PairKey& newest) {
  auto first = regions_.lower_bound({newest.writer, newest.reader, 0});
  auto end = regions_.upper_bound({newest.writer, newest.reader, UINT32_MAX});
  if (std::distance(first, end) > kMostGenerations) erase(first);
}

void PairRegions::inherit(DomainId child, DomainId parent) {
  auto found = of_domain_.find(parent);
  if (found == of_domain_.end()) return;
  std::vector<PairKey> keys = found->second;
  for (const PairKey& key : keys) {
    PairRegion& region = regions_[key];
    for (auto* side : {&region.writers, &region.readers})
      if (std::count(side->begin(), side->end(), parent) != 0) side->push_back(child);
  }
  of_domain_[child] = std::move(keys);
}

bool PairRegions::share(const PairKey& key, DomainId reader) {
  auto region = regions_.find(key);
  if (region == regions_.end()) return false;
  std::vector<DomainId>& readers = region->second.readers;
  if (std::count(readers.begin(), readers.end(), reader) != 0) return false;
  readers.push_back(reader);
  of_domain_[reader].push_back(key);
  return true;
}

void PairRegions::join(const PairKey& key, DomainId taker) {
  auto region = regions_.find(key);
  if (region != regions_.end()) {
    std::vector<DomainId>& writers = region->second.writers;
    if (std::count(writers.begin(), writers.end(), taker) == 0) {
      writers.push_back(taker);
      of_domain_[taker].push_back(key);
    }
  }
  (void)share({key.reader, key.writer, key.generation}, taker);
}

void PairRegions::remove(DomainId dead) {
  auto found = of_domain_.find(dead);
  if (found == of_domain_.end()) return;
  std::vector<PairKey> keys = std::move(found->second);
  of_domain_.erase(found);
  for (const PairKey& key : keys) {
    auto region = regions_.find(key);
    if (region == regions_.end()) continue;
    std::erase(region->second.writers, dead);
    std::erase(region->second.readers, dead);
    if (region->second.writers.empty() || region->second.readers.empty()) erase(region);
  }
}

std::vector<PairKey> PairRegions::read_by(DomainId reader) const {
  std::vector<PairKey> keys;
  auto found = of_domain_.find(reader);
  if (found == of_domain_.end()) return keys;
  for (const PairKey& key : found->second) {
    auto region = regions_.find(key);
    if (region == regions_.end()) continue;
    const std::vector<DomainId>& readers = region->second.readers;
    if (std::count(readers.begin(), readers.end(), reader) != 0) keys.push_back(key);
  }
  return keys;
}

void PairRegions::erase(std::map<PairKey, PairRegion>::iterator region) {
  for (auto* side : {&region->second.writers, &region->second.readers}) {
    for (DomainId holder : *side) {
      auto found = of_domain_.find(holder);
      if (found == of_domain_.end()) continue;
      std::erase(found->second, region->first);
      if (found->second.empty()) of_domain_.erase(found);
    }
  }
  unanswered_ += is_answer(region->first) ? 1 : -1;
  regions_.erase(region);
}

bool PairRegions::is_answer(const PairKey& key) const {
  return regions_.contains({key.reader, key.writer, key.generation});
}

uint64_t PairRegions::bytes_of(const PairRegion& region) {
  struct stat st;
  return fstat(region.fd.get(), &st) == 0 ? uint64_t(st.st_blocks) * 512 : 0;
}

const PairRegion* PairRegions::opposite(const PairKey& key) const {
  auto same = regions_.find({key.reader, key.writer, key.generation});
  if (same != regions_.end()) return &same->second;
  auto after = regions_.upper_bound({key.reader, key.writer, UINT32_MAX});
  if (after == regions_.begin()) return nullptr;
  const auto& [found, region] = *std::prev(after);
  return found.writer == key.reader && found.reader == key.writer ? &region : nullptr;
}

}  // namespace sluice::monitor
