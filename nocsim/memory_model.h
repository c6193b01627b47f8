// What loads and stores cost, in a model as simple as it can honestly be.
//
// Memory is lines of 64 bytes. Each tile has an L1 and an L2, direct-mapped, write-back; a line
// knows who wrote it last, and a version that every store by somebody new, or after somebody else
// has read it, raises. A copy is good while it has the line's version. A load costs L1 or L2 if
// there is a good copy; else a remote access if another tile has ever touched the line, else one to
// memory. A store costs L1 if this tile wrote last and nobody has read since; else what a load
// would cost with the copies of others gone.
//
// Lines are numbered in the order in which they are first touched, so the figures do not depend on
// where the host puts things (beyond how they lie in lines: align what you share). Values are the
// host's own memory: every store is seen at once, so programs run under a stronger order than the
// hardware's. A missing fence is counted (Tile::Counts), not felt. Not modelled: associativity, the
// home tile's distance, bandwidth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "nocsim/geometry.h"

namespace nocsim {

struct MemoryCosts {
  int l1 = 2;  // load to use; GCC's model of the TILE-Gx has these four
  int l2 = 11;
  int remote = 50;
  int memory = 80;
  int l1_lines = 512;   // assumed: 32 KiB
  int l2_lines = 4096;  // assumed: 256 KiB
};

class MemoryModel {
 public:
  static constexpr int kLineBytes = 64;

  MemoryModel(int tiles, const MemoryCosts& costs) : costs_(costs), caches_(tiles) {}

  // Cycles until all lines of it are there.
  Cycle load(Node tile, const void* at, size_t bytes) { return over_lines(tile, at, bytes, false); }
  Cycle store(Node tile, const void* at, size_t bytes) { return over_lines(tile, at, bytes, true); }
  // A device has written it: no tile's copy is good any more, and it costs no tile anything.
  void written_by_device(const void* at, size_t bytes);
  const MemoryCosts& costs() const { return costs_; }

 private:
  static constexpr Node kNobody = ~Node{0};
  struct Line {
    Node writer = kNobody;
    Node reader = kNobody;  // the one that read the version first
    bool many_readers = false;
    bool touched = false;
    uint32_t version = 0;
  };
  struct Copy {
    uint32_t line = ~uint32_t{0};
    uint32_t version = 0;
  };
  struct Caches {
    std::vector<Copy> l1, l2;  // empty until the tile touches memory
  };

  uint32_t number_of(uintptr_t line);
  Cycle over_lines(Node tile, const void* at, size_t bytes, bool stores);
  Cycle load_line(Node tile, uint32_t number);
  Cycle store_line(Node tile, uint32_t number);
  void keep(Caches& caches, uint32_t number, uint32_t version);

  MemoryCosts costs_;
  std::unordered_map<uintptr_t, uint32_t> numbers_;
  std::vector<Line> lines_;
  std::vector<Caches> caches_;
};

}  // namespace nocsim
