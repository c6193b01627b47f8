#include "preload/stdio_tables.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cstdint>

#include "preload/descriptor_table.h"
#include "preload/libc.h"
#include "preload/pipes.h"
#include "preload/socket_pairs.h"

namespace sluice::preload {

namespace {

// glibc's struct _IO_jump_t: two words that are null, then pointers to functions.
constexpr size_t kWords = 21, kRead = 14, kWrite = 15, kSeek = 16, kClose = 17, kStat = 18;

using Read = ssize_t (*)(FILE*, void*, ssize_t);
using Write = ssize_t (*)(FILE*, const void*, ssize_t);
using Close = int (*)(FILE*);

// What libc calls these itself, and exports.
struct Originals {
  Read read;
  Write write;
  Close close;
  void* seek;
  void* stat;
};
Originals originals;

bool is_ours(const FILE* f) {
  return descriptors.peek(f->_fileno) != nullptr || pipe_at(f->_fileno) != nullptr || pair_at(f->_fileno) != nullptr;
}

ssize_t read_stream(FILE* f, void* buf, ssize_t n) {
  return is_ours(f) ? ::read(f->_fileno, buf, size_t(n)) : originals.read(f, buf, n);
}

// All of it, as libc's does.
ssize_t write_stream(FILE* f, const void* data, ssize_t n) {
  if (!is_ours(f)) return originals.write(f, data, n);
  ssize_t done = 0;
  while (done < n) {
    ssize_t k = ::write(f->_fileno, static_cast<const char*>(data) + done, size_t(n - done));
    if (k < 0) {
      f->_flags |= _IO_ERR_SEEN;
      break;
    }
    done += k;
  }
  return done;
}

int close_stream(FILE* f) { return is_ours(f) ? ::close(f->_fileno) : originals.close(f); }

// Where libc keeps the tables: memory that the loader made read-only after relocation.
struct Range {
  uintptr_t within;  // an address in it
  uintptr_t begin, end;
};

int find_relro(dl_phdr_info* info, size_t, void* argument) {
  auto& range = *static_cast<Range*>(argument);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info->dlpi_phdr[i];
    if (p.p_type != PT_GNU_RELRO) continue;
    uintptr_t begin = info->dlpi_addr + p.p_vaddr, end = begin + p.p_memsz;
    if (range.within < begin || range.within >= end) continue;
    range.begin = begin;
    range.end = end;
    return 1;
  }
  return 0;
}

bool has_layout(void* const* t) {
  return t[0] == nullptr && t[1] == nullptr && t[kRead] == reinterpret_cast<void*>(originals.read) &&
         t[kWrite] == reinterpret_cast<void*>(originals.write) && t[kSeek] == originals.seek && t[kStat] == originals.stat;
}

void redirect(void** t) {
  // Another thread may be inside stdio: each entry changes at once, and either one serves it.
  __atomic_store_n(&t[kRead], reinterpret_cast<void*>(read_stream), __ATOMIC_RELAXED);
  __atomic_store_n(&t[kWrite], reinterpret_cast<void*>(write_stream), __ATOMIC_RELAXED);
  if (t[kClose] == reinterpret_cast<void*>(originals.close))  // popen's waits for a process besides
    __atomic_store_n(&t[kClose], reinterpret_cast<void*>(close_stream), __ATOMIC_RELAXED);
}

template <class T>
void find(T& to, const char* name) {
  to = reinterpret_cast<T>(dlsym(RTLD_NEXT, name));
}

// The table of plain files, if it is what we take it for.
void** known_table() {
  find(originals.read, "_IO_file_read");
  find(originals.write, "_IO_file_write");
  find(originals.close, "_IO_file_close");
  find(originals.seek, "_IO_file_seek");
  find(originals.stat, "_IO_file_stat");
  void** plain;
  find(plain, "_IO_file_jumps");
  bool all = plain != nullptr && originals.read != nullptr && originals.write != nullptr && originals.close != nullptr;
  if (!all || !has_layout(plain) || plain[kClose] != reinterpret_cast<void*>(originals.close)) return nullptr;
  return plain;
}

}  // namespace

void redirect_stdio() {
  static bool done = false;
  if (done) return;
  done = true;
  void** plain = known_table();
  if (plain == nullptr) return;
  Range range{uintptr_t(plain), 0, 0};
  if (dl_iterate_phdr(find_relro, &range) == 0) return;
  constexpr uintptr_t kPage = 4096;
  uintptr_t begin = range.begin & ~(kPage - 1), end = range.end & ~(kPage - 1);  // as the loader rounds
  if (mprotect(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE) != 0) return;
  // The same for wide characters, popen and mapped files.
  auto** t = reinterpret_cast<void**>(range.begin);
  for (auto** last = reinterpret_cast<void**>(end) - kWords; t <= last;) {
    bool table = has_layout(t);
    if (table) redirect(t);
    t += table ? kWords : 1;
  }
  mprotect(reinterpret_cast<void*>(begin), end - begin, PROT_READ);
}

}  // namespace sluice::preload
