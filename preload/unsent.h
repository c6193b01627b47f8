// Requests without a reply that found the request queue full: the coordinator is busy, or stopped. They
// are sent in their order when there is room again, so saying something never waits for it.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "shm/layout.h"

namespace sluice::preload {

// Under control_lock, but for empty(), which is a hint without it.
class Unsent {
 public:
  bool empty() const { return count() == 0; }
  const shm::Message& first() const { return messages_[0]; }

  // What is said of one thing (type and word 0) takes the place of what was said of it before: so
  // there are never more of them than things to speak of. Without memory for it, it is not said.
  void add(const shm::Message& m) {
    uint32_t n = count();
    for (uint32_t i = 0; i < n; ++i) {
      if (messages_[i].type != m.type || messages_[i].words[0] != m.words[0]) continue;
      messages_[i] = m;
      return;
    }
    if (n == room_ && !make_room()) return;
    messages_[n] = m;
    set_count(n + 1);
  }
  void remove_first() {
    set_count(count() - 1);
    memmove(messages_, messages_ + 1, count() * sizeof *messages_);
  }
  void clear() { set_count(0); }

 private:
  uint32_t count() const { return count_.load(std::memory_order_relaxed); }  // by the lock, or a hint
  void set_count(uint32_t n) { count_.store(n, std::memory_order_relaxed); }  // likewise
  bool make_room() {
    uint32_t room = room_ != 0 ? 2 * room_ : 16;
    void* more = realloc(messages_, room * sizeof *messages_);
    if (more == nullptr) return false;
    messages_ = static_cast<shm::Message*>(more);
    room_ = room;
    return true;
  }

  shm::Message* messages_ = nullptr;
  uint32_t room_ = 0;
  std::atomic<uint32_t> count_{0};
};

}  // namespace sluice::preload
