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
#include "preload/socket_pairs.h"

namespace sluice::preload {

namespace {

void inherit_listeners() {
  DIR* d = opendir("/proc/self/fd");
  if (d == nullptr) return;
  while (dirent* e = readdir(d)) {
    int fd = atoi(e->d_name);
    if (fd > 2 || (e->d_name[0] != '.' && fd >= 0)) inherit_listener(fd);
    if (fd > 2) inherit_channel(fd);
    if (fd > 2) inherit_handoff(fd);
  }
  closedir(d);
}

__attribute__((constructor)) void start() {
  find_originals();
  if (!descriptors.create()) return;
  known_limit = kMaxDescriptors;
  const char* directory = getenv("SLUICE_DIR");
  if (directory == nullptr || *directory == 0) return;
  note_environment(directory);
  coordinator.init(directory);
  watch_forks();
  inherit_listeners();
}

}  // namespace

}  // namespace sluice::preload
