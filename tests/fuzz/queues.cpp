// Request queues, divided, shared and noc: the coordinator's side, and a client's beside a hostile one of its user.
#include "shm/message_ring.h"
#include "shm/noc_queues.h"
#include "shm/region.h"
#include "shm/request_queues.h"
#include "shm/shared_queue.h"
#include "tests/fuzz/readers.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

class Queues {
 public:
  void begin(Input& in) {
    for (GuardedMemory* m : {&hostile_, &honest_, &replies_, &queue_}) m->clear();
    uint64_t position = in.flip() ? 0 : in.lie(kMessages);
    reply().requests_head.store(position, std::memory_order_relaxed);
    divided_ = MessageConsumer(&hostile().requests, &reply().requests_head);
    shared_ = SharedConsumer(&queue_.as<SharedQueueRegion>());
    // The honest client's own ring has a consumer that is the hostile one's to lie for, in one case of two.
    own_ = RequestQueues(in.flip() ? kEitherQueue : kSharedQueue, honest_.as<ClientRegion>(), lying_reply(),
                         &queue_.as<SharedQueueRegion>(), 7);
    server_ = NocServer(hostile(), reply(), 7);
    client_ = NocClient(honest_.as<ClientRegion>(), lying_reply(), 7);
    taken_ = 0;
  }

  void disturb(Input& in) {
    SharedQueueRegion& q = queue_.as<SharedQueueRegion>();
    MessageEntries& r = hostile().requests;
    uint64_t next = q.head.load(std::memory_order_relaxed);
    switch (in.byte() % 13) {
      case 0: {  // what the next entry says of itself
        uint64_t at = reply().requests_head.load(std::memory_order_relaxed) + in.byte() % 4;
        return r.entries[at % kMessages].first.store(in.flip() ? lap_mark(at) | in.word(2) : in.lie(lap_mark(at)), std::memory_order_release);
      }
      case 1: return write(&r.entries[in.byte() % kMessages], in);
      case 2: return q.tail.store(in.lie(next), std::memory_order_release);
      case 3: return q.head.store(in.lie(next), std::memory_order_release);
      case 4: return q.entries[(next + in.byte() % 4) % kSharedMessages].sequence.store(in.lie(next + 1), std::memory_order_release);
      case 5: return write(&q.entries[in.word(2) % kSharedMessages].message, in);
      case 6: return hostile().claim.store(in.flip() ? in.lie(next + 2) : claim_of(next, in.byte()), std::memory_order_release);
      case 8: return lie(in.flip() ? hostile().demux_requests : lying_queue(in), in);
      case 9: {  // what the next packet says of itself, and that it is there
        DemuxWords& w = in.flip() ? hostile().demux_requests : lying_queue(in);
        uint64_t at = w.tail.load(std::memory_order_relaxed);
        uint32_t words = in.byte() % 10;
        w.words[at % kDemuxPlaces].store(Frame{in.byte(), words, 0, in.flip() ? 7u : in.byte(), in.byte()}.packed(), std::memory_order_relaxed);
        return w.tail.store(at + 1 + words, std::memory_order_release);
      }
      case 10: {
        Shared<uint64_t>* heads[] = {&hostile().demux_replies_head, &hostile().demux_doorbells_head, &hostile().demux_control_head, &lying_reply().demux_requests_head};
        Shared<uint64_t>& head = *heads[in.byte() % 4];
        return head.store(in.lie(head.load(std::memory_order_relaxed)), std::memory_order_release);
      }
      case 7: return lying_reply().queue.store(uint32_t(in.lie(1)), std::memory_order_release);
      default: return lying_reply().requests_head.store(in.lie(0), std::memory_order_release);
    }
  }

  void step(Input& in) {
    Message m{};
    DomainId sender;
    switch (in.byte() % 9) {
      case 0: {
        uint64_t before = reply().requests_head.load(std::memory_order_relaxed);
        bool any = divided_.try_pop(m);
        return FUZZ_CHECK(reply().requests_head.load(std::memory_order_relaxed) == before + any);
      }
      case 1:
        taken_ += shared_.try_pop(m, sender);
        return;
      case 2:  // as monitor/shared.cpp gives up a ticket
        if (shared_.claimed() && !shared_.covers(hostile().claim.load(std::memory_order_acquire))) taken_ += shared_.skip();
        return;
      case 5: {
        uint64_t before = reply().demux_requests_head.load(std::memory_order_relaxed);
        bool any = server_.try_take(m) != Taken::kNothing;
        uint64_t moved = reply().demux_requests_head.load(std::memory_order_relaxed) - before;
        return FUZZ_CHECK(moved <= (any ? kFramedWords : 0));
      }
      case 6:
        server_.count_reply();
        if (server_.try_stage(m)) server_.publish();
        server_.give_credits();
        server_.owe_doorbell();
        (void)server_.ring_doorbells();
        return;
      case 7: {
        (void)client_.try_receive(m);
        client_.take_doorbells();
        bool sent = client_.try_stage(m);
        client_.publish();
        return FUZZ_CHECK(!sent || client_.credits() < UINT32_MAX);
      }
      case 3: return (void)(shared_.has_next() + shared_.claimed_count());
      case 4: {
        SharedProducer p(&queue_.as<SharedQueueRegion>(), &honest_.as<ClientRegion>().claim, 7);
        Message some[SharedProducer::kMostAtOnce] = {};
        uint32_t n = 1 + in.byte() % SharedProducer::kMostAtOnce;
        FUZZ_CHECK(p.push_some(some, n, 4) <= n);
        return FUZZ_CHECK(honest_.as<ClientRegion>().claim.load(std::memory_order_relaxed) == 0);
      }
      default: {  // only where it will not wait: the time that it waits is bounded, but long
        const SharedQueueRegion& q = queue_.as<SharedQueueRegion>();
        if (own_.current() == kSharedQueue && q.tail.load(std::memory_order_relaxed) - q.head.load(std::memory_order_relaxed) > kSharedMessages / 2)
          return;
        (void)own_.try_stage(m);
        if (own_.current() == kDividedQueue) (void)own_.publish();
      }
    }
  }

 private:
  template <class M>
  static void write(M* to, Input& in) {
    auto* words = reinterpret_cast<uint64_t*>(to);
    __atomic_store_n(&words[in.byte() % 8], in.word(), __ATOMIC_RELAXED);
  }
  static void lie(DemuxWords& w, Input& in) {
    if (in.flip()) w.tail.store(in.lie(w.tail.load(std::memory_order_relaxed)), std::memory_order_release);
    else w.words[in.byte() % kDemuxPlaces].store(in.word(), std::memory_order_relaxed);
  }
  DemuxWords& lying_queue(Input& in) const {
    ReplyRegion& r = lying_reply();
    return in.flip() ? r.demux_replies : in.flip() ? r.demux_doorbells : r.demux_control;
  }
  ClientRegion& hostile() const { return hostile_.as<ClientRegion>(); }
  ReplyRegion& reply() const { return replies_.as<ReplyRegion>(); }
  ReplyRegion& lying_reply() const { return *reinterpret_cast<ReplyRegion*>(replies_.base() + kReplyBytes); }

  GuardedMemory hostile_{kClientBytes}, honest_{kClientBytes}, replies_{2 * kReplyBytes}, queue_{kSharedQueueBytes};
  MessageConsumer divided_;
  SharedConsumer shared_;
  RequestQueues own_;
  NocServer server_{hostile(), reply(), 7};
  NocClient client_;
  uint64_t taken_ = 0;
};

}  // namespace
}  // namespace sluice::fuzz

FUZZ_READER(sluice::fuzz::Queues)
