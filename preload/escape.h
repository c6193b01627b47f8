// When a connection leaves for a program without the shim's memory (exec, posix_spawn): there it is
// one end of a kernel socket pair, and a process of ours, the carrier, moves the bytes between
// the other end and the rings. Slower than either, but it works for any program and loses nothing.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace sluice::preload {

class File;
class TcpSocket;

// A descriptor of ours that is to be open in the new program.
struct Leaving {
  int fd;
  TcpSocket* socket;
  int substitute;  // what it will be there, -1: what it is
  int far_end;     // the carrier's, once for each connection; else -1
  int original;    // what it was here, while `substitute` is in its place
  // The program is given it as stdin, stdout or stderr. Whatever else is open there may be so by
  // oversight: as long as other processes have the connection, its bytes are theirs to read.
  bool meant;
  // What travels is a ticket: carried only if nobody takes it.
  uint32_t ticket;
};

// A socket pair whose first end looks in another program like the connection `s`.
bool create_ends(const TcpSocket& s, int* ends);

// The carrier of one exec. It touches no byte before depart(). Everything here works in a vfork
// child too, whose memory is its parent's: nothing is allocated, and the list is the caller's.
class Carrier {
 public:
  // Fills in the substitutes and starts the carrier if there is something to carry. What cannot
  // be carried is left as it is.
  // Ends that are there already are used. False: there is no carrier.
  bool start(Leaving* list, uint32_t count);
  // Whether what start() was told to carry will be lost, though there is a coordinator, as it could not be begun.
  bool has_failed(const Leaving* list, uint32_t count) const;
  // The new program runs. exec says so by closing `go_`, which nobody can do twice.
  void depart() { finish('g'); }
  // It does not: the carrier ends without having taken anything.
  void call_off() { finish('x'); }

 private:
  struct Launch;
  static int launch(void* launch);
  [[noreturn]] static void run(const Launch& l);
  void finish(char verdict);
  int go_ = -1;
};

// After the new program has its own copies. Each is closed once.
void close_substitutes(Leaving* list, uint32_t count);

// Around exec.
class Departure {
 public:
  // How many entries `list` needs at most.
  static uint32_t room();
  // There is no memory, descriptor or process to carry what stays open: exec would lose it.
  bool is_impossible() const { return impossible_; }
  // Every descriptor of ours that will stay open becomes the kernel's.
  Departure(Leaving* list, uint32_t room);
  // exec has failed: everything is again what it was.
  void call_off();

 private:
  void collect(uint32_t room);
  void replace(Leaving& l);
  void restore(Leaving& l);
  Leaving* list_;
  uint32_t count_ = 0;
  bool impossible_ = false;
  Carrier carrier_;
};

// A vfork child made `fd` a duplicate of this file; null: something else, or nothing.
void note_vfork_copy(int fd, File* f);
// Whether there ever was one: else what the table says of a descriptor is all there is to know.
extern std::atomic<uint32_t> vfork_copies;
inline bool any_vfork_copies() { return vfork_copies.load(std::memory_order_relaxed) != 0; }  // the caller's own, if any
// The file behind `fd` here, in a vfork child as well.
File* file_at(int fd);

}  // namespace sluice::preload
