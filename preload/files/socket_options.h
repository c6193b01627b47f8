// getsockopt(2) and setsockopt(2). Options that an accelerated connection itself heeds stand
// in a table; everything else is kept and judged by a kernel socket of the program's own.
#pragma once

#include "preload/files/tcp_socket.h"

namespace sluice::preload {

// 0 or -errno.
int get_option(TcpSocket& s, int fd, int level, int name, void* value, socklen_t* length);
int set_option(TcpSocket& s, int fd, int level, int name, const void* value, socklen_t length);

}  // namespace sluice::preload
