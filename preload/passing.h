// Descriptors that travel over AF_UNIX (SCM_RIGHTS). What is ours is replaced in the message by
// something that any program can have: a listener and an unconnected socket are the kernel's
// already; a connection becomes a ticket, which a receiver with the shim turns into the connection
// again (docs/protocol.md, "Passing a connection"), or the end of a kernel socket pair that a
// carrier serves.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "preload/channels.h"
#include "preload/escape.h"

namespace sluice::preload {

// A message as it is sent. Lives until it has been.
class Parcel {
 public:
  // Over a socket of the kernel's; over a connection of ours, of which we know who takes it.
  Parcel(int channel, const msghdr* m);
  Parcel(Takers takers, const msghdr* m);
  ~Parcel();
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;
  const msghdr* message() const { return message_; }
  // 0, or the -errno with which sending fails: nothing is lost unnoticed.
  int error() const { return error_; }

 private:
  void fill(int channel, Takers takers, const msghdr* m);
  int replace(int channel, Takers takers, int fd);
  void carry();

  const msghdr* message_;
  msghdr copy_{};
  void* control_ = nullptr;
  Leaving* list_ = nullptr;
  uint32_t count_ = 0;
  int error_ = 0;
};

// Whether a message may hold descriptors of ours. Cheap.
bool may_pass(const msghdr* m);

// What came in a message that libc has received, at its end.
void unpack(const msghdr* m);
inline void unpack_if_any(const msghdr* m) {
  if (m->msg_controllen > 0) [[unlikely]] unpack(m);
}

}  // namespace sluice::preload
