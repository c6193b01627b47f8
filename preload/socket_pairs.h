// The socket pairs of this process, as pipes.h has its pipes: a pair of streams gets a channel when a fork makes it one
// between processes, and is the kernel's until then.
#pragma once

#include "preload/descriptor_table.h"
#include "preload/files/pair_end.h"

namespace sluice::preload {

extern DescriptorTable pair_ends;
extern bool any_pairs;  // there has been one; else the table is not looked at

inline PairEnd* pair_at(int fd) { return any_pairs ? static_cast<PairEnd*>(pair_ends.peek(fd)) : nullptr; }

// A reference for the length of a call.
class PairReference {
 public:
  explicit PairReference(int fd) : end_(any_pairs ? static_cast<PairEnd*>(pair_ends.find(fd)) : nullptr) {}
  ~PairReference() {
    if (end_ != nullptr) end_->release();
  }
  PairReference(const PairReference&) = delete;
  PairReference& operator=(const PairReference&) = delete;
  PairEnd* get() const { return end_; }
  PairEnd* with_channel() const { return end_ != nullptr && end_->has_channel() ? end_ : nullptr; }

 private:
  PairEnd* end_;
};

// The program has made a socket pair of this type, flags included.
void note_pair(const int ends[2], int type);
// `copy` is a new descriptor for what `from` is.
void share_pair_end(int from, int copy);
// `fd` is being closed or replaced.
void drop_pair_end(int fd);
void drop_pair_ends(unsigned first, unsigned last);

// Before a fork: pairs that both processes will hold get a channel. Under control_lock.
void create_pair_channels();

// The program asks whether there is something to read; `for_good`: it is told so from now on, by epoll.
void note_pair_polled(int fd, bool for_good);
// A descriptor goes to another process in a message, or has become something special.
void leave_pair_to_kernel(int fd, bool reads = true, bool writes = true);

// The process is about to forbid itself system calls.
void leave_all_pairs();

// Around exec and its like: the new program has the memory of the ends that it has, if it knows what to do with it.
// Nothing else is needed, since no bytes wait there. Works in a vfork child.
class PairDeparture {
 public:
  PairDeparture();
  void call_off();  // there is no new program

 private:
  bool any_ = false;
};

// At start-up: if `fd` is the memory of a channel that was passed on, and an end of its pair is open.
void inherit_handoff(int fd);
void give_up_pair_end(PairEnd& p);  // the last reference is gone; under control_lock

}  // namespace sluice::preload
