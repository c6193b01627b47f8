// What a carrier does: moves bytes between connections and the socket ends that stand for them
// in another program, until nothing is left to move: bytes, or records of SOCK_SEQPACKET, one at a time.
// Uses the wrappers like any program.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace sluice::preload {

class CarrierLoop {
 public:
  // `connection`: one of ours; `end`: the carrier's end of the pair. Takes both.
  void add(int connection, int end);
  void run();

 private:
  struct Side {
    int fd;
    bool hung_up;   // nobody reads what is written there, and nothing new comes
    bool readable;
  };
  static constexpr int kMostDescriptors = 253;  // in one message, by the kernel
  static constexpr std::size_t kStreamRoom = 64 * 1024;
  static constexpr std::size_t kRecordRoom = 1024 * 1024;  // more than a ring takes
  // One direction, through a buffer. Descriptors go with its first byte.
  struct Flow {
    bool held;  // a record, or bytes
    std::size_t begin, end;
    bool ended;  // nothing more comes in
    bool over;   // nor goes out
    int descriptor_count;
    int descriptors[kMostDescriptors];
    char* buffer;
    std::size_t room;
  };
  struct Carried {
    Side connection, program;
    Flow there, back;
    bool records;
    std::size_t bytes;  // of this, with the buffers behind it
    Carried* next;
  };
  static pollfd wanted_of(const Side& s, const Flow& out, const Flow& in);
  static void look(Side& s, short events);
  static ssize_t receive(Flow& f, int from, bool records, bool& ended);
  static ssize_t send(Flow& f, int to);
  static void drop_descriptors(Flow& f);
  static void move(Flow& f, Side& from, Side& to, bool records);
  void drop_finished();

  Carried* first_ = nullptr;
  uint32_t count_ = 0;
};

}  // namespace sluice::preload
