#include "preload/coordinator_link.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "preload/code_watch.h"
#include "preload/descriptor_table.h"
#include "preload/fork.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/namespaces.h"
#include "preload/peers.h"
#include "preload/say.h"
#include "preload/sleep.h"
#include "shm/death_point.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::preload {

using namespace shm;

constinit CoordinatorLink coordinator;

namespace {

constexpr uint64_t kRetryNs = 10'000'000;
constexpr int64_t kReplyMs = 500;
// Whoever did not answer and has done nothing since is not asked again for so long.
constexpr uint64_t kStallNs = 2'000'000'000;

// Nobody is at the other end any more.
bool is_end(int error) { return error == -ENOTCONN || error == -ECONNRESET || error == -EPIPE; }

void limit_waits(int socket) {
  timeval limit{1, 0};
  libc.setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  libc.setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

}  // namespace

DoorbellWait::DoorbellWait() : waiters_(coordinator.doorbell_waiters()) {
  if (waiters_ != nullptr) waiters_->fetch_add(1, std::memory_order_relaxed);  // ordered by the fence
  sleep_wake_fence();
}

// In a child that a handler has forked meanwhile it is the parent's word; after another coordinator came, one that
// nobody looks at.
DoorbellWait::~DoorbellWait() {
  if (waiters_ != nullptr && waiters_ == coordinator.doorbell_waiters())
    waiters_->fetch_sub(1, std::memory_order_relaxed);  // a hint when it falls
}

void CoordinatorLink::init(const char* directory) {
  if (directory == nullptr || strlen(directory) >= sizeof directory_path_) return;
  strcpy(directory_path_, directory);
}

bool CoordinatorLink::connect_socket(int& socket) {
  RaisedLimit raised;
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", directory_path_, kSocketName);
  int s = libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (s < 0) return false;
  limit_waits(s);
  if (kernel::connect(s, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) {
    kernel::close(s);
    return false;
  }
  socket = move_high(s);
  return true;
}

int CoordinatorLink::client_region() {
  RaisedLimit raised;
  int fd = create_region("sluice-client", kClientBytes);
  if (fd < 0) return fd;
  auto* region = static_cast<ClientRegion*>(keyed(map_writable(fd, kClientBytes), kClientBytes));
  if (region == nullptr || seal_region(fd, Protect::kRegions) != 0) {
    kernel::close(fd);
    return -ENOMEM;
  }
  region->magic = kMagic;
  region->version = kProtocolVersion;
  if (client_ != nullptr) {
    // The counters go on over a restart of the coordinator: only what is open now does.
    for (uint32_t c : {uint32_t(kOpen), uint32_t(kOpenAccepted)})
      region->counters[c].store(client_->counters[c].load(std::memory_order_relaxed),
                                std::memory_order_relaxed);  // statistics
  }
  for (uint32_t c = 0; c < kCounters; ++c)
    region->counters[c].fetch_add(early_[c].exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);  // statistics
  region->counters[kKeyed].store(key_page.both != 0, std::memory_order_relaxed);             // likewise
  region->counters[kKeyInstructions].store(key_instructions(), std::memory_order_relaxed);  // likewise
  client_ = region;
  waiters_.store(&region->waiters, std::memory_order_release);
  tell_sleeping();  // threads may sleep by now that found no region to say it in
  return move_high(fd);
}

int CoordinatorLink::hello(int socket, DomainId wanted) {
  namespace_ = asked_.by_parent ? parents_namespace_ : namespace_of(socket);
  int fds[2] = {bell().ring >= 0 ? client_region() : -EMFILE, bell().ring};
  if (fds[0] < 0) return fds[0];
  int sent = send_packet(socket, make_packet(kHello, wanted), fds, 2);
  close_own(fds[0]);
  return sent;
}

CoordinatorLink::Answer CoordinatorLink::welcome(int socket, int flags) {
  ReceivedPacket r = welcome_;
  int error = r.fd_count > 0 ? 0 : receive_packet(socket, r, flags);
  welcome_.fd_count = 0;
  // A forked child may have been told of deaths before it said hello, and of peers that it will not meet.
  while (error == 0 && (r.packet.type == kPeerGone || r.packet.type == kUnmet) && keep(r)) error = receive_packet(socket, r, flags);
  if (error == -EAGAIN || error == -ENOMEM || error == -ENOBUFS) return Answer::kNotYet;
  const Packet& p = r.packet;
  bool fits = error == 0 && p.type == kWelcome;
  bool accepted = fits && p.version == kProtocolVersion && p.status == 0 && r.fd_count >= 3;
  if (fits && !accepted && !warned_) {
    warned_ = true;
    say("sluice: %s: %s; staying on the kernel\n", directory_path_,
        p.version != kProtocolVersion || p.status == EPROTO ? "coordinator of another version"
        : p.status == EDQUOT                                ? "no more processes of this user may connect (policy)"
                                                            : "coordinator refuses this process");
  }
  if (accepted) {
    // All of it or nothing: what an earlier coordinator gave goes on to be looked at.
    void* replies = keyed(map_readable(r.fds[0], kReplyBytes), kReplyBytes, PROT_READ);
    void* directory = keyed(map_readable(r.fds[1], kDirectoryBytes), kDirectoryBytes, PROT_READ);
    void* queue = r.fd_count > 3 ? keyed(map_writable(r.fds[3], kSharedQueueBytes), kSharedQueueBytes) : nullptr;
    accepted = replies != nullptr && directory != nullptr && (!has_shared_queue(p.value) || queue != nullptr);
    if (accepted) {
      self_ = p.domain;
      protect_ = p.value2 == 0 ? Protect::kNone : Protect::kRegions;
      set_replies(static_cast<const ReplyRegion*>(replies), RequestQueue(p.value));
      directory_.store(static_cast<const Directory*>(directory), std::memory_order_release);
      shared_queue_ = static_cast<SharedQueueRegion*>(queue);
      bell_ = r.fds[2];
    } else {
      if (replies != nullptr) unmap_keyed(replies, kReplyBytes);
      if (directory != nullptr) unmap_keyed(directory, kDirectoryBytes);
      if (queue != nullptr) unmap_keyed(queue, kSharedQueueBytes);
      welcome_ = r;
      return Answer::kNotYet;
    }
  }
  for (int i = 0; i < r.fd_count; ++i)
    if (!(accepted && i == 2)) close_own(r.fds[i]);
  if (!accepted) return Answer::kNo;
  requests_ = RequestQueues(RequestQueue(p.value), *client_, *this->replies(), shared_queue_, self_);
  packets_taken_ = 0;
  stalled_until_ns_ = 0;
  unsent_.clear();
  socket_ = socket;
  ++incarnation_;
  was_connected_ = true;
  stop_watching();
  watch_socket(socket);
  return Answer::kYes;
}

void CoordinatorLink::set_replies(const ReplyRegion* replies, RequestQueue kind) {
  packets_.store(replies != nullptr ? &RequestQueues::packets(kind, *replies) : nullptr, std::memory_order_release);
  replies_.store(replies, std::memory_order_release);
}

bool CoordinatorLink::ensure() {
  uint64_t now = now_ns();
  if (socket_ >= 0 && now - last_check_ns_ > kRetryNs) {
    last_check_ns_ = now;
    check_lost();
  }
  if (socket_ >= 0) return true;
  if (!enabled()) return false;
  if (asked_.socket >= 0) return settle(MSG_DONTWAIT);
  if (reserved_ >= 0) {  // a forked child: its parent got its socket
    if (last_try_ns_ != 0 && now - last_try_ns_ < kRetryNs) return false;
    last_try_ns_ = now;
    asked_ = {reserved_, false, true};
    reserved_ = -1;
  } else {
    if (last_try_ns_ != 0 && now - last_try_ns_ < kRetryNs && !watch_has_news()) return false;
    last_try_ns_ = now;
    int socket;
    if (!connect_socket(socket)) return false;
    asked_ = {socket, was_connected_, false};
    // What we have said to listen on, and hold, is of the namespace that we were in.
    if (namespace_ != 0 && namespace_of(socket) != namespace_) return give_up_asking();
  }
  int said = hello(asked_.socket, self_);
  if (said == 0) return settle(0);
  return asked_.by_parent && !is_end(said) ? put_off_asking() : give_up_asking();
}

// There is no memory, or no descriptor, to speak with. The socket of a forked child stays: to the coordinator the child
// lives as long as that is open.
bool CoordinatorLink::put_off_asking() {
  reserved_ = asked_.socket;
  asked_ = {};
  return false;
}

// Takes the answer to kHello. If it does not come in time the coordinator is stopped, or very busy:
// then it is looked for now and then, and sleepers are woken when it has come.
bool CoordinatorLink::settle(int flags) {
  Answer answer = welcome(asked_.socket, flags);
  if (answer == Answer::kNo) return give_up_asking();
  if (answer == Answer::kNotYet) {
    if (flags == 0) watch_socket(asked_.socket);
    asked_.again = true;  // there may be more to say by then
    return false;
  }
  bool again = asked_.again;
  asked_ = {};
  if (again) peers.announce_all();
  return socket_ >= 0;  // it may be gone again
}

bool CoordinatorLink::give_up_asking() {
  watch_socket(-1);
  close_own(asked_.socket);
  welcome_.close_all();
  was_connected_ |= asked_.by_parent;  // the next coordinator hears of what we inherited
  asked_ = {};
  return false;
}

void CoordinatorLink::lose() {
  if (socket_ < 0) return;
  unsent_.clear();  // it was for this one
  if (!directory()->has_owner()) {  // else it only let go of us, and goes on with the others
    futex_wake(directory()->owner);
    keep_what_came();
    peers.note_lost();
  }
  close_own(socket_);
  socket_ = -1;
  close_own(bell_);
  bell_ = -1;
  // The mappings stay: other threads may be looking at them, and what the directory says of
  // the living is the best that is known. A restart of the coordinator costs a few pages.
  set_replies(nullptr, kDividedQueue);
  watch_socket(-1);
  watch_for(directory_path_);
  link_changed.store(true, std::memory_order_relaxed);  // it may have come back before we watched
}

// What it had sent holds; but whoever asked to meet us makes its connection elsewhere (Peers::give_up_unmet).
void CoordinatorLink::keep_what_came() {
  ReceivedPacket r;
  while (receive_packet(socket_, r, MSG_DONTWAIT) == 0)
    if (!keep(r)) r.close_all();
  for (uint32_t i = 0; i < waiting_count_; ++i) {
    Packet& p = waiting_[i].packet;
    if (p.type == kPeerRegion && p.reserved == 0 && !peers.knows(p.domain, p.value)) p.type = 0;
  }
}

void CoordinatorLink::check_lost() {
  char byte;
  if (socket_ >= 0 && kernel::recv(socket_, &byte, 0, MSG_PEEK | MSG_DONTWAIT) == 0) {
    // A packet is never empty: this is the end.
    pollfd p{socket_, POLLRDHUP, 0};
    if (kernel::poll_now(&p, 1) == 1 && (p.revents & (POLLRDHUP | POLLHUP)) != 0) lose();
  }
}

bool CoordinatorLink::is_called() const {
  char byte;
  int socket = asked_.socket >= 0 ? asked_.socket : reserved_;
  return socket >= 0 && (kernel::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN);
}

void CoordinatorLink::try_again() {
  if (socket_ >= 0 || (!was_connected_ && !is_called())) return;
  last_try_ns_ = 0;
  (void)ensure();
}

// ---- requests -----------------------------------------------------------------------------

// Each grows with what the coordinator does.
uint64_t CoordinatorLink::progress() const {
  const ReplyRegion& r = *replies();
  return r.requests_head.load(std::memory_order_acquire) + r.demux_requests_head.load(std::memory_order_acquire) +
         r.doorbell.load(std::memory_order_acquire) + packets_.load(std::memory_order_relaxed)->load(std::memory_order_acquire);  // under the lock
}

void CoordinatorLink::note_stall() {
  if (socket_ < 0) return;
  stalled_until_ns_ = now_ns() + kStallNs;
  stalled_at_ = progress();
}

bool CoordinatorLink::is_stalled() {
  if (stalled_until_ns_ == 0) return false;
  if (progress() == stalled_at_ && now_ns() < stalled_until_ns_) return true;
  stalled_until_ns_ = 0;
  return false;
}

bool CoordinatorLink::push(const Message& m) {
  DeathPoint at_message("request", m.type);
  if (!try_push(m)) return false;
  sleep_wake_fence();
  if ((directory()->sleeping.load(std::memory_order_relaxed) & 1) != 0) kernel::ring(bell_);  // ordered by the fence
  return true;
}

bool CoordinatorLink::try_push(const Message& m) {
  if (requests_.try_push(m)) return true;
  // Nobody waits for a reply when a request is made: what is there answers questions given up, and may take the
  // room, or have the credits, that this one needs.
  Message late;
  bool any = false;
  while (requests_.try_receive(late)) any = true;
  return any && requests_.try_push(m);
}

bool CoordinatorLink::send_unsent() {
  while (!unsent_.empty()) {
    if (socket_ < 0 || !push(unsent_.first())) return false;
    unsent_.remove_first();
  }
  return true;
}

void CoordinatorLink::post(const Message& m) {
  if (socket_ < 0) return;
  if (!send_unsent() || !push(m)) unsent_.add(m);
}

// Until `is_done`. 0, or -errno: -ETIMEDOUT, -ENOTCONN.
template <class Done>
int CoordinatorLink::await(const Deadline& deadline, Done is_done) {
  for (uint32_t spins = 0;; ++spins) {
    const ReplyRegion* region = replies();
    uint32_t doorbell = region->doorbell.load(std::memory_order_acquire);
    if (is_done()) return 0;
    if (deadline.passed()) return note_stall(), -ETIMEDOUT;
    if (spins < 20) {
      sched_yield();
      continue;
    }
    timespec slice_end = *Deadline::in_ms(20).absolute();
    {
      DoorbellWait wait;  // what has come since we looked has changed the doorbell
      (void)futex_wait(region->doorbell, doorbell, &slice_end);
    }
    check_lost();
    if (socket_ < 0) return -ENOTCONN;
  }
}

// A question comes after all that was to be sent before, so it waits for room for that.
int CoordinatorLink::send_all_unsent(const Deadline& deadline) {
  return send_unsent() ? 0 : await(deadline, [&] { return send_unsent(); });
}

int CoordinatorLink::call(Message& m) {
  if (!ensure()) return -ENOTCONN;
  if (is_stalled()) return -ETIMEDOUT;
  m.id = next_id_++ % kMessageIds;
  Deadline deadline = Deadline::in_ms(kReplyMs);
  if (int error = send_all_unsent(deadline); error != 0) return error;
  if (int error = push(m) ? 0 : await(deadline, [&] { return push(m); }); error != 0) return error;
  int error = await(deadline, [&] {
    Message reply;
    while (requests_.try_receive(reply)) {
      if (reply.id != m.id) continue;  // the answer to a question given up
      m = reply;
      return true;
    }
    return false;
  });
  return error != 0 ? error : -int(m.status);
}

bool CoordinatorLink::wait_for_packet(uint16_t type, ReceivedPacket& out) {
  for (;;) {
    int error = receive_packet(socket_, out, 0);
    if (error != 0) {
      if (is_end(error)) lose();
      else note_stall();
      return false;
    }
    note_packet();
    if (out.packet.type == type) return true;
    if (!keep(out)) {  // what is lost here is sent again when we come back
      out.close_all();
      lose();
      return false;
    }
  }
}

void CoordinatorLink::note_packet() {
  ++packets_taken_;
  requests_.note_packets();
}

bool CoordinatorLink::keep(const ReceivedPacket& p) {
  if (waiting_count_ == waiting_room_) {
    uint32_t room = waiting_room_ != 0 ? 2 * waiting_room_ : 16;
    void* more = realloc(waiting_, room * sizeof *waiting_);
    if (more == nullptr) return false;
    waiting_ = static_cast<ReceivedPacket*>(more);
    waiting_room_ = room;
  }
  waiting_[waiting_count_++] = p;
  return true;
}

bool CoordinatorLink::take_packet(ReceivedPacket& out) {
  if (waiting_count_ > 0) {
    out = waiting_[0];
    memmove(waiting_, waiting_ + 1, --waiting_count_ * sizeof *waiting_);
    return true;
  }
  if (socket_ < 0 || !has_packets()) return false;
  int error = receive_packet(socket_, out, MSG_DONTWAIT);
  if (error == 0) note_packet();
  if (is_end(error)) lose();
  return error == 0;
}

// A question and its answer. After one that did not come in time all that comes is taken first, or it
// would be taken for the answer to a later question.
int CoordinatorLink::ask(const Packet& question, const int* fds, int count, uint16_t answer_type, ReceivedPacket& r,
                         const ucred* who, const NameBody* body) {
  if (socket_ < 0 || is_stalled() || send_all_unsent(Deadline::in_ms(kReplyMs)) != 0) return -ENOTCONN;
  if (out_of_step_ && !sync()) return -ENOTCONN;
  out_of_step_ = false;
  int error = send_packet(socket_, question, fds, count, who, body);
  if (is_end(error)) lose();
  if (error != 0) return error;
  out_of_step_ = !wait_for_packet(answer_type, r);
  return out_of_step_ ? -ENOTCONN : -int(r.packet.status);
}

int CoordinatorLink::exchange_region(DomainId peer, uint32_t generation, int region, uint32_t& peer_pid) {
  ReceivedPacket r;
  int error = ask(make_packet(kRegion, peer, generation), &region, 1, kPeer, r);
  if (error == 0 && (r.fd_count != 1 || r.packet.domain != peer)) error = -EPROTO;
  if (error != 0) return r.close_all(), error;
  peer_pid = r.packet.value;
  return r.fds[0];
}

int64_t CoordinatorLink::announce_name(int listening, int file, int backlog, bool only_holder) {
  if (!ensure()) return -ENOTCONN;
  int fds[2] = {listening, file};
  ReceivedPacket r;
  int error = ask(make_packet(kListenName, self_, uint32_t(backlog), only_holder), fds, file >= 0 ? 2 : 1, kListening, r);
  return error != 0 ? error : int64_t{r.packet.value};
}

int CoordinatorLink::ask_name(int file, int type, const ucred& who, NameBody& body) {
  if (!ensure()) return -ENOTCONN;
  ReceivedPacket r;
  int error = ask(make_packet(kName, self_, uint32_t(type)), &file, file >= 0 ? 1 : 0, kNamed, r, &who, file >= 0 ? nullptr : &body);
  if (error != 0) return error;
  if (!r.has_body || r.body.name_bytes > sizeof r.body.name) return -EPROTO;
  body = r.body;
  return 0;
}

int CoordinatorLink::pass_channel(DomainId peer, uint32_t generation, uint32_t slot, uint32_t slot_generation, int end) {
  if (!ensure()) return -ENOTCONN;
  ReceivedPacket r;
  return ask(make_packet(kChannel, peer, generation, slot, slot_generation), &end, 1, kChannelPassed, r);
}

void CoordinatorLink::hand_bell(DomainId peer, uint32_t generation, DomainId writer) {
  if (socket_ >= 0) (void)send_packet(socket_, make_packet(kSharersBell, peer, generation, writer), nullptr, 0);
}

void CoordinatorLink::announce_pair(DomainId peer, uint32_t generation, uint32_t peer_pid) {
  if (socket_ >= 0) (void)send_packet(socket_, make_packet(kAnnouncePair, peer, generation, peer_pid), nullptr, 0);
}

int CoordinatorLink::open_passing(const PairHeader& h, bool met, const int* fds, int count, uint32_t& number,
                                  int& region) {
  ReceivedPacket r;
  int error = ask(make_packet(kPass, h.reader, h.generation, h.writer, met), fds, count, kPass, r);
  if (error == 0 && r.fd_count != 1) error = -EPROTO;
  if (error != 0) return r.close_all(), error;
  number = r.packet.value;
  region = r.fds[0];
  return 0;
}

int CoordinatorLink::deposit(uint32_t number, uint32_t slot, uint32_t generation, const int* ends, bool watched,
                             uint32_t& ticket, DomainId& stand_in) {
  ReceivedPacket r;
  int error = ask(make_packet(kDeposit, watched, number, slot, generation), ends, 2, kDeposit, r);
  if (error != 0) return error;
  stand_in = r.packet.domain;
  ticket = r.packet.value;
  return 0;
}

int CoordinatorLink::carry(uint32_t ticket) {
  ReceivedPacket r;
  return ask(make_packet(kCarry, self_, ticket), nullptr, 0, kCarry, r);
}

int CoordinatorLink::claim(int end, ReceivedPacket& out) {
  out.fd_count = 0;
  return ask(make_packet(kClaim, self_), &end, 1, kClaim, out);
}

void CoordinatorLink::offer_again(DomainId peer, uint32_t generation, int region) {
  if (socket_ >= 0) (void)send_packet(socket_, make_packet(kRegion, peer, generation, kOfferedBefore), &region, 1);
}

bool CoordinatorLink::sync() {
  if (socket_ < 0 || send_packet(socket_, make_packet(kSync, self_), nullptr, 0) != 0) return false;
  ReceivedPacket r;
  return wait_for_packet(kSync, r);
}

void CoordinatorLink::set_sleeping(bool asleep, uint32_t accepting) {
  // A new odd number for each sleep, also when another thread sleeps already.
  sleeping_ = asleep ? (sleeping_ | 1) + (sleeping_ & 1 ? 2 : 0) : (sleeping_ + 1) & ~1u;
  accepting_ = accepting;
  tell_sleeping();
}

void CoordinatorLink::tell_sleeping() {
  if (client_ == nullptr) return;
  client_->sleeping.store(sleeping_, std::memory_order_release);
  client_->accepting.store(accepting_, std::memory_order_release);
}

DomainId CoordinatorLink::reserve() {
  bool ended = false;
  DomainId child = try_reserve(ended);
  // In a vfork child what we know of descriptors is its parent's; see Carrier::start.
  if (!ended || socket_ < 0 || in_vfork_child()) return child;
  // A coordinator that went away in the last moments: perhaps the next one is there.
  lose();
  return ensure() ? try_reserve(ended) : kNobody;
}

DomainId CoordinatorLink::try_reserve(bool& ended) {
  child_id_ = kNobody;
  child_was_known_ = false;
  short_of_ = 0;
  int channel = socket_ >= 0 ? socket_ : reserved_;
  int ends[2];
  RaisedLimit raised;
  if (channel < 0) return kNobody;
  if (libc.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return short_of_ = -ENOMEM, kNobody;
  child_ = move_high(ends[0]);
  limit_waits(child_);
  childs_namespace_ = namespace_of(child_);
  int sent = send_packet(channel, make_packet(kReserve, self_), &ends[1], 1);
  kernel::close(ends[1]);
  ended = is_end(sent);
  ReceivedPacket r;
  int received = sent == 0 ? receive_packet(child_, r, 0) : sent;
  bool granted = received == 0 && r.packet.type == kReserved && r.packet.status == 0;
  bool answered = granted && r.fd_count == 1;
  child_was_known_ = answered;
  if (received == -ENOBUFS || received == -ENOMEM || received == -ETOOMANYREFS) short_of_ = -ENOMEM;
  if (granted && r.fd_count == 0) short_of_ = -ENOMEM;  // no descriptor was left for the socket
  if (received == 0 && r.packet.status == ENOSPC) short_of_ = -EAGAIN;
  if (answered) {
    close_own(child_);  // it was for the answer only
    child_ = r.fds[0];
    limit_waits(child_);
    return child_id_ = r.packet.domain;
  }
  r.close_all();
  drop_child();
  return kNobody;
}

CoordinatorLink::Reservation CoordinatorLink::set_aside() {
  Reservation r{child_, child_id_};
  child_ = -1;
  child_id_ = kNobody;
  return r;
}

DomainId CoordinatorLink::take_back(Reservation& r) {
  child_ = r.socket;
  child_id_ = r.child;
  child_was_known_ = true;
  r = {};
  return child_id_;
}

void CoordinatorLink::drop_child() {
  close_own(child_);
  child_ = -1;
  child_id_ = kNobody;
}

void CoordinatorLink::become_child() {
  // The inherited mappings stay where the parent's threads might still be looking (they do
  // not exist here) until replaced; the parent's socket must go, or its death goes unseen.
  int parent_socket = socket_;
  socket_ = -1;
  close_own(parent_socket);
  close_own(reserved_);
  close_own(bell_);
  bell_ = -1;
  if (client_ != nullptr) unmap_keyed(client_, kClientBytes);
  client_ = nullptr;
  waiters_.store(nullptr, std::memory_order_relaxed);  // one thread
  for (std::atomic<uint64_t>& c : early_) c.store(0, std::memory_order_relaxed);  // the parent's; one thread
  if (replies() != nullptr) unmap_keyed(const_cast<ReplyRegion*>(replies()), kReplyBytes);
  set_replies(nullptr, kDividedQueue);
  for (uint32_t i = 0; i < waiting_count_; ++i) waiting_[i].close_all();
  waiting_count_ = 0;
  welcome_.close_all();
  close_own(asked_.socket);
  asked_ = {};
  unsent_.clear();
  self_ = child_id_;
  reserved_ = child_;
  parents_namespace_ = childs_namespace_;
  child_ = -1;
  child_id_ = kNobody;
  was_connected_ = false;
  last_try_ns_ = 0;
  sleeping_ = accepting_ = 0;
  watch_socket(reserved_);  // deaths are told there, also before we have said hello
  stop_watching();
}

}  // namespace sluice::preload
