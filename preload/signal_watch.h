// SIGIO and SIGURG for connections in shared memory (F_SETOWN, F_SETSIG, O_ASYNC). No kernel event tells
// of bytes there, so a thread of ours waits for it and sends the signal. It exists once a program has
// asked for such signals on an established connection; before that the socket just stays the kernel's.
#pragma once

namespace sluice::preload {

class TcpSocket;

// From now on signals are sent as the settings of `fd`, a connection, say at the time. 0 or -errno.
[[nodiscard]] int watch_for_signals(TcpSocket& s, int fd);

}  // namespace sluice::preload
