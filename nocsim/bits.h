// Sets of up to 64 members in a word, and sets of nodes in many words.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace nocsim {

constexpr uint64_t bit(int i) { return uint64_t{1} << i; }
constexpr int lowest(uint64_t set) { return std::countr_zero(set); }

// The first member at or after `next`, going round. `set` is not empty, next < 64.
constexpr int round_robin(uint64_t set, int next) {
  const uint64_t from_next = set & (~uint64_t{0} << next);
  return lowest(from_next ? from_next : set);
}

template <typename F>
[[gnu::always_inline]] inline void for_each_bit(uint64_t set, F&& f) {
  for (; set; set &= set - 1) f(lowest(set));
}

class NodeSet {
 public:
  explicit NodeSet(uint32_t nodes = 0) : words_((nodes + 63) / 64) {}

  void add(uint32_t node) { words_[node / 64] |= bit(node % 64); }
  void remove(uint32_t node) { words_[node / 64] &= ~bit(node % 64); }
  bool has(uint32_t node) const { return words_[node / 64] >> (node % 64) & 1; }
  bool empty() const {
    for (uint64_t word : words_)
      if (word) return false;
    return true;
  }

  // In ascending order. `f` may remove the member that it is called with.
  template <typename F>
  void for_each(F&& f) const {
    for (uint32_t w = 0; w < words_.size(); ++w)
      for_each_bit(words_[w], [&](int i) { f(w * 64 + i); });
  }

  // Calls f for each member and empties the set.
  template <typename F>
  void drain(F&& f) {
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const uint64_t members = words_[w];
      words_[w] = 0;
      for_each_bit(members, [&](int i) { f(w * 64 + i); });
    }
  }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace nocsim
