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

// Addresses that nobody else is given, so that is_guarded() needs no list: what is moved here leaves nothing behind but a reservation.
class Arena {
 public:
  // Where it is from now on.
  void* take_in(void* p, size_t bytes) {
    size_t rounded = round(bytes);
    uintptr_t to = take(rounded);
    if (to == 0) return p;
    if (mremap(p, rounded, rounded, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(to)) != MAP_FAILED)
      return reinterpret_cast<void*>(to);
    (void)reserve(to, rounded);
    give(to, rounded);
    return p;
  }
  // False: it is not from here.
  bool give_back(void* p, size_t bytes) {
    auto at = reinterpret_cast<uintptr_t>(p);
    if (!key_page.arena.overlaps(at, at + 1)) return false;
    // Where that fails the old mapping stays, out of the program's reach.
    if (reserve(at, round(bytes))) give(at, round(bytes));
    return true;
  }

 private:
  static constexpr size_t kFree = 256;  // more that are free at a time are not used again
  struct Free {
    uintptr_t at;
    size_t bytes;
  };
  static size_t round(size_t bytes) { return page_of(bytes + kPage - 1); }
  static bool reserve(uintptr_t at, size_t bytes) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    return mmap(reinterpret_cast<void*>(at), bytes, PROT_NONE, kFlags, -1, 0) != MAP_FAILED;
  }
  uintptr_t take(size_t bytes) {
    Guard guard(lock_);
    for (size_t i = 0; i < free_count_; ++i) {
      if (free_[i].bytes != bytes) continue;
      uintptr_t at = free_[i].at;
      free_[i] = free_[--free_count_];
      return at;
    }
    if (bytes > key_page.arena.end - key_page.arena.begin - used_) return 0;
    used_ += bytes;
    return key_page.arena.begin + used_ - bytes;
  }
  void give(uintptr_t at, size_t bytes) {
    Guard guard(lock_);
    if (free_count_ < kFree) free_[free_count_++] = {at, bytes};
  }

  Mutex lock_;
  size_t used_ = 0;
  size_t free_count_ = 0;
  Free free_[kFree] = {};
};
constinit Arena arena;

// Empty if there is no room for one: then a call may be made to write to what is mapped.
Range reserve_arena() {
  constexpr size_t kBytes = size_t{1} << 40;  // of addresses: 4096 pair regions
  void* p = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? Range{} : Range{uintptr_t(p), uintptr_t(p) + kBytes};
}

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
  key_page = {uint32_t{PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE} << shift, uint32_t{PKEY_DISABLE_WRITE} << shift, int(key), at, statics, reserve_arena()};
  if (guard_statics(statics)) {
    write_rights(shut(read_rights()));
    return 0;
  }
  int error = errno;
  (void)set_key(reinterpret_cast<void*>(statics.begin), statics.end - statics.begin, PROT_READ | PROT_WRITE, 0);
  munmap(reinterpret_cast<void*>(key_page.arena.begin), key_page.arena.end - key_page.arena.begin);
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
  return (access & PROT_WRITE) != 0 ? arena.take_in(p, bytes) : p;
}

void unmap_keyed(void* p, size_t bytes) {
  if (!arena.give_back(p, bytes)) munmap(p, bytes);
}

void* map_private(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : keyed(p, bytes);
}

}  // namespace sluice::preload
