// Ancillary data of an accelerated connection of AF_UNIX: SCM_RIGHTS and SCM_CREDENTIALS.
//
// Descriptors can only be in the kernel's hands. So who sends them for the first time makes a
// socket pair, the channel, and passes one end of it to the peer, through the coordinator. The
// control message travels there, with the position in the stream of the bytes that it was sent with;
// the bytes go through the ring as ever. It is in the channel, and counted in the sender's slot, before
// they are published: who sees the bytes sees the count.
//
// Ownership: each direction has a channel of its own; a process that shares the connection by fork
// makes another one if it has not inherited one. `ancillaries` is the sender's word, under its
// send_lock, `ancillaries_taken` the receiver's, under its receive_lock. Number n is the next to be
// taken when n were taken, in whichever channel it is.
// Death: what is in the channel outlives its sender; the sender keeps the far end too, so that a
// connection that nobody has accepted can be made elsewhere, with all that it was sent.
// Trust: a header that does not fit ends the connection.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "preload/sleep.h"

namespace sluice::preload {

struct AncillaryHeader {
  uint64_t position;  // of the first byte that was sent with it
  uint32_t bytes;     // as far as they were sent at once: a read ends there
  uint32_t number;    // from 0 on
};

// A connection's channels. Under control_lock, but the descriptors are used without.
struct Channels {
  static constexpr int kIn = 4;
  void* pool_link = nullptr;
  int out = -1;
  int far = -1;  // the peer's end of `out`
  int in[kIn] = {-1, -1, -1, -1};
};

Channels* create_channels();
void close_sending(Channels& c);  // nothing more is sent, or sent again elsewhere
void destroy_channels(Channels* c);

// Whether an end that came from a peer is one.
bool is_channel(int fd);

bool wait_writable(int fd, const Deadline& deadline);
// All of it to a kernel socket, in time.
bool send_all(int fd, const std::byte* bytes, uint64_t n, const Deadline& deadline);

// Sends on what came out of `far` with the bytes that it belongs to, to a kernel connection. `bytes`:
// all that was sent so far. False if that fails.
bool repeat_in_kernel(int far, int to, const std::byte* bytes, uint64_t n, const Deadline& deadline);

// Likewise for records (shm/records.h): `bytes` are those of the ring, with their lengths.
bool repeat_records_in_kernel(int far, int to, const std::byte* bytes, uint64_t n, const Deadline& deadline);

// One message out of a channel's far end, to be sent elsewhere.
class SentAncillary {
 public:
  SentAncillary() = default;
  ~SentAncillary() { close_descriptors(); }
  SentAncillary(const SentAncillary&) = delete;
  SentAncillary& operator=(const SentAncillary&) = delete;
  // The next one. False: there is none.
  bool take(int far);
  const AncillaryHeader& header() const { return header_; }
  // Bytes with it, or plain ones, at once; waits for space until the deadline. Bytes or -1.
  ssize_t send(int to, const std::byte* bytes, size_t n, bool with, const Deadline& deadline) const;

 private:
  void close_descriptors();
  AncillaryHeader header_{};
  size_t control_bytes_ = 0;
  // The kernel's limit is 253 descriptors in a message.
  static constexpr size_t kRoom = CMSG_SPACE(253 * sizeof(int)) + CMSG_SPACE(sizeof(ucred));
  alignas(cmsghdr) char control_[kRoom];
};

// What the program is told of a message without ancillary data whose sender it wants to know.
void put_credentials(msghdr& m, const ucred& sender);

// Whether it says no more than who sends.
bool has_only_credentials(const msghdr& m, const ucred& who);

}  // namespace sluice::preload
