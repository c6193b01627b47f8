// All pairs of this process, and the threads of it that sleep. Under control_lock.
#pragma once

#include <cstdint>

#include "preload/coordinator_link.h"
#include "preload/pair.h"

namespace sluice::preload {

// While the coordinator is away nobody announces deaths: whoever sleeps looks for them, and for its return, this often.
inline constexpr int64_t kAwayMs = 250;

class Peers {
 public:
  static constexpr uint32_t kMaxPairs = 4096;  // more than the coordinator has ports for

  // The pair in which a new connection to `peer` may begin; created if need be. Null with `error` set.
  Pair* for_new_connection(shm::DomainId peer, int& error);

  // Looks at everything that peers and the coordinator have said since the last time and
  // announces it to the sockets concerned. Cheap when there is nothing.
  void drain();
  // Something could not be done because a thread held a connection's lock: the next drain() tries
  // again, and until then nobody sleeps.
  void leave_unfinished() { unfinished_.store(true, std::memory_order_relaxed); }  // under the lock
  // There is memory to be given back, for which nobody may be looking at it: whoever has looked drains once more.
  void note_unswept() { unswept_.store(true, std::memory_order_relaxed); }  // a hint
  bool is_unswept() const { return unswept_.load(std::memory_order_relaxed); }
  // A hint without the lock: whether somebody may have died whose memory we still have, or memory is unswept. Who comes
  // here seldom, as it goes on with the kernel, drains then.
  bool has_dead() const { return coordinator.has_packets() || gone_.load(std::memory_order_relaxed) > 0 || is_unswept(); }
  bool is_unfinished() const { return unfinished_.load(std::memory_order_relaxed); }
  // A hint without the lock: whether drain() would find something.
  bool has_news() const;

  // A channel for the ancillary data of one connection; ours from then on. False: there is no such.
  [[nodiscard]] bool take_channel(shm::DomainId from, uint32_t generation, uint32_t slot, uint32_t slot_generation, int fd);

  // Grows with each pair that is added.
  uint32_t additions() const { return additions_; }

  // What the coordinator has sent. A part of drain().
  void take_packets();

  // Around a sleep. After begin_sleep comes a full fence; then drain(), waiting.look(), and look
  // again. `accepting`: the listener at which we sleep until a connection comes; kEveryListener, or 0.
  void begin_sleep(uint32_t accepting = 0);
  void end_sleep(uint32_t accepting = 0);
  // Wakes the threads that sleep, after a change that no peer announces.
  void wake_sleepers() const;

  // A forked child that has not slept so often that it says hello for what it inherited: not all is told before that.
  bool may_register() const { return has_inherited_ && sleeps_ < kSleepsBeforeBell; }
  // Whether spinning could see anything, and where the peers run.
  bool any() const { return count_.load(std::memory_order_relaxed) != 0; }  // a hint
  // What was inherited by fork is found by looking everywhere: too much to do in a spin if it is much.
  bool worth_spinning() const { return any() && (!has_inherited_ || has_inherited_few()); }
  uint32_t a_remote_cpu() const;
  void note_cpu();

  // Around a wait awake in which a thread would accept a connection at `listener` (kEveryListener, 0: at none) at once.
  void begin_look(uint32_t listener);
  void end_look(uint32_t listener);

  // A thread that reads pairs without control_lock says so, so that none is unmapped.
  void enter();
  void leave() { readers_.fetch_sub(1, std::memory_order_acq_rel); }

  void listener_closed();  // grants for our listeners end
  // Of a pair with this number, ours or inherited.
  bool knows(shm::DomainId peer, uint32_t generation) const;
  // The coordinator went away: the next drain() does what that asks for.
  void note_lost() { lost_ = true; }
  // The coordinator came back: it hears again of what we hold.
  void announce_all();

  // ---- connections that come in messages (passing.cpp)
  // The pair that has this passing region, as maker or as taker; or null.
  Pair* find_passing(uint32_t number);
  // A pair for a passing region that we have been given. Takes the descriptors.
  Pair* adopt(const ReceivedPacket& claimed);
  // `p` may have a new connection of which nobody tells us any more.
  void look_at(Pair& p, TcpSocket& s);

  // fork, in the parent before (who: the child's domain), and in the child.
  void share_with(shm::DomainId who);
  void become_child();

  template <class F>
  void each(F&& f) {
    for (uint32_t i = 0; i < count(); ++i) f(*pairs_[i]);
  }

 private:
  uint32_t count() const { return count_.load(std::memory_order_acquire); }
  Pair* find(shm::DomainId peer, uint32_t generation);
  void peer_region_of_others(const ReceivedPacket& r, shm::DomainId writer);
  void extend_pairs(ReceivedPacket& r, shm::DomainId writer);
  Pair* create(shm::DomainId peer, uint32_t generation, int& error);
  Pair* create(shm::DomainId writer, shm::DomainId peer, uint32_t generation, int& error);
  static void release_cell(const Pair& p);
  bool hold_what_passed(shm::DomainId maker) const;
  bool has_inherited_few() const;
  void join_sharers();
  void hear_sharer(const ReceivedPacket& r);
  Pair* create_twins(int& error);
  bool hand_out(Pair& p, int region, int& error);
  void add(Pair& p);
  void take(ReceivedPacket& r);
  void peer_region(ReceivedPacket& r);
  void peer_gone(shm::DomainId who);
  void discard(Pair& p);
  static void cannot_meet(shm::DomainId peer, uint32_t generation);
  void lose(shm::DomainId peer, uint32_t generation);
  void give_up(Pair& p, bool unseen);
  void unmet(shm::DomainId peer, uint32_t generation);
  void hear();
  void hear_of_the_dead();
  void news(Pair& p, uint32_t slot);
  void scan(Pair& p);
  void sweep();
  void retire_over();
  void finish_redirects();

  Pair* pairs_[kMaxPairs] = {};
  std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> readers_{0};
  std::atomic<bool> sweeping_{false};
  std::atomic<bool> unfinished_{false};
  std::atomic<bool> unswept_{false};
  uint32_t sleepers_ = 0;
  uint32_t acceptors_ = 0;  // sleepers that accept
  uint32_t accepting_ = 0;  // where
  std::atomic<uint32_t> gone_{0};  // written under the lock
  // Sleeps since this process was forked, up to where it asks for a bell of its own; who has few ends soon.
  uint32_t sleeps_ = 0;
  static constexpr uint32_t kSleepsBeforeBell = 8;
  static constexpr uint32_t kMostTold = 32;  // more to tell of each look would cost more than it saves
  uint32_t additions_ = 0;
  bool has_inherited_ = false;
  void give_up_unmet();
  void look_for_the_dead();
  uint64_t looked_for_the_dead_ns_ = 0;
  bool lost_ = false;  // the coordinator, and give_up_unmet() is to be done
  bool left_ = false;  // there may be pairs that both sides have left
  uint32_t next_generation_ = 0;
};

extern Peers peers;

// While a thread looks at slots without a lock: another one may move the connection and give back the memory.
class Looking {
 public:
  Looking() { peers.enter(); }
  ~Looking() { peers.leave(); }
  Looking(const Looking&) = delete;
  Looking& operator=(const Looking&) = delete;
  // Around a sleep, so that sleepers keep no memory of the dead. Afterwards the connection may be elsewhere.
  void pause() { peers.leave(); }
  void resume() { peers.enter(); }
};

}  // namespace sluice::preload
