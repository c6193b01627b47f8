// Start-up, in this order:
//   1. find_originals     everything below calls libc through them
//      protect_memory     if wanted: what comes after it has a key
//   2. DescriptorTable    wrappers look into it from the first call on
//   3. CoordinatorLink    learns its directory; it contacts nobody before the first listen or connect
//      note_environment   what programs that this one starts are to have
//   4. watch_forks        after the above, so that a child inherits a complete state
//   5. inherit_listeners  needs the table; most programs have none and pay one readdir
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload/code_watch.h"
#include "preload/coordinator_link.h"
#include "preload/descriptor_table.h"
#include "preload/environment.h"
#include "preload/files/tcp_socket.h"
#include "preload/fork.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pipes.h"
#include "preload/say.h"
#include "preload/signals.h"
#include "preload/socket_pairs.h"
#include "shm/protocol.h"
#include "shm/region.h"

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

// Whether the shim's memory is to have a key: as SLUICE_PROTECT says, else as the coordinator does.
shm::Keys wanted_keys(const char* directory) {
  char text[128] = {};
  const char* wanted = getenv("SLUICE_PROTECT");
  if (wanted == nullptr || *wanted == 0) {
    int n = snprintf(text, sizeof text, "%s/%s", directory, shm::kKeysName);
    int fd = n > 0 && size_t(n) < sizeof text ? kernel::open(text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0) return shm::Keys::kNone;
    memset(text, 0, sizeof text);
    (void)!kernel::read(fd, text, sizeof text - 1);
    kernel::close(fd);
    wanted = text;
  }
  if (strcmp(wanted, shm::kKeysStrict) == 0) return shm::Keys::kStrict;
  return strcmp(wanted, shm::kKeys) == 0 ? shm::Keys::kKeys : shm::Keys::kNone;
}

void protect_memory(shm::Keys wanted) {
  catch_faults();
  int error = begin_keys();
  if (error == 0) {
    Entrance entrance;
    return begin_code_watch(wanted == shm::Keys::kStrict);
  }
  say("sluice: no protection keys here (%s); going on without\n", strerror(-error));
}

__attribute__((constructor)) void start() {
  find_originals();
  const char* directory = getenv("SLUICE_DIR");
  bool enabled = directory != nullptr && *directory != 0;
  if (shm::Keys wanted = enabled ? wanted_keys(directory) : shm::Keys::kNone; wanted != shm::Keys::kNone) protect_memory(wanted);
  Entrance entrance;
  if (!descriptors.create()) return;
  known_limit = kMaxDescriptors;
  if (!enabled) return;
  note_environment(directory);
  coordinator.init(directory);
  watch_forks();
  inherit_listeners();
}

}  // namespace

}  // namespace sluice::preload
