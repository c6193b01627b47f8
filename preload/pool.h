// Objects of one type whose memory never goes back: a stale pointer still points to a T.
// Freed objects rest a while before they are used again, so that a call that looked one up
// just before another thread closed it does not meet a different one.
#pragma once

#include <cstddef>
#include <new>

#include "preload/keys.h"

namespace sluice::preload {

// T has a member `void* pool_link` that nothing else uses. Not thread-safe: under control_lock.
template <class T>
class Pool {
 public:
  // Null when memory is exhausted.
  template <class... Args>
  [[nodiscard]] T* create(Args&&... args) {
    if (free_count_ <= kResting) refill();
    T* object = first_;
    if (object == nullptr) return nullptr;
    first_ = static_cast<T*>(object->pool_link);
    if (first_ == nullptr) last_ = nullptr;
    --free_count_;
    return new (object) T(static_cast<Args&&>(args)...);
  }
  void destroy(T* object) {
    object->~T();
    append(object);
  }

 private:
  static constexpr std::size_t kChunkBytes = 64 * 1024;
  static constexpr std::size_t kResting = 32;
  void append(T* object) {
    object->pool_link = nullptr;
    (last_ != nullptr ? last_->pool_link : reinterpret_cast<void*&>(first_)) = object;
    last_ = object;
    ++free_count_;
  }
  void refill() {
    void* p = map_private(kChunkBytes);
    if (p == nullptr) return;
    T* objects = static_cast<T*>(p);
    for (std::size_t i = 0; i < kChunkBytes / sizeof(T); ++i) append(&objects[i]);
  }
  T* first_ = nullptr;
  T* last_ = nullptr;
  std::size_t free_count_ = 0;
};

}  // namespace sluice::preload
