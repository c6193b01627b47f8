// A client and the coordinator over a network-on-chip, emulated in memory (demux_queue.h). Four queues, by what is in them:
//
//   requests    client -> coordinator   in the client region
//   replies     coordinator -> client   in the reply region, as the next two
//   doorbells                           one word for each packet that the coordinator has sent to the client's socket
//   control                             credits
//
// In the hardware the requests of all clients meet in one queue of the coordinator's tile. Here each client has one, since
// a region has one writer: so it is known who has written a request, whatever its frame says.
//
// Credits: a request costs the client one. The credit comes back with the reply; or, where there is none, by a word in
// `control`, which says how many were given so since the beginning. A client begins without any, and is given kNocCredits.
// What they are worth: a request of the greatest length in the coordinator's queue, and its reply in the client's.
// So whoever keeps to them never finds a queue full, and neither side ever waits for room that the other one
// gives only after it has found room itself.
//
// Doorbells have no credits. What does not fit is owed, and rung when the client has taken some.
//
// Waking is as for the other kinds of queue: bells, and ReplyRegion::doorbell.
//
// Trust:  the coordinator counts no credits: a client that sends without them finds room for its replies only as it takes
//         them, and is not served before. What a client's queue cannot hold if it is honest, a frame in another one's name
//         included, is a broken queue.
#pragma once

#include "shm/demux_queue.h"

namespace sluice::shm {

inline constexpr uint32_t kNocCredits = kDemuxWords / kFramedWords;
// Divided credits: over all clients that send to one queue, of which there is one here.
static_assert(1 * kNocCredits * kFramedWords <= kDemuxWords);

// Frame::type in doorbells and control; Frame::id: how many so far.
enum NocNotice : uint32_t { kPacketNotice = 1, kCreditNotice = 2 };

class NocClient {
 public:
  NocClient() = default;
  NocClient(ClientRegion& mine, const ReplyRegion& theirs, DomainId self)
      : requests_(&mine.demux_requests, &theirs.demux_requests_head),
        replies_(&theirs.demux_replies, &mine.demux_replies_head),
        doorbells_(&theirs.demux_doorbells, &mine.demux_doorbells_head),
        control_(&theirs.demux_control, &mine.demux_control_head),
        self_(self) {}

  // False: no credit, or no room.
  [[nodiscard]] bool try_stage(const Message& m) {
    if (credits_ == 0) take_credits();
    if (credits_ == 0 || !requests_.try_stage(frame_of(m, words_that_travel(m), self_), m)) return false;
    --credits_;
    return true;
  }
  void publish() { requests_.publish(); }
  // A reply, and the credit of its request.
  [[nodiscard]] bool try_receive(Message& m) {
    Frame frame;
    if (replies_.try_take(frame, m) != Taken::kPacket) return false;
    ++credits_;
    return true;
  }
  // Empties the doorbells: the packets that they are for have been taken from the socket, or are about to be.
  void take_doorbells() {
    Frame frame;
    Message none;
    while (doorbells_.try_take(frame, none) == Taken::kPacket) continue;
  }
  uint32_t credits() const { return credits_; }

 private:
  void take_credits() {
    Frame frame;
    Message none;
    while (control_.try_take(frame, none) == Taken::kPacket) {
      if (frame.type != kCreditNotice) continue;
      credits_ += (frame.id - given_) % kFrameIds;
      given_ = frame.id;
    }
  }

  DemuxProducer requests_;
  DemuxConsumer replies_, doorbells_, control_;
  DomainId self_ = kNobody;
  uint32_t credits_ = 0;
  uint32_t given_ = 0;  // in control, so far
};

// The coordinator's end, one for each client.
class NocServer {
 public:
  NocServer(const ClientRegion& theirs, ReplyRegion& mine, DomainId client)
      : requests_(&theirs.demux_requests, &mine.demux_requests_head),
        replies_(&mine.demux_replies, &theirs.demux_replies_head),
        doorbells_(&mine.demux_doorbells, &theirs.demux_doorbells_head),
        control_(&mine.demux_control, &theirs.demux_control_head),
        client_(client) {
    give_credits();
  }

  DemuxConsumer::Place next() const { return requests_.next(); }
  [[nodiscard]] Taken try_take(Message& m) {
    Frame frame;
    Taken taken = requests_.try_take(frame, m);
    if (taken != Taken::kPacket) return taken;
    if (frame.sender != client_) return Taken::kBroken;
    ++taken_;
    return taken;
  }
  // After requests that were handled: the credits of those that have no reply. Whether there were any.
  bool give_credits() {
    uint64_t all = kNocCredits + taken_ - answered_;
    if (all <= given_ || !notify(control_, kCreditNotice, all)) return false;
    given_ = all;
    return true;
  }

  // A request has a reply, whether it fits now or is sent later.
  void count_reply() { ++answered_; }
  [[nodiscard]] bool try_stage(const Message& reply) {
    return replies_.try_stage(frame_of(reply, words_that_travel(reply), kCoordinator), reply);
  }
  void publish() { replies_.publish(); }

  // A packet has gone to the client's socket.
  void owe_doorbell() { ++owed_; }
  bool owes_doorbells() const { return owed_ != 0; }
  // Whether any could be rung.
  bool ring_doorbells() {
    uint64_t before = owed_;
    while (owed_ != 0 && notify(doorbells_, kPacketNotice, rung_ + 1)) ++rung_, --owed_;
    return owed_ != before;
  }

 private:
  static bool notify(DemuxProducer& queue, NocNotice notice, uint64_t count) {
    return queue.try_send({notice, 0, 0, kCoordinator, uint32_t(count % kFrameIds)}, {});
  }

  DemuxConsumer requests_;
  DemuxProducer replies_, doorbells_, control_;
  DomainId client_ = kNobody;
  uint64_t taken_ = 0, answered_ = 0;  // requests
  uint64_t given_ = 0;                 // credits, in control
  uint64_t rung_ = 0, owed_ = 0;       // doorbells
};

}  // namespace sluice::shm
