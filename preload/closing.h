// The two halves of close().
#pragma once

namespace sluice::preload {

// Ends what the shim has at `fd`, as close() does; the kernel's descriptor stays.
void let_go_of(int fd);

}  // namespace sluice::preload
