#include "preload/code_watch.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include "preload/coordinator_link.h"
#include "preload/fork.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/say.h"
#include "preload/user_memory.h"
#include "shm/key_instructions.h"

extern "C" void* __tls_get_addr(void*);  // the loader's

namespace sluice::preload {

namespace {

constexpr int kNotExecutable = 126;  // as sh(1) says it

constinit bool strict = false;
constinit std::atomic<bool> libraries_come{false};
constinit std::atomic<unsigned long long> libraries_seen{0};  // dlpi_adds of dl_iterate_phdr(3)
constinit bool loader_may_hang = false;  // a thread of our parent's, of whom nothing is left here, may have had its lock
constinit std::atomic<uint32_t> in_libraries{0}, in_mapped{0};

// Code whose instructions are the C library's, the loader's and our own, as long as nobody could write there.
struct Span {
  std::atomic<uintptr_t> begin, end;
  bool overlaps(uintptr_t from, uintptr_t to) const {
    return from < end.load(std::memory_order_relaxed) && to > begin.load(std::memory_order_relaxed);  // of this process's own doing
  }
};
constexpr size_t kTrusted = 4;
constinit Span trusted[kTrusted]{};

bool is_trusted_code(const void* code) {
  for (const Span& t : trusted)
    if (t.overlaps(uintptr_t(code), uintptr_t(code) + 1)) return true;
  return false;
}

// Piece by piece through a buffer: what cannot be read, or ends before its mapping does, has none.
template <class IsMeant>
uint32_t found_in(const void* code, size_t bytes, const void*& first, IsMeant&& is_meant) {
  constexpr size_t kPiece = 4096, kOverlap = shm::kKeyInstructionBytes - 1;
  uint8_t piece[kPiece + kOverlap];
  uint32_t n = 0;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const char* from = static_cast<const char*>(code) + at;
    size_t here = bytes - at < sizeof piece ? bytes - at : sizeof piece;
    if (copy_user(piece, from, here) != 0) {  // the next page may be the one that cannot be read
      here = here < kPiece ? here : kPiece;
      if (copy_user(piece, from, here) != 0) continue;
    }
    shm::find_key_instructions(piece, here, [&](size_t i, shm::KeyInstruction) {
      if (is_meant(from + i) && n++ == 0) first = from + i;
    });
  }
  return n;
}

bool contains(const dl_phdr_info& info, const void* address) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info.dlpi_phdr[i];
    uintptr_t begin = info.dlpi_addr + p.p_vaddr;
    if (p.p_type == PT_LOAD && uintptr_t(address) >= begin && uintptr_t(address) < begin + p.p_memsz) return true;
  }
  return false;
}

// pkey_set(3) does what the program asks of it, and the loader's XRSTOR brings back registers that it has saved itself.
bool is_trusted(const dl_phdr_info& info) {
  if (contains(info, reinterpret_cast<const void*>(libc.syscall))) return true;
  uintptr_t loader = getauxval(AT_BASE);  // 0: the loader was called to run the program
  return loader != 0 ? info.dlpi_addr == loader : contains(info, reinterpret_cast<const void*>(&__tls_get_addr));
}

// Code of the libraries that there are: noted under the loader's lock, and looked at without.
struct Code {
  const char* begin;
  size_t bytes;
  const char* base;
  bool trusted, own;
  char name[160];
};
struct List {
  Code* code;
  size_t room;
  size_t count = 0;
};

int note_code(dl_phdr_info* info, size_t, void* argument) {
  auto& list = *static_cast<List*>(argument);
  bool own = contains(*info, &key_page);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info->dlpi_phdr[i];
    if (p.p_type != PT_LOAD || (p.p_flags & PF_X) == 0) continue;
    auto* base = reinterpret_cast<const char*>(info->dlpi_addr);
    if (list.count < list.room) {
      Code& c = list.code[list.count];
      c = {base + p.p_vaddr, p.p_memsz, base, own || is_trusted(*info), own, {}};
      snprintf(c.name, sizeof c.name, "%s", info->dlpi_name[0] != 0 ? info->dlpi_name : "the program");
    }
    ++list.count;
  }
  return 0;
}

unsigned long long count_libraries() {
  unsigned long long n = 0;
  dl_iterate_phdr([](dl_phdr_info* info, size_t, void* to) {
    *static_cast<unsigned long long*>(to) = info->dlpi_adds;
    return 1;
  }, &n);
  return n;
}

void trust(const Code& c) {
  for (Span& t : trusted) {
    if (t.end.load(std::memory_order_relaxed) != 0) continue;  // one thread
    t.begin.store(uintptr_t(c.begin), std::memory_order_relaxed);  // likewise
    return t.end.store(uintptr_t(c.begin) + c.bytes, std::memory_order_relaxed);  // likewise
  }
}

uint32_t look_at(const List& list, bool at_start) {
  uint32_t all = 0;
  for (size_t i = 0; i < list.count && i < list.room; ++i) {
    const Code& c = list.code[i];
    const void* first = nullptr;
    if (c.trusted && at_start) trust(c);
    uint32_t found = c.own ? 0 : found_in(c.begin, c.bytes, first, [](const void*) { return true; });
    all += found;
    if (found == 0 || !strict || c.trusted) continue;
    say("sluice: %s+%#zx: an instruction that changes rights to protection keys; not run with --protect=keys-strict\n", c.name,
        size_t(static_cast<const char*>(first) - c.base));
    _exit(kNotExecutable);
  }
  return all;
}

void look_at_all(bool at_start) {
  constexpr size_t kRoom = 4096;  // libraries; what is beyond is not looked at
  size_t bytes = kRoom * sizeof(Code);
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return;
  List list{static_cast<Code*>(p), kRoom};
  dl_iterate_phdr(note_code, &list);
  uint32_t found = look_at(list, at_start);
  munmap(p, bytes);
  coordinator.count(shm::kKeyInstructions, int64_t{found} - int64_t{in_libraries.exchange(found, std::memory_order_relaxed)});  // statistics
}

}  // namespace

void begin_code_watch(bool is_strict) {
  strict = is_strict;
  libraries_seen.store(count_libraries(), std::memory_order_relaxed);  // one thread
  look_at_all(true);
}

void note_writing(const void* p, std::size_t bytes) {
  for (Span& t : trusted) {
    if (!t.overlaps(uintptr_t(p), uintptr_t(p) + bytes)) continue;
    Entrance entrance;
    t.end.store(0, std::memory_order_relaxed);  // likewise
  }
}

void note_library() {
  if (key_page.both != 0) libraries_come.store(true, std::memory_order_release);
}

void look_at_libraries() {
  if (!libraries_come.load(std::memory_order_relaxed) || loader_may_hang || in_vfork_child()) return;  // a hint
  unsigned long long seen = libraries_seen.load(std::memory_order_acquire), now = count_libraries();
  if (now != seen && libraries_seen.compare_exchange_strong(seen, now, std::memory_order_acq_rel)) look_at_all(false);
}

void note_fork() { loader_may_hang |= !__libc_single_threaded; }

uint32_t key_instructions() {
  return in_libraries.load(std::memory_order_relaxed) + in_mapped.load(std::memory_order_relaxed);  // statistics
}

bool is_watched(int access) { return key_page.both != 0 && (access & PROT_EXEC) != 0; }

bool refuses_code() { return strict; }

bool is_refused(int access) { return strict && ((access & PROT_READ) == 0 || (access & PROT_WRITE) != 0); }

int judge_code(const void* code, std::size_t bytes) {
  const void* first = nullptr;
  uint32_t found = found_in(code, bytes, first, [](const void* at) { return !is_trusted_code(at); });
  in_mapped.fetch_add(found, std::memory_order_relaxed);  // a statistic
  coordinator.count(shm::kKeyInstructions, found);
  return strict && found > 0 ? -EACCES : 0;
}

}  // namespace sluice::preload
