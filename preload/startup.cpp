// Start-up, in this order:
//   1. find_originals     everything below calls libc through them
//   2. DescriptorTable    wrappers look into it from the first call on
//   3. CoordinatorLink    learns its directory; it contacts nobody before the first listen or connect
//      note_environment   what programs that this one starts are to have
//   4. watch_forks        after the above, so that a child inherits a complete state
//   5. inherit_listeners  needs the table; most programs have none and pay one readdir
#include <dirent.h>
#include <stdlib.h>

#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/environment.h"
#include "preload/files/tcp_socket.h"
#include "preload/fork.h"
#include "preload/libc.h"
#include "preload/pipes.h"

namespace sluice::preload {

namespace {

int int_option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return libc.getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

// A listener that was passed on over exec becomes ours when the program shows interest in it.
void inherit_listener(int fd) {
  if (int_option(fd, SO_ACCEPTCONN) != 1) return;
  bool unix_stream = int_option(fd, SO_DOMAIN) == AF_UNIX && int_option(fd, SO_TYPE) == SOCK_STREAM;
  if (!unix_stream && int_option(fd, SO_PROTOCOL) != IPPROTO_TCP) return;
  Guard guard(control_lock);
  TcpSocket* s = create_socket(int_option(fd, SO_DOMAIN));
  if (s == nullptr) return;
  s->real = s->bound = true;
  s->state = TcpState::kListening;
  s->only_holder = false;
  s->backlog_limit = 511;  // cannot be asked of the kernel
  s->nonblocking = (libc.fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
  s->next_listener = listeners;
  listeners = s;
  (void)descriptors.set(fd, s);
  // Now, not when a worker of this program shows interest: that may have lost the right by then.
  if (coordinator.ensure()) s->announce_listener(fd);
}

void inherit_listeners() {
  DIR* d = opendir("/proc/self/fd");
  if (d == nullptr) return;
  while (dirent* e = readdir(d)) {
    int fd = atoi(e->d_name);
    if (fd > 2 || (e->d_name[0] != '.' && fd >= 0)) inherit_listener(fd);
    if (fd > 2) inherit_channel(fd);
  }
  closedir(d);
}

__attribute__((constructor)) void start() {
  find_originals();
  if (!descriptors.create()) return;
  const char* directory = getenv("SLUICE_DIR");
  if (directory == nullptr || *directory == 0) return;
  note_environment(directory);
  coordinator.init(directory);
  watch_forks();
  inherit_listeners();
}

}  // namespace

}  // namespace sluice::preload
