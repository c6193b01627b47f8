// What tiles tell each other, over one of three kinds of queue. All of a tile's messages come in one queue, so those of a sender are
// taken in the order in which they were sent; the room in it is the plan's, so sending never waits for the receiver.
//
// Over memory a message is in a line of its own, with a number that says that it is there. The sender writes it, fences, and
// writes the number; the receiver polls the number, and fences once it has it.
#pragma once

#include <memory>

#include "nocsim/memory_model.h"
#include "shm/noc_frame.h"
#include "tilera/dlibos/plan.h"
#include "tilera/sim_noc.h"

namespace sluice::tilera::dlibos {

enum NoteType : uint32_t { kPacket, kData, kReply, kTransmit, kRxDone, kRxFree, kTxDone, kReplyFree, kConnect, kConnected };
// What is said in the first word.
constexpr bool is_short(uint32_t type) { return type >= kRxDone; }

struct Note {
  uint32_t type = 0;
  TileId from = 0;
  uint32_t id = 0;    // of the request between these two
  uint64_t word = 0;  // where the bytes lie; not of short ones
};

// A tile's end of all its queues.
class Mailbox {
 public:
  virtual ~Mailbox() = default;
  // What this tile has stored is seen by whoever takes what it sends after this.
  virtual void publish() = 0;
  virtual void send(TileId to, const Note& note) = 0;
  virtual Note receive() = 0;
  virtual bool try_receive(Note& note) = 0;
  // Cycles in receive() in which there was nothing, until now.
  uint64_t idle(uint64_t now) const { return idle_ + (waits_ ? now - since_ : 0); }

 protected:
  void begin_wait(uint64_t now) {
    waits_ = true;
    since_ = now;
  }
  void end_wait(uint64_t now) {
    waits_ = false;
    idle_ += now - since_;
  }

 private:
  uint64_t idle_ = 0, since_ = 0;
  bool waits_ = false;
};

// The queues of all tiles.
class Mail {
 public:
  Mail(const Setting& setting, const std::vector<Pipeline>& pipelines);
  ~Mail();
  std::unique_ptr<Mailbox> open(nocsim::Tile& tile);
  uint64_t sent() const { return sent_; }
  uint64_t taken() const { return taken_; }

 private:
  friend class NocMailbox;
  friend class MemoryMailbox;
  // Its number is its place, counted from 1, once the note in it is whole.
  struct alignas(nocsim::MemoryModel::kLineBytes) Line {
    uint64_t number = 0;
    Note note;
  };
  // The positions are each in its owner's own memory.
  struct Ring {
    TileId from = 0;  // shared: nobody in particular
    std::vector<Line> lines;
    uint64_t claimed = 0, taken = 0;
    uint64_t counter_free = 0;  // when the line with the counter of claims can be asked again
  };
  struct Receiver {
    std::vector<std::unique_ptr<Ring>> rings;
  };
  void connect(TileId from, TileId to, uint32_t notes);

  const Setting& setting_;
  std::vector<Receiver> receivers_;
  uint64_t sent_ = 0, taken_ = 0;
};

}  // namespace sluice::tilera::dlibos
