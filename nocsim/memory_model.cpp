#include "nocsim/memory_model.h"

namespace nocsim {

Cycle MemoryModel::over_lines(Node tile, const void* at, size_t bytes, bool stores) {
  if (!bytes) return 0;
  if (caches_[tile].l1.empty()) {
    caches_[tile].l1.resize(costs_.l1_lines);
    caches_[tile].l2.resize(costs_.l2_lines);
  }
  const auto first = reinterpret_cast<uintptr_t>(at) / kLineBytes;
  const auto last = (reinterpret_cast<uintptr_t>(at) + bytes - 1) / kLineBytes;
  Cycle cycles = 0;
  for (uintptr_t line = first; line <= last; ++line) {
    const uint32_t number = number_of(line);
    cycles += stores ? store_line(tile, number) : load_line(tile, number);
  }
  return cycles;
}

uint32_t MemoryModel::number_of(uintptr_t line) {
  const auto [it, is_new] = numbers_.try_emplace(line, static_cast<uint32_t>(lines_.size()));
  if (is_new) lines_.emplace_back();
  return it->second;
}

void MemoryModel::written_by_device(const void* at, size_t bytes) {
  if (!bytes) return;
  const auto first = reinterpret_cast<uintptr_t>(at) / kLineBytes;
  const auto last = (reinterpret_cast<uintptr_t>(at) + bytes - 1) / kLineBytes;
  for (uintptr_t at_line = first; at_line <= last; ++at_line) {
    Line& line = lines_[number_of(at_line)];
    line = {.touched = true, .version = line.version + 1};
  }
}

void MemoryModel::keep(Caches& caches, uint32_t number, uint32_t version) {
  caches.l1[number % caches.l1.size()] = {number, version};
  caches.l2[number % caches.l2.size()] = {number, version};
}

Cycle MemoryModel::load_line(Node tile, uint32_t number) {
  Line& line = lines_[number];
  Caches& caches = caches_[tile];
  const Copy& near = caches.l1[number % caches.l1.size()];
  if (near.line == number && near.version == line.version) return costs_.l1;
  const Copy& far = caches.l2[number % caches.l2.size()];
  const bool good = far.line == number && far.version == line.version;
  const Cycle cost = good ? costs_.l2 : line.touched ? costs_.remote : costs_.memory;
  // Its writer's own reading takes nothing from it.
  if (tile != line.writer && tile != line.reader) {
    line.many_readers = line.reader != kNobody;
    line.reader = tile;
  }
  line.touched = true;
  keep(caches, number, line.version);
  return cost;
}

Cycle MemoryModel::store_line(Node tile, uint32_t number) {
  Line& line = lines_[number];
  const bool alone = line.writer == tile && line.reader == kNobody;
  // Reading it for ownership; with the copies of others it is a remote access in any case.
  const bool read_by_others = line.many_readers || (line.reader != kNobody && line.reader != tile);
  const bool written_by_others = line.writer != kNobody && line.writer != tile;
  Cycle cost = load_line(tile, number);
  if (!alone && (read_by_others || written_by_others)) cost = costs_.remote;
  if (!alone) ++line.version;
  line.writer = tile;
  line.reader = kNobody;
  line.many_readers = false;
  keep(caches_[tile], number, line.version);
  return cost;
}

}  // namespace nocsim
