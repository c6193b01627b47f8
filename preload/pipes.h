// The pipes of this process: which descriptors are their ends, and what becomes of them over fork and
// exec. A pipe gets a channel when a fork makes it one between processes; until then, and for
// everything that has no channel, it is the kernel's and costs one look into the table.
#pragma once

#include "preload/descriptor_table.h"
#include "preload/files/pipe_end.h"

namespace sluice::preload {

extern DescriptorTable pipe_ends;
extern bool any_pipes;   // there has been one; else the table is not looked at

inline PipeEnd* pipe_at(int fd) { return any_pipes ? static_cast<PipeEnd*>(pipe_ends.peek(fd)) : nullptr; }

// A reference for the length of a call, to an end that has a channel.
class PipeReference {
 public:
  explicit PipeReference(int fd) : end_(any_pipes ? static_cast<PipeEnd*>(pipe_ends.find(fd)) : nullptr) {}
  ~PipeReference() {
    if (end_ != nullptr) end_->release();
  }
  PipeReference(const PipeReference&) = delete;
  PipeReference& operator=(const PipeReference&) = delete;
  PipeEnd* get() const { return end_; }
  PipeEnd* with_channel() const { return end_ != nullptr && end_->has_channel() ? end_ : nullptr; }

 private:
  PipeEnd* end_;
};

// The program has made a pipe; `flags`: of pipe2(2).
void note_pipe(const int ends[2], int flags);
// `copy` is a new descriptor for what `from` is.
void share_pipe_end(int from, int copy);
// `fd` is being closed or replaced.
void drop_pipe_end(int fd);
void drop_pipe_ends(unsigned first, unsigned last);

// Before a fork: pipes that both processes will hold get a channel. Under control_lock.
void create_pipe_channels();

// Somebody waits for readiness in the kernel from now on. False: there are bytes that it does not
// know of, so the descriptor is readable all the same.
bool settle_polled(int fd);

// A descriptor goes to another process in a message.
void pass_on_pipe(int fd);

// Around exec and its like: whoever holds an end in the new program finds all bytes in the kernel's
// pipe, or the channel, if it has the shim. Works in a vfork child.
class PipeDeparture {
 public:
  PipeDeparture();
  void call_off();  // there is no new program

 private:
  bool any_ = false;
};

// At start-up: if `fd` is the memory of a channel that was passed on, and its pipe is open.
void inherit_channel(int fd);
void give_up_pipe_end(PipeEnd& p);  // the last reference is gone; under control_lock

}  // namespace sluice::preload
