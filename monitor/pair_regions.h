// The regions between domains, as far as the coordinator has seen them: descriptors only.
//
// They are never mapped here: a read through a mapping would allocate the pages of a sparse
// region, a read(2) does not. A region is let go as soon as one side has no process left, or its
// memory would outlive both.
#pragma once

#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "monitor/descriptor.h"
#include "shm/layout.h"

namespace sluice::monitor {

using shm::DomainId;

struct PairKey {
  DomainId writer, reader;
  uint32_t generation;
  auto operator<=>(const PairKey&) const = default;
};

struct PairRegion {
  Descriptor fd;
  // Who lives with either side's mapping: the domain itself, and children forked since.
  std::vector<DomainId> writers, readers;
};

class PairRegions {
 public:
  // Whether the header of the region says what `key` says.
  static bool is_valid(int fd, const PairKey& key);
  // Whether it is one between a process and itself.
  static bool is_written_by(int fd, DomainId writer);
  void add(const PairKey& key, Descriptor fd);
  // A child of `parent` shares what the parent has now.
  void inherit(DomainId child, DomainId parent);
  // `reader` reads this region too. False if it did already, or the region is gone.
  bool share(const PairKey& key, DomainId reader);
  // `taker` was passed a connection of the pair: it writes this region's side, and reads the other.
  void join(const PairKey& key, DomainId taker);
  void remove(DomainId dead);
  std::vector<PairKey> read_by(DomainId reader) const;

  std::size_t count() const { return regions_.size(); }
  // Of memory in use; of those whose writer is chosen.
  template <class Chosen>
  uint64_t bytes(Chosen chosen) const {
    uint64_t sum = 0;
    for (const auto& [key, region] : regions_)
      if (chosen(key.writer)) sum += bytes_of(region);
    return sum;
  }
  uint64_t bytes() const {
    return bytes([](DomainId) { return true; });
  }
  // The region from `reader` back to `writer`: of the same generation, else the newest.
  const PairRegion* opposite(const PairKey& key) const;
  const std::map<PairKey, PairRegion>& all() const { return regions_; }
  bool is_answer(const PairKey& key) const;
  // Descriptors that the pairs hold, and will when every region has been answered by another.
  std::size_t descriptors() const { return regions_.size() + unanswered_; }

 private:
  static uint64_t bytes_of(const PairRegion& region);
  void forget_oldest(const PairKey& newest);
  void erase(std::map<PairKey, PairRegion>::iterator region);

  std::map<PairKey, PairRegion> regions_;
  std::size_t unanswered_ = 0;
  std::unordered_map<DomainId, std::vector<PairKey>> of_domain_;
};

}  // namespace sluice::monitor
