// This process's registration with the coordinator: the control socket, the request queue,
// the replies. Everything under control_lock.
#pragma once

#include <cstdint>

#include "preload/packets.h"
#include "preload/sleep.h"
#include "preload/unsent.h"
#include "shm/layout.h"
#include "shm/region.h"
#include "shm/request_queues.h"

namespace sluice::preload {

// While a thread is about to sleep, or sleeps, on ReplyRegion::doorbell. Begins with a full fence: the
// value of the doorbell is to be read after it.
class DoorbellWait {
 public:
  DoorbellWait();
  ~DoorbellWait();
  DoorbellWait(const DoorbellWait&) = delete;
  DoorbellWait& operator=(const DoorbellWait&) = delete;

 private:
  shm::Shared<uint32_t>* waiters_;
};

class CoordinatorLink {
 public:
  // `directory`: SLUICE_DIR. Nothing is contacted yet.
  void init(const char* directory);
  bool enabled() const { return directory_path_[0] != 0; }
  const char* path() const { return directory_path_; }

  // Registers if that has not happened. False: no coordinator now; the next try is made after
  // kRetryNs, or at once when the directory shows a new one.
  [[nodiscard]] bool ensure();
  bool connected() const { return socket_ >= 0; }
  // A forked child that has not said hello hears of deaths all the same.
  bool tells_child_of_deaths() const {
    const shm::Directory* d = directory();
    return reserved_ >= 0 && d != nullptr && d->has_owner();
  }
  shm::DomainId self() const { return self_; }
  shm::Protect protect() const { return protect_; }

  // Sends a request and waits for its reply, which replaces `m`. 0, or -errno: the reply's
  // status, or -ENOTCONN, -ETIMEDOUT. At once while the coordinator has not answered another one.
  [[nodiscard]] int call(shm::Message& m);
  // Sends a request that has no reply; later, if the queue is full.
  void post(const shm::Message& m);
  // Whether there is something to be sent later. Who sleeps then comes again soon, to send_unsent().
  bool has_unsent() const { return !unsent_.empty(); }
  bool send_unsent();

  // Hands out a region of ours for `peer`; returns the peer's bell or -errno.
  [[nodiscard]] int exchange_region(shm::DomainId peer, uint32_t generation, int region, uint32_t& peer_pid);
  // A listener of AF_UNIX; `file`: its own, O_PATH, or -1. Its id or -errno.
  [[nodiscard]] int64_t announce_name(int listening, int file, int backlog, bool only_holder);
  // Whether we may connect to the socket whose `file` (O_PATH) we can reach, or, with -1, that has
  // body.name as its abstract name; as what is in `who`. 0 and the answer in `body`, or -errno.
  [[nodiscard]] int ask_name(int file, int type, const ucred& who, shm::NameBody& body);
  // Hands the peer its end of a socket. Where it goes is said as in kChannel. 0 or -errno.
  [[nodiscard]] int pass_channel(shm::DomainId peer, uint32_t generation, uint32_t slot, uint32_t slot_generation,
                                 int end);
  // Those who read the side of a pair that our ancestor `writer` writes are to ring our own bell.
  void hand_bell(shm::DomainId peer, uint32_t generation, shm::DomainId writer);
  void announce_pair(shm::DomainId peer, uint32_t generation, uint32_t peer_pid);

  // ---- passing connections (shm/protocol.h). 0 or -errno.
  // A passing region for the pair with this header; fds as for kPass. `met`: we have the peer's region.
  [[nodiscard]] int open_passing(const shm::PairHeader& h, bool met, const int* fds, int count, uint32_t& number, int& region);
  // `ends`: the one that travels, the other. `watched`: kTaken is wanted. `stand_in`: to be entered
  // as a holder.
  [[nodiscard]] int deposit(uint32_t number, uint32_t slot, uint32_t generation, const int* ends, bool watched,
                            uint32_t& ticket, shm::DomainId& stand_in);
  [[nodiscard]] int carry(uint32_t ticket);
  // What `end` stands for; the descriptors become the caller's.
  [[nodiscard]] int claim(int end, ReceivedPacket& out);

  // To a new coordinator: a region that may have been lost with the old one.
  void offer_again(shm::DomainId peer, uint32_t generation, int region);

  // Whether the coordinator has sent packets that were not taken.
  bool has_packets() const {
    const shm::Shared<uint64_t>* sent = packets_.load(std::memory_order_acquire);
    return waiting_count_ > 0 || (sent != nullptr && sent->load(std::memory_order_acquire) != packets_taken_);
  }
  // Takes one packet. False: none.
  [[nodiscard]] bool take_packet(ReceivedPacket& out);

  // Looks whether the coordinator went away.
  void check_lost();
  // While it is not connected(): whether the coordinator has something to say, as an answer that was
  // late, or to a forked child that has not said hello yet.
  bool is_called() const;
  // After that, or after it went away: whether it is there. Then everything is announced again.
  void try_again();

  const shm::Directory* directory() const { return directory_.load(std::memory_order_acquire); }
  // A hint without the lock: it is away, or about to be. ensure() then finds out, or finds the next one.
  bool is_away() const {
    const shm::Directory* d = directory();
    return !connected() || (d != nullptr && !d->has_owner());
  }
  shm::Shared<uint32_t>* doorbell_waiters() const { return waiters_.load(std::memory_order_acquire); }
  const shm::ReplyRegion* replies() const { return replies_.load(std::memory_order_acquire); }

  // In which this process is known: see namespaces.h.
  uint64_t network_namespace() const { return namespace_; }

  // Before this process is known to the coordinator it is kept for when it is.
  void count(uint32_t counter, int64_t delta = 1) {
    if (client_ == nullptr) return void(early_[counter].fetch_add(uint64_t(delta), std::memory_order_relaxed));  // a statistic
    client_->counters[counter].fetch_add(uint64_t(delta), std::memory_order_relaxed);  // a statistic
  }
  void count_fallback(shm::Fallback why) { count(shm::kFallbacks + uint32_t(why)); }
  // `accepting`: see ClientRegion::accepting.
  void set_sleeping(bool asleep, uint32_t accepting);
  // Grows when another coordinator takes over. What one has said does not hold under the next.
  uint32_t incarnation() const { return incarnation_; }
  // Afterwards all is here, to be taken, that the coordinator has sent before. False: it is lost.
  [[nodiscard]] bool sync();

  // fork: reserve() in the parent makes the child's own socket and gets its id (0: failed);
  // become_child() in the child takes them; drop_child() in the parent. Works in a vfork child too:
  // the coordinator is asked through this process's own socket.
  shm::DomainId reserve();
  // Whether the child that was forked last has an id: else it shares no connection.
  bool child_was_known() const { return child_was_known_; }
  void become_child();
  void drop_child();
  // A reserved child whose fork is yet to come.
  struct Reservation {
    int socket = -1;
    shm::DomainId child = shm::kNobody;
  };
  [[nodiscard]] Reservation set_aside();
  shm::DomainId take_back(Reservation& r);
  // Why reserve() has failed, if it was for want of memory or descriptors: -errno, else 0.
  int what_is_short() const { return short_of_; }

 private:
  bool connect_socket(int& socket);
  int hello(int socket, shm::DomainId wanted);
  enum class Answer : uint8_t { kYes, kNo, kNotYet };
  Answer welcome(int socket, int flags);
  bool settle(int flags);
  bool give_up_asking();
  bool put_off_asking();
  uint64_t progress() const;
  void note_stall();
  bool is_stalled();
  void lose();
  void keep_what_came();
  int client_region();
  void tell_sleeping();
  bool push(const shm::Message& m);
  bool try_push(const shm::Message& m);
  template <class Done>
  [[nodiscard]] int await(const Deadline& deadline, Done is_done);
  [[nodiscard]] int send_all_unsent(const Deadline& deadline);
  void note_packet();
  void set_replies(const shm::ReplyRegion* replies, shm::RequestQueue kind);
  shm::DomainId try_reserve(bool& ended);
  bool wait_for_packet(uint16_t type, ReceivedPacket& out);
  [[nodiscard]] int ask(const shm::Packet& question, const int* fds, int count, uint16_t answer_type, ReceivedPacket& answer,
                        const ucred* who = nullptr, const shm::NameBody* body = nullptr);
  [[nodiscard]] bool keep(const ReceivedPacket& p);

  char directory_path_[108 - 32] = {};
  int socket_ = -1;
  int reserved_ = -1;  // of a forked child that has not registered yet
  int child_ = -1;     // of the child that is being forked
  // kHello has been said there, and the answer is still to come.
  struct Asked {
    int socket = -1;
    bool again = false;      // everything is to be announced afterwards
    bool by_parent = false;  // the parent has got it for us
  } asked_;
  ReceivedPacket welcome_{};  // the answer, while there is no memory to map what came with it
  shm::DomainId self_ = shm::kNobody;
  shm::DomainId child_id_ = shm::kNobody;
  shm::Protect protect_ = shm::Protect::kRegions;
  shm::ClientRegion* client_ = nullptr;
  std::atomic<shm::Shared<uint32_t>*> waiters_{nullptr};  // of client_, read without the lock
  std::atomic<uint64_t> early_[shm::kCounters] = {};
  std::atomic<const shm::ReplyRegion*> replies_{nullptr};      // read without the lock
  std::atomic<const shm::Shared<uint64_t>*> packets_{nullptr};  // there, how many the coordinator has sent; likewise
  std::atomic<const shm::Directory*> directory_{nullptr};      // likewise
  shm::SharedQueueRegion* shared_queue_ = nullptr;
  int bell_ = -1;  // the coordinator's
  uint64_t namespace_ = 0;
  // As it was when the child was forked; its socket, the coordinator's work, does not tell.
  uint64_t childs_namespace_ = 0, parents_namespace_ = 0;
  shm::RequestQueues requests_;
  uint64_t packets_taken_ = 0;
  uint32_t sleeping_ = 0;   // what the client region says, or is to say once there is one
  uint32_t accepting_ = 0;
  uint32_t next_id_ = 1;
  uint64_t last_try_ns_ = 0;
  uint64_t last_check_ns_ = 0;
  uint64_t stalled_until_ns_ = 0;  // 0: it answers
  uint64_t stalled_at_ = 0;        // progress() then
  Unsent unsent_;
  uint32_t incarnation_ = 0;
  bool was_connected_ = false;
  bool warned_ = false;
  bool child_was_known_ = false;
  int short_of_ = 0;
  bool out_of_step_ = false;  // an answer may still come for which nobody waits any more
  // Packets that arrived while waiting for another one, the oldest first.
  ReceivedPacket* waiting_ = nullptr;
  uint32_t waiting_room_ = 0;
  uint32_t waiting_count_ = 0;
};

extern CoordinatorLink coordinator;

}  // namespace sluice::preload
