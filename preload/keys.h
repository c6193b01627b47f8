// Protection inside a process (--protect=keys, docs/security.md): the shim's memory has a protection key (pkeys(7))
// that forbids writing everywhere but in the shim. What the program writes by mistake ends with SIGSEGV at
// the mistake, and never in what other processes read. (Hodor, ATC'19, protects a library so.)
//
// Rights are a register of each thread's (PKRU): an entry into the shim opens, its end shuts again. Reading
// is never forbidden: there is nothing in there that is not the program's own, and calls that are not the
// shim's concern are passed on after one look, without a change of rights.
//
// A signal handler begins with the rights that the kernel gives it, none: ours first of all allow reading. So it
// runs shut, wherever it has interrupted its thread, may leave by longjmp, and on return the kernel brings back the rights
// of before.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sluice::preload {

// Addresses.
struct Range {
  uintptr_t begin, end;
  bool overlaps(uintptr_t from, uintptr_t to) const { return from < end && to > begin; }
};

// Written once, at start-up, and then read-only memory without a key.
struct alignas(4096) KeyPage {
  uint32_t both;   // the two bits of PKRU that are our key's; 0: there is no key, and nothing is done
  uint32_t shut;   // the one that forbids writing
  int key;
  uint32_t pkru_at;  // where a signal frame has PKRU, from the beginning of its floating-point state
  Range statics;     // our variables
};
extern KeyPage key_page;

// Where everything else is that has the key and can be written: addresses that nobody else is given, reserved in ever larger pieces.
struct Arena {
  static constexpr uint32_t kPieces = 10;
  std::atomic<uint32_t> count;
  Range pieces[kPieces];
};
extern Arena arena;

// Whether some of this memory has the key: a call is not to write there what it has for the program, as the kernel would not.
inline bool is_guarded(const void* p, std::size_t bytes) {
  if (key_page.both == 0) [[likely]] return false;
  auto begin = reinterpret_cast<uintptr_t>(p), end = bytes < ~begin ? begin + bytes : ~uintptr_t{0};
  if (key_page.statics.overlaps(begin, end)) return true;
  for (uint32_t i = 0, n = arena.count.load(std::memory_order_acquire); i < n; ++i)
    if (arena.pieces[i].overlaps(begin, end)) return true;
  return false;
}

#if defined(__x86_64__)
// `volatile`, both: what they read and write is no variable that the compiler knows of, and it must not leave one out.
inline uint32_t read_rights() {
  uint32_t rights, high;
  __asm__ volatile("rdpkru" : "=a"(rights), "=d"(high) : "c"(0));
  return rights;
}
// Nothing that is read or written before is read or written after it, and the other way round.
inline void write_rights(uint32_t rights) { __asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory"); }
#else
inline uint32_t read_rights() { return 0; }
inline void write_rights(uint32_t) {}
#endif

// These rights, with ours as outside of the shim.
inline uint32_t shut(uint32_t rights) { return (rights & ~key_page.both) | key_page.shut; }
inline bool is_shut(uint32_t rights) { return (rights & key_page.both) == key_page.shut; }

// While it lives this thread may write to the shim's memory. Nests. Nothing is to be called within it that runs code of the
// program's or may not return: see Outside.
class Entrance {
 public:
  [[gnu::always_inline]] Entrance() {
    if (key_page.both == 0) [[likely]] return;
    before_ = read_rights();
    if ((before_ & key_page.both) != 0) write_rights(before_ & ~key_page.both);
  }
  [[gnu::always_inline]] ~Entrance() {
    if (key_page.both != 0 && (before_ & key_page.both) != 0) [[unlikely]]
      write_rights(shut(before_));
  }
  Entrance(const Entrance&) = delete;
  Entrance& operator=(const Entrance&) = delete;

 private:
  uint32_t before_ = 0;
};

// While it lives this thread is as outside: around a call of libc that is the program's, which may end the thread or wait.
class Outside {
 public:
  [[gnu::always_inline]] Outside() {
    if (key_page.both == 0) [[likely]] return;
    before_ = read_rights();
    if (!is_shut(before_)) write_rights(shut(before_));
  }
  [[gnu::always_inline]] ~Outside() {
    if (key_page.both != 0 && (before_ & key_page.both) == 0) [[unlikely]] write_rights(before_);
  }
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

 private:
  uint32_t before_ = 0;
};

template <class F>
[[gnu::always_inline]] inline auto outside(F&& f) {
  Outside o;
  return f();
}

// In a signal handler, before anything of the shim's is read: the kernel has taken all rights away.
inline void begin_handler() {
  if (__builtin_expect(key_page.both == 0, true)) return;
  uint32_t rights = read_rights();
  if (!is_shut(rights)) write_rights(shut(rights));
}

// From now on the shim's memory has a key: its statics, and what is mapped from here on. This thread is outside.
// 0 or -errno: there are no keys, or other threads already (EBUSY). Faults are to be caught before (signals.h).
[[nodiscard]] int begin_keys();

// Memory of the shim's gets the key, if there is one; `access` as for mmap(2). Takes null through. Returns where it is from
// now on. Without memory for it the mapping stays as it is.
[[nodiscard]] void* keyed(void* p, std::size_t bytes, int access = PROT_READ | PROT_WRITE);
// Takes the place of munmap(2) for it, with or without a key.
void unmap_keyed(void* p, std::size_t bytes);
// Anonymous private memory of the shim's, which costs nothing until it is touched. Null when there is none.
[[nodiscard]] void* map_private(std::size_t bytes);

// In the handler of a SIGSEGV with this si_code: whether its thread had no rights at all to our memory, as handlers
// have that we do not know of, and only wanted to read. Then it may, and the instruction is to be repeated.
[[nodiscard]] bool allow_reading(int code, void* context);

}  // namespace sluice::preload
