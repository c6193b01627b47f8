// A client's side: requests and replies, notices, and waiting to be told something. Programs on a tile use this
// in place of the shim.
//
// Every request costs a credit until it is answered, also those without a reply: the coordinator returns
// their credit alone. So what has been sent is answered in order, and a client never has more replies coming
// than its queue has room for. After the last one has been answered, and LEAVE, another program may take the tile over.
#pragma once

#include "shm/message_ring.h"
#include "tilera/code_costs.h"
#include "tilera/doorbells.h"

namespace sluice::tilera {

template <Noc N>
class ClientTile {
 public:
  ClientTile(N& noc, const Plan& plan, SharedMemory& memory)
      : noc_(noc),
        plan_(plan),
        memory_(memory),
        mine_(memory.of[noc.here()]),
        requests_(noc.header(plan.via[noc.here()], kRequests)),
        notices_(&memory.to[noc.here()].notices, &mine_.notices_head),
        bells_(noc, memory),
        overruns_(memory.to[noc.here()].overruns.load(std::memory_order_relaxed)),  // our predecessor's
        sleeps_(mine_.sleeping.load(std::memory_order_relaxed)) {}                  // likewise

  N& noc() { return noc_; }
  Doorbells<N>& bells() { return bells_; }
  const shm::Directory& directory() const { return memory_.directory; }
  uint32_t credits() const { return plan_.depth - under_way_; }

  // ---- requests ----
  // False: no credit. Of the id 24 bits travel.
  [[nodiscard]] bool try_send(const Message& m) {
    if (under_way_ == plan_.depth) return false;
    spend(noc_, kCyclesToAsk);
    const uint32_t words = shm::words_that_travel(m);
    Frame frame = shm::frame_of(m, words, noc_.here());
    if (1 + words > plan_.packet_words) {
      frame.words = shm::kInLine;
      frame.status = line_;
      leave_in_line(m);
    }
    line_ = line_ + 1 == plan_.depth ? 0 : line_ + 1;
    ++under_way_;
    send_framed(noc_, requests_, frame, m);
    return true;
  }
  // Waits for the next reply; only while something is under way. Of a request without a reply it has the type kTaken.
  Message receive() {
    const Frame f = Frame::unpacked(noc_.template receive<kReplies>());
    --under_way_;
    spend(noc_, kCyclesToHear);
    return receive_rest<kReplies>(noc_, f);
  }
  [[nodiscard]] bool has_reply() { return (noc_.available() & bit_of(kReplies)) != 0; }

  // A request and its reply, while nothing else is under way.
  Message call(Message m) {
    m.id = ++last_id_;
    (void)try_send(m);
    return receive();
  }

  // The domain, or kNobody. What another program on this tile left behind unread is not ours.
  shm::DomainId join(int32_t pid) {
    const Message reply = call({kJoin, 0, 0, {uint32_t(pid)}});
    return reply.status == 0 ? shm::DomainId(reply.words[0]) : shm::kNobody;
  }
  void leave() { (void)call({kLeave, 0, 0, {}}); }
  // The tile of a domain with which memory is about to be shared; or -errno.
  [[nodiscard]] int meet(shm::DomainId peer) {
    const Message reply = call({kMeet, 0, 0, {peer}});
    return reply.status == 0 ? int(reply.words[0]) : -int(reply.status);
  }

  // ---- notices ----
  // What the coordinator says unasked. False: nothing. To be looked at when the root has rung.
  [[nodiscard]] bool try_notice(Message& out) {
    const NoticeMemory& memory = memory_.to[noc_.here()];
    reads(noc_, &memory.overruns, sizeof memory.overruns);
    const uint64_t overruns = memory.overruns.load(std::memory_order_acquire);
    reads(noc_, notices_.next().first, shm::kCacheLine);
    if (notices_.try_pop(out)) {
      writes(noc_, &mine_.notices_head, sizeof mine_.notices_head);
      return true;
    }
    if (overruns == overruns_) return false;
    overruns_ = overruns;
    out = {kOverrun, 0, 0, {}};
    return true;
  }

  // Waits until somebody rings, and says who. Meanwhile the coordinator knows that this tile waits at that listener
  // (kEveryListener: at any), and sends connections here before it does to those who are busy.
  TileId await_ring_at(uint32_t listener) {
    mine_.accepting.store(listener, std::memory_order_relaxed);
    mine_.sleeping.store(++sleeps_, std::memory_order_relaxed);
    writes(noc_, &mine_.sleeping, sizeof mine_.sleeping + sizeof mine_.accepting);
    noc_.fence();
    const TileId who = bells_.await_ring();
    mine_.accepting.store(0, std::memory_order_relaxed);
    mine_.sleeping.store(++sleeps_, std::memory_order_relaxed);
    writes(noc_, &mine_.sleeping, sizeof mine_.sleeping + sizeof mine_.accepting);
    return who;
  }

 private:
  // The line of this credit: its last request has been answered, so nobody reads it.
  void leave_in_line(const Message& m) {
    mine_.lines[line_] = m;
    writes(noc_, &mine_.lines[line_], sizeof m);
    noc_.fence();
  }

  N& noc_;
  const Plan& plan_;
  SharedMemory& memory_;
  ClientMemory& mine_;
  const Word requests_;  // the header of every request
  shm::MessageConsumer notices_;
  Doorbells<N> bells_;
  uint64_t overruns_;
  uint32_t sleeps_;
  uint32_t under_way_ = 0;
  uint32_t line_ = 0;
  uint32_t last_id_ = 0;
};

}  // namespace sluice::tilera
