// stdio on descriptors of ours. libc's FILE functions reach the kernel by calls that no wrapper
// sees; but each of them goes through a table of libc's (read, write, close, ...), so there
// the entries become ours, which pass on what is not ours.
#pragma once

namespace sluice::preload {

// Before the first descriptor of ours exists: a program that never has one keeps libc's tables.
// Without effect if libc's tables are not laid out as we know them. Idempotent; under control_lock.
void redirect_stdio();

}  // namespace sluice::preload
