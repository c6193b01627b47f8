// One direction of a connection, held for the length of a copy: against other threads, and,
// once the connection is shared by fork, against other processes too.
#pragma once

#include <sched.h>

#include "preload/coordinator_link.h"
#include "preload/mutex.h"

namespace sluice::preload {

class DirectionGuard {
 public:
  // `word`: the lock in the socket's slot, used if it is shared, which it may become while we wait for the local one. It
  // holds the domain of its owner, so that it can be taken from a dead one.
  template <class Socket>
  DirectionGuard(Mutex& local, const Socket& socket, shm::Shared<uint32_t> shm::Slot::*word) : local_(local) {
    local_.lock();
    if (!socket.shared) return;
    word_ = &(socket.mine->*word);
    lock_word();
  }
  ~DirectionGuard() {
    if (word_ != nullptr) word_->store(shm::kNobody, std::memory_order_release);
    local_.unlock();
  }
  DirectionGuard(const DirectionGuard&) = delete;
  DirectionGuard& operator=(const DirectionGuard&) = delete;

 private:
  void lock_word() {
    shm::DomainId self = coordinator.self();
    for (;;) {
      shm::DomainId owner = shm::kNobody;
      if (word_->compare_exchange_strong(owner, self, std::memory_order_acquire)) return;
      const shm::Directory* d = coordinator.directory();
      bool dead = d != nullptr && !d->is_alive(owner);
      if (dead && word_->compare_exchange_strong(owner, self, std::memory_order_acquire)) return;
      sched_yield();
    }
  }
  Mutex& local_;
  shm::Shared<uint32_t>* word_ = nullptr;
};

}  // namespace sluice::preload
