// pthread_cancel and threads that wait in the shim, where no call of libc would notice it.
//
// pthread_cancel's own signal comes to us first: in a wait it counts like a handler's, so the wait
// ends with EINTR, everything is let go of, and the wrapper becomes the cancellation point that libc's call
// would have been.
#pragma once

#include <pthread.h>

#include "preload/keys.h"

namespace sluice::preload {

// Whether pthread_cancel was ever called for this thread.
extern constinit thread_local bool cancel_requested;

// Does not return if the thread is cancelled and lets that happen. With nothing held.
inline void cancellation_point() {
  if (cancel_requested) [[unlikely]] outside([] { pthread_testcancel(); });
}

// pthread_cancel(3) as the program sees it.
int cancel_thread(pthread_t thread);

}  // namespace sluice::preload
