// See fork.cpp.
#pragma once

namespace sluice::preload {

// From now on forks are noticed, also those that libc makes itself (daemon, forkpty).
void watch_forks();

}  // namespace sluice::preload
