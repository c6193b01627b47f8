// One end of a socketpair(2) of streams that this process has made or inherited. While a reader is inside a blocking
// call, bytes go through shared memory (shm/handoff.h), and otherwise through the kernel's socket; the descriptor
// is the kernel's own, so whatever the shim does not know of works as ever.
#pragma once

#include <sys/uio.h>

#include "preload/files/file.h"
#include "preload/process_lock.h"
#include "shm/handoff.h"

namespace sluice::preload {

// The mapping, which both ends have in common in the process that made the pair. Under control_lock.
struct HandoffMapping {
  void* pool_link = nullptr;
  std::byte* base = nullptr;
  int fd = -1;  // of the memory, for programs that are started with an end
  uint32_t ends = 0;
};

// The program's own call, made in the kernel: receive(MSG_DONTWAIT), or what is left to send after
// `done` bytes. Bytes or -errno.
class KernelCall {
 public:
  template <class F>
  explicit KernelCall(F& f) : call_([](void* f, size_t done) { return (*static_cast<F*>(f))(done); }), f_(&f) {}
  ssize_t make(size_t done) const { return call_(f_, done); }

 private:
  ssize_t (*call_)(void*, size_t);
  void* f_;
};

// sendmsg(2) for what is left after `done` bytes; without SIGPIPE, since the call has succeeded for these. As libc's.
ssize_t send_rest(int fd, const iovec* iov, int count, size_t done, int flags);

class PairEnd : public File {
 public:
  PairEnd(ino_t inode, unsigned index) : File(FileKind::kPairEnd), inode(inode), index(index) {}

  // A blocking call without flags that change what it does. kNowTheKernels: it is to be made in the kernel.
  ssize_t receive(const iovec* iov, int count, const KernelCall& at_once);
  ssize_t send(int fd, const iovec* iov, int count, bool wait, const KernelCall& rest);
  // Around a call that writes to the kernel's socket in another way.
  class Bypass;

  // The program looks whether there is something before it reads.
  void note_polled();
  // From now on all bytes that are read (written) here go through the kernel.
  void leave_for_good(bool reads, bool writes);
  void note_nonblocking(bool on);
  void leave_resting();  // nobody of this process comes back
  bool has_channel() const { return mapping != nullptr; }

  const ino_t inode;
  const unsigned index;            // 0 or 1
  PairEnd* other = nullptr;        // the other end, while it has no channel and is open here
  HandoffMapping* mapping = nullptr;
  bool nonblocking = false;        // before there is a channel, like the next
  bool kernels = false;            // watched for events, or with an option that only the kernel honours
  bool counted = false;            // among those that stay with the kernel
 private:
  shm::HandoffHeader& header() const { return *reinterpret_cast<shm::HandoffHeader*>(mapping->base); }
  shm::Handoff in() const { return shm::Handoff(mapping->base, index); }
  shm::Handoff out() const { return shm::Handoff(mapping->base, 1 - index); }
  ssize_t meet(const iovec* iov, int count, const KernelCall& at_once);
  bool ask(const KernelCall& at_once, uint64_t& word, size_t room, ssize_t& n);
  bool come_in(uint64_t& word, size_t room);
  ssize_t take_left(const iovec* iov, int count, size_t n);
  ssize_t await_and_take(const iovec* iov, int count, uint64_t word);
  int copy_out(const iovec* iov, int count, size_t done, size_t n);
  void note_taken(size_t n);
  size_t put(int fd, const iovec* iov, int count, size_t total, bool wait);
  bool await_reader(uint64_t word, size_t left, bool wait);
  bool is_current(int fd);
  bool is_reader_alive();
  void go_to_kernel(int fd);
  void move_ring(int fd);

  // Of this process, all hints.
  std::atomic<uint64_t> looked_at_{0};       // when the kernel's socket was looked at last, in ticks
  std::atomic<uint64_t> taken_{0};           // through the ring
  std::atomic<uint32_t> in_kernel_{0};       // reads in a row that found something there
  std::atomic<bool> polled_{false};          // since the last read
  std::atomic<bool> answers_{false};         // something has been read since the last write
  std::atomic<uint32_t> disappointments_{0};  // waits for a reader that did not come
};

class PairEnd::Bypass {
 public:
  Bypass(PairEnd& p, int fd);
  ~Bypass();
  Bypass(const Bypass&) = delete;
  Bypass& operator=(const Bypass&) = delete;

 private:
  PairEnd* end_;
};

}  // namespace sluice::preload
