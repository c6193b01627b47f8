// Which domains stand in some relation to which listeners, found from either side.
#pragma once

#include "monitor/core/limits.h"
#include "shm/layout.h"

namespace sluice::monitor::core {

template <class Payload, uint32_t kCapacity>
class Relation {
 public:
  struct Entry {
    shm::DomainId domain;
    Index listener;
    Payload payload;
    Index next_of_domain, previous_of_domain;
    Index next_of_listener, previous_of_listener;
  };

  // Null when the table is full.
  Entry* add(shm::DomainId domain, Index listener, const Payload& payload) {
    Index i = allocate();
    if (i == 0) return nullptr;
    Index first = of_domain_[domain], second = of_listener_[listener];
    entries_[i] = {domain, listener, payload, first, 0, second, 0};
    if (first != 0) entries_[first].previous_of_domain = i;
    if (second != 0) entries_[second].previous_of_listener = i;
    of_domain_[domain] = of_listener_[listener] = i;
    return &entries_[i];
  }

  void remove(Entry& e) {
    Index i = Index(&e - entries_);
    (e.previous_of_domain != 0 ? entries_[e.previous_of_domain].next_of_domain
                               : of_domain_[e.domain]) = e.next_of_domain;
    (e.previous_of_listener != 0 ? entries_[e.previous_of_listener].next_of_listener
                                 : of_listener_[e.listener]) = e.next_of_listener;
    if (e.next_of_domain != 0) entries_[e.next_of_domain].previous_of_domain = e.previous_of_domain;
    if (e.next_of_listener != 0)
      entries_[e.next_of_listener].previous_of_listener = e.previous_of_listener;
    e.next_of_domain = free_;
    free_ = i;
  }

  Entry* find(shm::DomainId domain, Index listener) {
    for (Entry* e = first_of_domain(domain); e != nullptr; e = next_of_domain(*e))
      if (e->listener == listener) return e;
    return nullptr;
  }

  Entry* first_of_domain(shm::DomainId domain) { return at(of_domain_[domain]); }
  Entry* next_of_domain(const Entry& e) { return at(e.next_of_domain); }
  Entry* first_of_listener(Index listener) { return at(of_listener_[listener]); }
  Entry* next_of_listener(const Entry& e) { return at(e.next_of_listener); }

 private:
  Entry* at(Index i) { return i == 0 ? nullptr : &entries_[i]; }
  Index allocate() {
    if (free_ == 0) return used_ + 1 < kCapacity ? ++used_ : 0;
    Index i = free_;
    free_ = entries_[i].next_of_domain;
    return i;
  }

  Index free_;
  Index used_;
  Index of_domain_[shm::kMaxDomains];
  Index of_listener_[kMaxListeners];
  Entry entries_[kCapacity];
};

}  // namespace sluice::monitor::core
