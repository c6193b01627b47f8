// One end of a pipe(2) that this process has made or inherited. Bytes go through the channel
// (shm/channel.h) while a blocking reader is awake, and through the kernel's pipe otherwise; the
// descriptor is the kernel's own, so whatever the shim does not know of works as ever.
#pragma once

#include <sys/uio.h>

#include "preload/files/file.h"
#include "preload/stream_pace.h"
#include "preload/process_lock.h"
#include "shm/channel.h"

namespace sluice::preload {

// The mapping, which both ends have in common in the process that made the pipe. Under
// control_lock.
struct ChannelMapping {
  void* pool_link = nullptr;
  shm::Channel channel;
  int fd = -1;  // of the memory, for programs that are started with the pipe
  uint32_t ends = 0;
};

class PipeEnd : public File {
 public:
  PipeEnd(bool writes, ino_t inode) : File(FileKind::kPipeEnd), inode(inode), writes(writes) {}

  // read(2) and write(2) of the kernel's descriptor `fd`, which is this end. Bytes or -errno.
  ssize_t receive(int fd, const iovec* iov, int count);
  ssize_t send(int fd, const iovec* iov, int count);

  // Before something that is not ours looks at the kernel's pipe: all bytes are there. False:
  // some are still in the ring, and must be read from there first.
  bool settle(int fd);
  // And from now on all bytes are to go there, for whoever holds it.
  bool settle_for_good(int fd);
  // Around a call that writes to the kernel's pipe behind our back.
  class Bypass;

  size_t in_ring();  // bytes that FIONREAD does not know of
  void note_nonblocking(bool on);
  bool has_channel() const { return mapping != nullptr; }

  const ino_t inode;
  const bool writes;
  bool blocking = true;           // before there is a channel: as the program last set it
  PipeEnd* other = nullptr;       // the other end, while it has no channel and is open here
  ChannelMapping* mapping = nullptr;

 private:
  class Turn;
  shm::Channel channel() const { return mapping->channel; }
  shm::ChannelHeader& header() const { return mapping->channel.header(); }
  shm::Shared<uint32_t>& lock_word() const { return writes ? header().write_lock : header().read_lock; }
  ssize_t take(const iovec* iov, int count);
  bool may_enter() const;
  void want();
  bool enter(int fd);
  bool begin_ring(int fd, uint64_t word, size_t total);
  bool is_writer_awake() const;
  bool await_ring();
  bool await_bytes();
  bool is_still_empty(uint64_t word) const;
  bool sleep_in_kernel(Turn& turn, int fd, const iovec* iov, int count, ssize_t& n);
  bool await_wish(int fd, uint64_t word);
  size_t put(int fd, const iovec* iov, int count, size_t total, bool wait);
  bool is_current(int fd);
  bool await_space(size_t wanted);
  void go_to_kernel(int fd, const Turn& turn);
  bool move_ring(int from, int to);
  bool move_ring_in_front(int from, int to);
  bool flush(int fd);
  void note_accelerated();

  StreamPace pace_;  // of a reader
  std::atomic<uint64_t> looked_at_{0};  // when the kernel's pipe was looked at last, in ticks
};

class PipeEnd::Bypass {
 public:
  Bypass(PipeEnd& p, int fd);
  ~Bypass();
  Bypass(const Bypass&) = delete;
  Bypass& operator=(const Bypass&) = delete;

 private:
  PipeEnd& end_;
};

}  // namespace sluice::preload
