#include "preload/environment.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

namespace sluice::preload {

namespace {

constexpr char kPreload[] = "LD_PRELOAD=", kDirectory[] = "SLUICE_DIR=";

// "NAME=value" of ours; empty: not given on.
char preload_entry[sizeof kPreload + PATH_MAX];
char directory_entry[sizeof kDirectory + 80];

const char* value_of(const char* entry, const char* name, size_t name_bytes) {
  return strncmp(entry, name, name_bytes) == 0 ? entry + name_bytes : nullptr;
}

struct Word {
  const char* text;
  size_t bytes;
};

Word last_part(Word w) {
  auto* slash = static_cast<const char*>(memrchr(w.text, '/', w.bytes));
  return slash == nullptr ? w : Word{slash + 1, size_t(w.text + w.bytes - slash - 1)};
}

// The word of an LD_PRELOAD that names a file called `name`, whichever directory it is in.
Word find_library(const char* list, Word name) {
  constexpr char kSeparators[] = " :";
  for (const char* at = list + strspn(list, kSeparators); *at != 0; at += strspn(at, kSeparators)) {
    Word w{at, strcspn(at, kSeparators)};
    Word file = last_part(w);
    if (file.bytes == name.bytes && memcmp(file.text, name.text, name.bytes) == 0) return w;
    at += w.bytes;
  }
  return {nullptr, 0};
}

// After chroot the loader would find nothing at that path, and complain.
bool is_reachable() {
  const char* path = preload_entry + sizeof kPreload - 1;
  int error = errno;
  bool reachable = strchr(path, '/') == nullptr || faccessat(AT_FDCWD, path, R_OK, 0) == 0;
  errno = error;
  return reachable;
}

Word own_name() { return last_part({preload_entry + sizeof kPreload - 1, strlen(preload_entry) - sizeof kPreload + 1}); }

}  // namespace

void note_environment(const char* directory) {
  if (getauxval(AT_SECURE) != 0) return;
  Dl_info self;
  const char* list = getenv("LD_PRELOAD");
  // Not there: somebody else sees to it that every program has us.
  if (list == nullptr || dladdr(preload_entry, &self) == 0 || self.dli_fname == nullptr) return;
  Word w = find_library(list, last_part({self.dli_fname, strlen(self.dli_fname)}));
  if (w.text == nullptr || w.bytes > PATH_MAX || strlen(directory) >= sizeof directory_entry - sizeof kDirectory) return;
  memcpy(stpcpy(preload_entry, kPreload), w.text, w.bytes);
  stpcpy(stpcpy(directory_entry, kDirectory), directory);
}

Environment::Environment(char* const* envp) : envp_(envp) {
  if (directory_entry[0] == 0) return;
  wants_preload_ = wants_directory_ = true;
  for (; envp != nullptr && envp[count_] != nullptr; ++count_) {
    if (const char* v = value_of(envp[count_], kDirectory, sizeof kDirectory - 1)) {
      if (*v == 0) return;  // it is to be without us
      wants_directory_ = false;
    } else if (const char* list = value_of(envp[count_], kPreload, sizeof kPreload - 1)) {
      wants_preload_ = find_library(list, own_name()).text == nullptr;
      preload_ = wants_preload_ ? list : nullptr;
    }
  }
  if (wants_preload_ && !is_reachable()) wants_preload_ = false;
  if (!wants_preload_ && !wants_directory_) return;
  room_ = (count_ + 3) * sizeof(char*) + (preload_ != nullptr ? strlen(preload_entry) + strlen(preload_) + 2 : 0);
}

char* const* Environment::complete(void* room) const {
  auto** out = static_cast<char**>(room);
  auto* text = reinterpret_cast<char*>(out + count_ + 3);
  for (size_t i = 0; i < count_; ++i) {
    bool replaced = wants_preload_ && value_of(envp_[i], kPreload, sizeof kPreload - 1) != nullptr;
    if (!replaced) *out++ = envp_[i];
  }
  if (wants_directory_) *out++ = directory_entry;
  if (wants_preload_ && preload_ != nullptr) {
    *out++ = text;
    stpcpy(stpcpy(stpcpy(text, preload_entry), ":"), preload_);  // before its own, as `sluice run` has it
  } else if (wants_preload_) {
    *out++ = preload_entry;
  }
  *out = nullptr;
  return static_cast<char**>(room);
}

}  // namespace sluice::preload
