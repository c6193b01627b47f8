// pipe(2).
#include "preload/dispatch.h"
#include "preload/pipes.h"

namespace sluice::preload {

INTERPOSE(int, pipe, (int ends[2])) {
  be_ready();
  int r = libc.pipe(ends);
  if (r == 0) note_pipe(ends, 0);
  return r;
}

INTERPOSE(int, pipe2, (int ends[2], int flags)) {
  be_ready();
  int r = libc.pipe2(ends, flags);
  if (r == 0) note_pipe(ends, flags);
  return r;
}

}  // namespace sluice::preload
