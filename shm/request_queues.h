// The request queues of one client: its own ring, the queue of its user, or both, and then the coordinator
// says which of them the next request takes (ReplyRegion::queue); or packets of a network-on-chip. And how
// replies come back.
//
// Order:  a client goes over to the other queue only when the coordinator has taken all that it said in the one
//         before, so its requests are served in the order in which it made them.
// Trust:  how far the shared queue has been taken, its other users can lie about. What they gain is that requests of
//         their own user are served out of order.
#pragma once

#include "shm/layout.h"
#include "shm/message_ring.h"
#include "shm/noc_queues.h"
#include "shm/shared_queue.h"

namespace sluice::shm {

class RequestQueues {
 public:
  RequestQueues() = default;
  // `queue`: of the client's user; null unless has_shared_queue(kind).
  RequestQueues(RequestQueue kind, ClientRegion& mine, const ReplyRegion& replies, SharedQueueRegion* queue, DomainId self)
      : divided_(&mine.requests, &replies.requests_head),
        shared_(queue, &mine.claim, self),
        noc_(mine, replies, self),
        replies_(&replies.replies, &mine.replies_head),
        choice_(kind == kEitherQueue ? &replies.queue : nullptr),
        now_(kind == kEitherQueue ? chosen() : kind) {}

  // False: the queue is full.
  [[nodiscard]] bool try_push(const Message& m) {
    if (choice_ != nullptr) follow();
    if (now_ == kDividedQueue) return divided_.try_push(m);
    if (now_ == kSharedQueue) return shared_.try_push(m);
    return noc_.try_stage(m) && (noc_.publish(), true);
  }
  // The same in two steps, for several requests: one line that the coordinator has to fetch anew, or one claim.
  [[nodiscard]] bool try_stage(const Message& m) {
    if (choice_ != nullptr) follow();
    if (now_ == kDividedQueue) return divided_.try_stage(m);
    if (now_ == kNocQueue) return noc_.try_stage(m);
    if (staged_count_ == SharedProducer::kMostAtOnce && !publish()) return false;
    if (!shared_.has_room(staged_count_ + 1)) return false;
    staged_[staged_count_++] = m;
    return true;
  }
  // False: the queue is full; the rest stays staged.
  [[nodiscard]] bool publish() {
    if (now_ == kDividedQueue) return divided_.publish(), true;
    if (now_ == kNocQueue) return noc_.publish(), true;
    uint32_t done = staged_count_ != 0 ? shared_.push_some(staged_, staged_count_) : 0;
    for (uint32_t i = done; i < staged_count_; ++i) staged_[i - done] = staged_[i];
    staged_count_ -= done;
    return staged_count_ == 0;
  }
  RequestQueue current() const { return now_; }

  [[nodiscard]] bool try_receive(Message& reply) {
    return now_ == kNocQueue ? noc_.try_receive(reply) : replies_.try_pop(reply);
  }
  // What grows with each packet that the coordinator has sent on the control socket.
  static const Shared<uint64_t>& packets(RequestQueue kind, const ReplyRegion& replies) {
    return kind == kNocQueue ? replies.demux_doorbells.tail : replies.packets;
  }
  // Packets have been taken from there.
  void note_packets() {
    if (now_ == kNocQueue) noc_.take_doorbells();
  }

 private:
  RequestQueue chosen() const {
    return choice_->load(std::memory_order_relaxed) == kSharedQueue ? kSharedQueue : kDividedQueue;  // nothing depends on it
  }
  void follow() {
    RequestQueue next = chosen();
    if (next == now_ || staged_count_ != 0) return;
    if (!(now_ == kSharedQueue ? shared_.is_drained() : divided_.is_drained())) return;
    now_ = next;
  }

  MessageProducer divided_;
  SharedProducer shared_;
  NocClient noc_;
  MessageConsumer replies_;
  const Shared<uint32_t>* choice_ = nullptr;
  RequestQueue now_ = kDividedQueue;
  uint32_t staged_count_ = 0;  // for the shared queue
  Message staged_[SharedProducer::kMostAtOnce] = {};
};

}  // namespace sluice::shm
