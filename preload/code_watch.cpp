#include "preload/code_watch.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <stdarg.h>
#include <unistd.h>

#include "preload/coordinator_link.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "shm/key_instructions.h"

namespace sluice::preload {

namespace {

constexpr int kNotExecutable = 126;  // as sh(1) says it

constinit bool strict = false;
constinit std::atomic<unsigned long long> libraries_loaded{0};  // dl_iterate_phdr(3), dlpi_adds; when they were looked at
constinit std::atomic<uint32_t> in_libraries{0}, in_mapped{0};

uint32_t found_in(const void* code, size_t bytes, const void*& first) {
  uint32_t n = 0;
  shm::find_key_instructions(static_cast<const uint8_t*>(code), bytes, [&](size_t i, shm::KeyInstruction) {
    if (n++ == 0) first = static_cast<const char*>(code) + i;
  });
  return n;
}

[[gnu::format(printf, 1, 2)]] void say(const char* format, ...) {
  char line[512];
  va_list list;
  va_start(list, format);
  int n = vsnprintf(line, sizeof line, format, list);
  va_end(list);
  if (n > 0) (void)!kernel::write(2, line, size_t(n) < sizeof line ? size_t(n) : sizeof line - 1);
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
  return contains(info, reinterpret_cast<const void*>(libc.syscall)) || info.dlpi_addr == getauxval(AT_BASE);
}

struct Look {
  unsigned long long since;  // dlpi_adds when they were looked at last
  unsigned long long loaded = 0;
  uint32_t found = 0;
};

int look_at(dl_phdr_info* info, size_t, void* argument) {
  auto& look = *static_cast<Look*>(argument);
  look.loaded = info->dlpi_adds;
  if (look.since == look.loaded) return 1;
  if (contains(*info, &key_page)) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info->dlpi_phdr[i];
    if (p.p_type != PT_LOAD || (p.p_flags & (PF_X | PF_R)) != (PF_X | PF_R)) continue;
    const void* first = nullptr;
    const char* code = reinterpret_cast<const char*>(info->dlpi_addr + p.p_vaddr);
    uint32_t found = found_in(code, p.p_memsz, first);
    look.found += found;
    if (found == 0 || !strict || is_trusted(*info)) continue;
    say("sluice: %s+%#zx: an instruction that changes rights to protection keys; not run with --protect=keys-strict\n",
        info->dlpi_name[0] != 0 ? info->dlpi_name : "the program", size_t(static_cast<const char*>(first) - reinterpret_cast<const char*>(info->dlpi_addr)));
    _exit(kNotExecutable);
  }
  return 0;
}

}  // namespace

void begin_code_watch(bool is_strict) {
  strict = is_strict;
  look_at_libraries();
}

void look_at_libraries() {
  if (key_page.both == 0) return;
  Look look{libraries_loaded.load(std::memory_order_relaxed)};  // a number of its own
  dl_iterate_phdr(look_at, &look);
  if (look.since == look.loaded) return;
  coordinator.count(shm::kKeyInstructions, int64_t{look.found} - int64_t{in_libraries.exchange(look.found, std::memory_order_relaxed)});  // statistics
  libraries_loaded.store(look.loaded, std::memory_order_relaxed);  // likewise
}

uint32_t key_instructions() {
  return in_libraries.load(std::memory_order_relaxed) + in_mapped.load(std::memory_order_relaxed);  // statistics
}

bool is_watched(int access) { return key_page.both != 0 && (access & PROT_EXEC) != 0; }

int judge_code(const void* code, size_t bytes, int access) {
  const void* first = nullptr;
  bool changes = (access & PROT_WRITE) != 0;
  uint32_t found = found_in(code, bytes, first);
  in_mapped.fetch_add(found, std::memory_order_relaxed);  // a statistic
  coordinator.count(shm::kKeyInstructions, found);
  return strict && (found > 0 || changes) ? -EACCES : 0;
}

}  // namespace sluice::preload
