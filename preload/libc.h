// The originals of everything in symbols.def, found with dlsym(RTLD_NEXT).
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace sluice::preload {

struct Libc {
#define SYMBOL(result, name, params) result(*name) params;
#include "preload/symbols.def"
#undef SYMBOL
};

extern Libc libc;

// Fills `libc`. Called at load; and by the first wrapper if another library's constructor
// comes before ours. Idempotent; runs while the process has one thread.
void find_originals();

}  // namespace sluice::preload
