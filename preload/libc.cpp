#include "preload/libc.h"

#include <dlfcn.h>

namespace sluice::preload {

constinit Libc libc{};

void find_originals() {
  if (libc.read != nullptr) return;
#define SYMBOL(result, name, params) \
  libc.name = reinterpret_cast<decltype(libc.name)>(dlsym(RTLD_NEXT, #name));
#include "preload/symbols.def"
#undef SYMBOL
}

}  // namespace sluice::preload
