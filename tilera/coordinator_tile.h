// The coordinator's core on a tile: requests come as packets, replies go as packets, and what it has to
// say unasked lies in memory and is announced by a doorbell. The core is the one of `sluiced`, unchanged.
//
// It never waits for a client: a reply has its place at who asked (credits.h), a notice that has no room becomes
// an overrun. What would take an operating system it answers so that nothing is promised: it watches nobody, and knows
// neither programs nor paths.
#pragma once

#include <errno.h>

#include "monitor/core/coordinator_core.h"
#include "shm/message_ring.h"
#include "tilera/code_costs.h"
#include "tilera/directory_writer.h"
#include "tilera/doorbells.h"

namespace sluice::tilera {

namespace core = monitor::core;
using shm::DomainId;

// What all programs inside the hardwall are. Whoever is inside can claim to be another tile, so that rights can differ
// between hardwalls only.
struct Wall {
  uint32_t uid = 0;
  uint64_t netns = 1;
};

template <Noc N>
class CoordinatorTile final : public core::Actions {
 public:
  // `core` and `memory` are zero, and this is in zeroed memory: tables are touched as they are used.
  CoordinatorTile(N& noc, const Plan& plan, SharedMemory& memory, core::CoordinatorCore& core, const Wall& wall = {})
      : noc_(noc), plan_(plan), memory_(memory), core_(core), wall_(wall), directory_(noc, memory.directory), bells_(noc, memory) {
    core_.init(*this, kFirstDomain);
    for (TileId t = 0; t < kMostTiles; ++t) {
      comes_through_[t] = plan.is_client(t) ? plan.via[t] : kNobodys;
      notices_[t] = shm::MessageProducer(&memory.to[t].notices, &memory.of[t].notices_head);
    }
  }

  [[noreturn]] void run() {
    for (;;) serve();
  }
  // Waits for a request and answers it.
  void serve() {
    (void)await(noc_, bit_of(kRequests));
    const Frame frame = Frame::unpacked(noc_.template receive<kRequests>());
    Message m = receive_rest<kRequests>(noc_, frame);
    const TileId via = frame.sender < kMostTiles ? comes_through_[frame.sender] : kNobodys;
    if (via == kNobodys || !frame.is_plausible()) {
      ++strangers_;
      return;
    }
    if (frame.words == shm::kInLine) take_line(frame, m);
    answer(frame.sender, m);
    if (via != plan_.root) give_credit_back(via);
  }
  // The program on that tile has ended without a word.
  void depart(TileId tile) {
    const DomainId domain = domain_of_[tile];
    if (domain == shm::kNobody) return;
    domain_of_[tile] = shm::kNobody;
    core_.remove(domain);
    tile_of_[domain] = 0;
  }

  uint64_t requests() const { return requests_; }
  // Packets of whoever is no client, or of an impossible length.
  uint64_t strangers() const { return strangers_; }

  // ---- Actions ----
  void reply(DomainId to, const Message& message) override {
    if (tile_of_[to % shm::kMaxDomains] == serving_ + 1) answer_once(message);
  }
  void revoke(DomainId to, core::ListenerId listener) override { notify(to, {shm::kRevoke, 0, 0, {listener}}); }
  void gone(DomainId to, DomainId dead) override { notify(to, {shm::kPeerGone, 0, 0, {dead}}); }
  void ring(DomainId domain) override {
    if (const uint32_t tile = tile_of_[domain]) bells_.ring(tile - 1);
  }
  void unmet(DomainId to, DomainId peer, uint32_t generation) override {
    notify(to, {shm::kUnmet, 0, 0, {peer, generation}});
  }
  void reconsider(DomainId to, core::ListenerId listener) override {
    notify(to, {shm::kReconsider, 0, 0, {listener}});
  }
  void set_port(uint16_t port, bool listened) override { directory_.set_port(port, listened); }
  void set_name(uint32_t name_bit, bool listened) override { directory_.set_name(name_bit, listened); }
  void set_alive(DomainId domain, bool alive) override { directory_.set_alive(domain, alive); }
  void set_waited(core::ListenerId listener, bool waited) override { directory_.set_waited(listener, waited); }
  void forget_name(core::ListenerId) override {}
  void watch(DomainId, int32_t) override {}
  void unwatch(DomainId) override {}
  uint32_t sleeps_at(DomainId domain, core::ListenerId listener) override {
    if (tile_of_[domain] == 0) return 0;
    const ClientMemory& c = memory_.of[tile_of_[domain] - 1];
    reads(noc_, &c.sleeping, sizeof c.sleeping + sizeof c.accepting);
    // Relaxed: where it matters, set_waited's fence came before.
    const uint32_t at = c.accepting.load(std::memory_order_relaxed);
    return at == listener || at == shm::kEveryListener ? c.sleeping.load(std::memory_order_relaxed) | 1 : 0;
  }
  bool may_listen(DomainId, const core::Address&, uint16_t) override { return true; }
  std::string_view program_of(DomainId) override { return {}; }
  std::string_view name_of(core::ListenerId) override { return {}; }
  uint64_t connections_of(uint32_t) override { return 0; }
  uint64_t memory_of(uint32_t) override { return 0; }

 private:
  static constexpr DomainId kFirstDomain = 2;
  static constexpr uint8_t kNobodys = 0xff;

  void answer(TileId from, const Message& m) {
    ++requests_;
    serving_ = from;
    answered_ = false;
    spend(noc_, cycles_to_answer(m.type));
    switch (m.type) {
      case kJoin:
        join(from, m);
        break;
      case kLeave:
        depart(from);
        break;
      case kMeet:
        meet(from, m);
        break;
      default:
        core_.handle(domain_of_[from], m);
    }
    if (!answered_) answer_once({kTaken, 0, m.id, {}});  // every request gives its credit back
  }
  // More than one reply would have no room.
  void answer_once(const Message& message) {
    if (answered_) return;
    answered_ = true;
    directory_.publish();
    send_message(noc_, serving_, kReplies, message);
  }

  void join(TileId from, const Message& m) {
    depart(from);
    const DomainId domain = core_.admit({wall_.uid, wall_.netns, int32_t(m.words[0])}, shm::kNobody);
    domain_of_[from] = domain;
    if (domain != shm::kNobody) tile_of_[domain] = uint8_t(from + 1);
    answer_once({m.type, uint16_t(domain == shm::kNobody ? EAGAIN : 0), m.id, {domain}});
  }
  void meet(TileId from, const Message& m) {
    const DomainId peer = DomainId(m.words[0]);
    const bool lives = peer < shm::kMaxDomains && tile_of_[peer] != 0;
    const int error = lives ? core_.pair(domain_of_[from], peer) : ESRCH;
    answer_once({m.type, uint16_t(error), m.id, {error == 0 ? tile_of_[peer] - 1u : 0}});
  }

  // What lies in a line is copied out once; its type and number are the frame's.
  void take_line(const Frame& frame, Message& m) {
    if (frame.status >= plan_.depth) return;
    const Message& line = memory_.of[frame.sender].lines[frame.status];
    reads(noc_, &line, sizeof line);
    for (uint32_t i = 0; i < shm::kMessageWords; ++i) m.words[i] = __atomic_load_n(&line.words[i], __ATOMIC_RELAXED);
    m.status = 0;
  }

  void notify(DomainId to, const Message& notice) {
    if (tile_of_[to] == 0) return;
    const TileId tile = tile_of_[to] - 1;
    NoticeMemory& memory = memory_.to[tile];
    if (notices_[tile].try_push(notice)) {
      writes(noc_, &memory.notices, shm::kCacheLine);
    } else {
      memory.overruns.store(++overruns_[tile], std::memory_order_release);
      writes(noc_, &memory.overruns, sizeof memory.overruns);
    }
    bells_.ring(tile);  // with a fence, of the directory too
  }

  // A relay's come back half of them at a time: a packet for each would cost as much as a reply.
  void give_credit_back(TileId via) {
    if (++owed_[via] * 2 < plan_.forwards) return;
    noc_.send(noc_.header(via, kControl), Frame{.type = kCredits, .sender = noc_.here(), .id = owed_[via]}.packed());
    owed_[via] = 0;
  }

  N& noc_;
  const Plan& plan_;
  SharedMemory& memory_;
  core::CoordinatorCore& core_;
  const Wall wall_;
  DirectoryWriter<N> directory_;
  Doorbells<N> bells_;
  uint8_t comes_through_[kMostTiles] = {};  // the relay, or the root itself; kNobodys: no client
  TileId serving_ = 0;
  bool answered_ = true;
  uint64_t requests_ = 0;
  uint64_t strangers_ = 0;
  DomainId domain_of_[kMostTiles] = {};
  uint64_t overruns_[kMostTiles] = {};
  uint32_t owed_[kMostTiles] = {};  // credits of relays that are to go back
  shm::MessageProducer notices_[kMostTiles];
  uint8_t tile_of_[shm::kMaxDomains] = {};  // plus one; 0: not here
};

}  // namespace sluice::tilera
