#include "preload/namespaces.h"

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"
#include "preload/materialize.h"

namespace sluice::preload {

constinit std::atomic<bool> namespaces_changed{false};

uint64_t namespace_of(int socket) {
  uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  return libc.getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

void before_namespace_change() {
  if (!coordinator.enabled()) return;
  Guard guard(control_lock);
  (void)coordinator.ensure();  // as one of the namespace where most of its sockets are
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd) {
    File* f = descriptors.peek(int(fd));
    if (f == nullptr || f->kind() != FileKind::kTcpSocket) continue;
    auto& s = static_cast<TcpSocket&>(*f);
    if (s.state == TcpState::kUnconnected) (void)make_real(int(fd), s);
  }
  namespaces_changed.store(true, std::memory_order_release);
}

}  // namespace sluice::preload
