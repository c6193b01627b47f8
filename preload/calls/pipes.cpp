// pipe(2), mkfifo(3).
#include "preload/coordinator_link.h"
#include "preload/dispatch.h"
#include "preload/pipes.h"

namespace sluice::preload {

INTERPOSE(int, pipe, (int ends[2])) {
  be_ready();
  int r = libc.pipe(ends);
  Entrance entrance;
  if (r == 0) note_pipe(ends, 0);
  return r;
}

namespace {
// A named pipe is the kernel's; that there is one can be seen in the status.
int made_fifo(int r) {
  Entrance entrance;
  if (r == 0) coordinator.count_fallback(shm::Fallback::kFifo);
  return r;
}
}  // namespace

INTERPOSE(int, mkfifo, (const char* path, mode_t mode)) {
  be_ready();
  return made_fifo(libc.mkfifo(path, mode));
}

INTERPOSE(int, mkfifoat, (int directory, const char* path, mode_t mode)) {
  be_ready();
  return made_fifo(libc.mkfifoat(directory, path, mode));
}

INTERPOSE(int, pipe2, (int ends[2], int flags)) {
  be_ready();
  int r = libc.pipe2(ends, flags);
  Entrance entrance;
  if (r == 0) note_pipe(ends, flags);
  return r;
}

}  // namespace sluice::preload
