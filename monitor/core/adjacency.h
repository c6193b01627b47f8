// Which domains share regions, and so must hear of each other's death. An undirected graph.
#pragma once

#include "monitor/core/limits.h"
#include "shm/layout.h"

namespace sluice::monitor::core {

template <uint32_t kCapacity>
class Adjacency {
 public:
  uint32_t degree(shm::DomainId d) const { return degree_[d]; }

  bool are_neighbours(shm::DomainId a, shm::DomainId b) const {
    if (degree_[a] > degree_[b]) return are_neighbours(b, a);
    for (Index i = first_[a]; i != 0; i = halves_[i].next)
      if (halves_[i].to == b) return true;
    return false;
  }

  // False when the table is full. a != b.
  [[nodiscard]] bool connect(shm::DomainId a, shm::DomainId b) {
    return are_neighbours(a, b) || add(a, b);
  }

  // Makes `child`, which has no neighbours, a neighbour of `parent` and of all its neighbours.
  [[nodiscard]] bool inherit(shm::DomainId child, shm::DomainId parent) {
    for (Index i = first_[parent]; i != 0; i = halves_[i].next)
      if (!add(child, halves_[i].to)) return false;
    return add(child, parent);
  }

  // Takes one neighbour of `d` away and returns it; kNobody when there is none left.
  shm::DomainId take_neighbour(shm::DomainId d) {
    Index i = first_[d];
    if (i == 0) return shm::kNobody;
    shm::DomainId neighbour = halves_[i].to;
    unlink(d, i);
    unlink(neighbour, twin(i));
    halves_[i & ~1u].next = free_;
    free_ = i & ~1u;
    return neighbour;
  }

 private:
  // An edge is two halves side by side, each in the list of the domain it starts from.
  struct Half {
    shm::DomainId to;
    Index next, previous;
  };
  static Index twin(Index i) { return i ^ 1; }

  bool add(shm::DomainId a, shm::DomainId b) {
    Index i = allocate();
    if (i == 0) return false;
    link(a, i, b);
    link(b, twin(i), a);
    return true;
  }
  Index allocate() {
    // The pair at 0 stays unused: 0 is none.
    if (free_ == 0) return used_ + 1 < kCapacity ? 2 * ++used_ : 0;
    Index i = free_;
    free_ = halves_[i].next;
    return i;
  }
  void link(shm::DomainId from, Index i, shm::DomainId to) {
    Index first = first_[from];
    halves_[i] = {to, first, 0};
    if (first != 0) halves_[first].previous = i;
    first_[from] = i;
    ++degree_[from];
  }
  void unlink(shm::DomainId from, Index i) {
    Half& h = halves_[i];
    (h.previous != 0 ? halves_[h.previous].next : first_[from]) = h.next;
    if (h.next != 0) halves_[h.next].previous = h.previous;
    --degree_[from];
  }

  Index free_;
  Index used_;
  Index first_[shm::kMaxDomains];
  uint32_t degree_[shm::kMaxDomains];
  Half halves_[2 * kCapacity];
};

}  // namespace sluice::monitor::core
