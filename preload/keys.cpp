#include "preload/keys.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "preload/libc.h"
#include "preload/mutex.h"
#include "shm/layout.h"

namespace sluice::preload {

constinit KeyPage key_page{};
constinit Arena arena{};

namespace {

constexpr uintptr_t kPage = shm::kPageBytes;

uintptr_t page_of(uintptr_t a) { return a & ~(kPage - 1); }

long set_key(void* p, size_t bytes, int access, int key) { return libc.syscall(SYS_pkey_mprotect, p, bytes, access, key); }

// Where this library's variables are: what the loader may write to after it has relocated it.
int find_statics(dl_phdr_info* info, size_t, void* argument) {
  auto& statics = *static_cast<Range*>(argument);
  uintptr_t relocated_end = 0;
  Range found{};
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info->dlpi_phdr[i];
    uintptr_t begin = info->dlpi_addr + p.p_vaddr, end = begin + p.p_memsz;
    if (p.p_type == PT_GNU_RELRO) relocated_end = page_of(end);  // as the loader rounds
    if (p.p_type != PT_LOAD || (p.p_flags & PF_W) == 0) continue;
    if (uintptr_t(&key_page) >= begin && uintptr_t(&key_page) < end) found = {page_of(begin), page_of(end + kPage - 1)};
  }
  if (found.begin == 0) return 0;
  statics = {relocated_end > found.begin ? relocated_end : found.begin, found.end};
  return 1;
}

bool guard_statics(const Range& statics) {
  if (set_key(reinterpret_cast<void*>(statics.begin), statics.end - statics.begin, PROT_READ | PROT_WRITE, key_page.key) != 0) return false;
  return set_key(&key_page, sizeof key_page, PROT_READ, 0) == 0;
}

// Gives places in the arena. A place in which something went wrong is not given again.
class Places {
 public:
  // Moves a mapping there. Returns where it is from now on: where there is no room, it stays.
  void* take_in(void* p, size_t bytes) {
    uintptr_t to = take(round(bytes));
    if (to == 0) return p;
    void* moved = mremap(p, round(bytes), round(bytes), MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(to));
    return moved != MAP_FAILED ? moved : p;
  }
  // False: it is not from here.
  bool give_back(void* p, size_t bytes) {
    auto at = reinterpret_cast<uintptr_t>(p);
    uint32_t n = arena.count.load(std::memory_order_relaxed);  // it was there when this was taken in
    for (uint32_t i = 0; i < n; ++i) {
      if (!arena.pieces[i].overlaps(at, at + 1)) continue;
      constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
      if (mmap(p, round(bytes), PROT_NONE, kFlags, -1, 0) == MAP_FAILED) return false;
      Guard guard(lock_);
      if (free_count_ < kFree) free_[free_count_++] = {at, round(bytes)};
      return true;
    }
    return false;
  }

 private:
  static constexpr size_t kFree = 4096;
  static constexpr size_t kFirst = size_t{64} << 20, kSecond = size_t{1} << 30;  // then four times as much each
  struct Free {
    uintptr_t at;
    size_t bytes;
  };
  static size_t round(size_t bytes) { return page_of(bytes + kPage - 1); }
  uintptr_t take(size_t bytes) {
    Guard guard(lock_);
    for (size_t i = free_count_; i-- > 0;) {
      if (free_[i].bytes != bytes) continue;
      uintptr_t at = free_[i].at;
      free_[i] = free_[--free_count_];
      return at;
    }
    uint32_t n = arena.count.load(std::memory_order_relaxed);  // under the lock
    for (uint32_t i = 0; i < n; ++i)
      if (uintptr_t at = take_from(i, bytes); at != 0) return at;
    for (; n < Arena::kPieces; ++n) {
      size_t size = n == 0 ? kFirst : kSecond << 2 * (n - 1);
      void* p = size >= bytes ? mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
      if (size >= bytes && p == MAP_FAILED) return 0;
      arena.pieces[n] = p != MAP_FAILED ? Range{uintptr_t(p), uintptr_t(p) + size} : Range{};
      arena.count.store(n + 1, std::memory_order_release);
      if (p != MAP_FAILED) return take_from(n, bytes);
    }
    return 0;
  }
  uintptr_t take_from(uint32_t piece, size_t bytes) {
    const Range& r = arena.pieces[piece];
    if (bytes > r.end - r.begin - used_[piece]) return 0;
    used_[piece] += bytes;
    return r.begin + used_[piece] - bytes;
  }

  Mutex lock_;
  size_t used_[Arena::kPieces] = {};
  size_t free_count_ = 0;
  Free free_[kFree] = {};
};
constinit Places places;

#if defined(__x86_64__)
// XSAVE's component 9 is PKRU (Intel SDM, volume 1, 13.1). Signal frames have its standard format.
constexpr unsigned kXsaveLeaf = 0xd, kPkruComponent = 9;
constexpr size_t kPresentAt = 512;  // of the XSAVE area: which components are not in their initial state
constexpr greg_t kWasWrite = 2;     // of a page fault's error code

uint32_t pkru_offset() {
  unsigned size, offset, c, d;
  return __get_cpuid_count(kXsaveLeaf, kPkruComponent, &size, &offset, &c, &d) != 0 && size != 0 ? offset : 0;
}

// The compiler's start files have a flag among our variables that they write after this, and before sluice_end().
__attribute__((destructor)) void end_keys() {
  if (key_page.both != 0) write_rights(read_rights() & ~key_page.both);
}
#endif

// Other threads have no rights to a key that comes after them, and may have forbidden the signal that would help them.
bool has_threads() {
  struct stat st;  // proc(5): a directory has two links, and one for each directory in it
  return libc.syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) != 0 || st.st_nlink > 3;
}

}  // namespace

#if defined(__x86_64__)
// The library's last function (-Wl,-fini): destructors of others come after it.
extern "C" __attribute__((visibility("hidden"), used)) void sluice_end() {
  if (key_page.both != 0) write_rights(shut(read_rights()));
}
#else
extern "C" __attribute__((visibility("hidden"), used)) void sluice_end() {}
#endif

#if defined(__x86_64__)
int begin_keys() {
  Range statics{};
  uint32_t at = pkru_offset();
  if (at == 0) return -ENOSYS;
  if (has_threads()) return -EBUSY;
  if (dl_iterate_phdr(find_statics, &statics) == 0) return -ENOENT;
  long key = libc.syscall(SYS_pkey_alloc, 0, 0);  // this thread has all rights to it, others none
  if (key < 0) return -errno;
  unsigned shift = 2 * unsigned(key);
  key_page = {uint32_t{PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE} << shift, uint32_t{PKEY_DISABLE_WRITE} << shift, int(key), at, statics};
  if (guard_statics(statics)) {
    write_rights(shut(read_rights()));
    return 0;
  }
  int error = errno;
  (void)set_key(reinterpret_cast<void*>(statics.begin), statics.end - statics.begin, PROT_READ | PROT_WRITE, 0);
  key_page = {};
  libc.syscall(SYS_pkey_free, key);
  return -error;
}

bool allow_reading(int code, void* context) {
  auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  if (key_page.both == 0 || code != SEGV_PKUERR || (machine.gregs[REG_ERR] & kWasWrite) != 0) return false;
  auto* frame = reinterpret_cast<char*>(machine.fpregs);
  auto* rights = reinterpret_cast<uint32_t*>(frame + key_page.pkru_at);
  bool present = (*reinterpret_cast<uint64_t*>(frame + kPresentAt) >> kPkruComponent & 1) != 0;
  if (!present || (*rights & (key_page.both ^ key_page.shut)) == 0) return false;
  *rights = shut(*rights);
  return true;
}
#else
int begin_keys() { return -ENOSYS; }
bool allow_reading(int, void*) { return false; }
#endif

void* keyed(void* p, size_t bytes, int access) {
  if (p == nullptr || key_page.both == 0) return p;
  (void)set_key(p, bytes, access, key_page.key);
  return (access & PROT_WRITE) != 0 ? places.take_in(p, bytes) : p;
}

void unmap_keyed(void* p, size_t bytes) {
  if (!places.give_back(p, bytes)) munmap(p, bytes);
}

void* map_private(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : keyed(p, bytes);
}

}  // namespace sluice::preload
