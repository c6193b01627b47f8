// See fork.cpp.
#pragma once

namespace sluice::preload {

// From now on forks are noticed, also those that libc makes itself (daemon, forkpty).
void watch_forks();

// Asks the coordinator for an id for the child that the calling thread is about to fork. 0; or -errno: something is short,
// and without an id the child would lose the connections that it is to share.
[[nodiscard]] int reserve_before_fork();

// What has to be done in the parent, whose descriptors may change by it. Under control_lock.
void settle_before_fork();

// Whether this is the child of a vfork, whose memory is its parent's: descriptors are its own,
// but what we know of them must not change.
bool in_vfork_child();

}  // namespace sluice::preload
