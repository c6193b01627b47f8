// What fork has to know of system() and popen().
#pragma once

namespace sluice::preload {

// In a forked child: the locks of calls that other threads were in are free.
void reset_shell_locks();

}  // namespace sluice::preload
