// The request queues of one client: its own ring, the queue of its user, or both, and then the coordinator
// says which of them the next request takes (ReplyRegion::queue).
//
// Order:  a client goes over to the other queue only when the coordinator has taken all that it said in the one
//         before, so its requests are served in the order in which it made them.
// Trust:  how far the shared queue has been taken, its other users can lie about. What they gain is that requests of
//         their own user are served out of order.
#pragma once

#include "shm/layout.h"
#include "shm/message_ring.h"
#include "shm/shared_queue.h"

namespace sluice::shm {

class RequestQueues {
 public:
  RequestQueues() = default;
  // `queue`: of the client's user; null with kDividedQueue.
  RequestQueues(RequestQueue kind, ClientRegion& mine, const ReplyRegion& replies, SharedQueueRegion* queue, DomainId self)
      : divided_(&mine.requests, &replies.requests_head),
        shared_(queue, &mine.claim, self),
        choice_(kind == kEitherQueue ? &replies.queue : nullptr),
        now_(kind == kEitherQueue ? chosen() : kind) {}

  // False: the queue is full.
  [[nodiscard]] bool try_push(const Message& m) {
    if (choice_ != nullptr) follow();
    return now_ == kSharedQueue ? shared_.try_push(m) : divided_.try_push(m);
  }
  // The same in two steps, for several requests: one line that the coordinator has to fetch anew, or one claim.
  [[nodiscard]] bool try_stage(const Message& m) {
    if (choice_ != nullptr) follow();
    if (now_ != kSharedQueue) return divided_.try_stage(m);
    if (staged_count_ == SharedProducer::kMostAtOnce && !publish()) return false;
    if (!shared_.has_room(staged_count_ + 1)) return false;
    staged_[staged_count_++] = m;
    return true;
  }
  // False: the queue is full; the rest stays staged.
  [[nodiscard]] bool publish() {
    if (now_ != kSharedQueue) return divided_.publish(), true;
    uint32_t done = staged_count_ != 0 ? shared_.push_some(staged_, staged_count_) : 0;
    for (uint32_t i = done; i < staged_count_; ++i) staged_[i - done] = staged_[i];
    staged_count_ -= done;
    return staged_count_ == 0;
  }
  RequestQueue current() const { return now_; }

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
  const Shared<uint32_t>* choice_ = nullptr;
  RequestQueue now_ = kDividedQueue;
  uint32_t staged_count_ = 0;  // for the shared queue
  Message staged_[SharedProducer::kMostAtOnce] = {};
};

}  // namespace sluice::shm
