// pthread_cancel(3).
#include "preload/cancellation.h"
#include "preload/dispatch.h"

namespace sluice::preload {

INTERPOSE(int, pthread_cancel, (pthread_t thread)) {
  be_ready();
  Entrance entrance;
  return cancel_thread(thread);
}

}  // namespace sluice::preload
