// A socket of TCP, or one of AF_UNIX with connections, that is ours: not yet connected, connected through
// shared memory, or listening. What is particular to AF_UNIX is in unix_socket.cpp, and to SOCK_SEQPACKET in
// records.cpp.
// Once a socket turns out to be the kernel's business it leaves the descriptor table.
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "preload/files/file.h"
#include "preload/pair.h"
#include "preload/sleep.h"
#include "preload/stream_pace.h"
#include "preload/unix_name.h"
#include "preload/waiting.h"
#include "shm/byte_ring.h"

namespace sluice::preload {

// An address and port as in shm::SocketName, and as the program passes it.
[[nodiscard]] int parse_name(const sockaddr* a, socklen_t length, shm::SocketName& out);
// 0, -EFAULT or -EINVAL.
int format_name(const shm::SocketName& name, int family, sockaddr* out, socklen_t* length);
bool is_v4(const shm::SocketName& n);
bool is_any(const shm::SocketName& n);
bool is_loopback(const shm::SocketName& n);

// A call finds that its connection has gone to the kernel meanwhile: it is to be made there.
inline constexpr int kNowTheKernels = -ERESTART;

// Published and retired in pieces of this size, so that both sides of a bulk transfer work
// at once.
inline constexpr size_t kPieceBytes = 32 * 1024;

// Whether a connection that waited went to another process.
enum class Moved : uint8_t { kYes, kNo, kNobodyIdle, kSoonAccepted, kLater };

// Of our side, for another connection: nothing is left of the words of the one before.
void clear_slot(shm::Slot& s);

enum class TcpState : uint8_t { kUnconnected, kConnected, kListening };

// What a listening socket has besides.
struct Backlog {
  TcpSocket* first = nullptr;
  TcpSocket* last = nullptr;
  uint32_t count = 0;
};

struct Route;
struct Channels;
struct AncillaryHeader;
class OwnPipe;

// What receive_record() tells besides.
struct RecordInfo {
  bool came = false;  // else it is the end
  bool truncated = false;
  bool has_control = false;  // ancillary data was sent with it
};

class TcpSocket : public File {
 public:
  TcpSocket(int family, bool records) : File(FileKind::kTcpSocket), family(uint8_t(family)), records(records) {}

  // ---- io (tcp_socket.cpp). Bytes or -errno. `flags`: MSG_*. May sleep.
  // `control`: where ancillary data goes, on AF_UNIX; null: it is thrown away. On return
  // msg_controllen and MSG_CTRUNC say what came, untouched if nothing did.
  ssize_t receive(const iovec* iov, int count, int flags, msghdr* control = nullptr);
  ssize_t send(const iovec* iov, int count, int flags, size_t done = 0);  // from byte `done` on
  ssize_t send_with_control(const msghdr& m, int flags);  // ancillary.cpp
  ssize_t send_file(int from, off_t* offset, size_t n);
  // The same for records, which are of SOCK_SEQPACKET (records.cpp): one at a time, each as a whole.
  ssize_t receive_record(const iovec* iov, int count, int flags, msghdr* control, RecordInfo& info);
  ssize_t send_record(const iovec* iov, int count, int flags, const msghdr* with = nullptr);  // with: ancillary data
  int64_t bytes_of_records();
  bool has_records_beyond_rings() const;  // SO_SNDBUF allows more than the largest ring takes
  // splice(2) to and from a pipe (tcp_splice.cpp). `pipe_waits`: for the pipe, too.
  ssize_t splice_to(int pipe_fd, size_t n, bool pipe_waits);
  ssize_t splice_from(int pipe_fd, size_t n, bool pipe_waits);
  int shut_down(int how);
  int64_t readable_bytes() const;
  int64_t readable_to_mark() const;  // FIONREAD
  bool at_mark() const { return bytes_to_mark() == 0; }
  int64_t outstanding_bytes();     // SIOCOUTQ
  int64_t unread_bytes();          // likewise, to the byte
  bool shut_read() const { return (my_state() & shm::kDeaf) != 0; }
  bool shut_write() const { return (my_state() & shm::kFin) != 0; }

  // Sleeps in poll(2) until there may be something to read, or this connection has ended; on its own doorbell,
  // so what comes for others wakes nobody here. `seen`: signal_counts.any when the call began. 0, -EAGAIN: the time
  // is over, or -EINTR.
  int wait_for_input(const Deadline& deadline, uint32_t seen);
  // epoll's bits that hold now. Listener: whether an accelerated connection waits.
  uint32_t poll_events();
  // What is about to be read comes into the cache. Under control_lock.
  void prefetch_input() const;
  uint32_t peer_cpu() const;
  int take_error();  // SO_ERROR: reads and clears

  // ---- life (tcp_connect.cpp, listener.cpp). Under control_lock.
  int connect(int fd, const shm::SocketName& to);
  void begin(Pair& p, uint32_t slot, uint32_t listener, const shm::SocketName& from, const shm::SocketName& to);
  [[nodiscard]] bool accept_from(Pair& p, uint32_t slot);
  void attach();             // finds the peer's slot once it exists
  void on_news();            // the peer pushed this connection
  void on_peer_gone(shm::DomainId who);  // that domain died, whatever it has to do with us
  // A peer that lives: `unseen` if it does not see what is in this pair, else we do not see what is in its.
  void on_unmet(bool unseen);
  void make_again();
  // The acceptor never took it: connect elsewhere. The flags: which locks the caller holds.
  void redirect(bool sending, bool receiving);
  bool is_unaccepted();      // ours, and still to be accepted; and it could be made elsewhere
  [[nodiscard]] Moved move_elsewhere();  // to a process that is idle, if there is one
  void let_go();             // the last descriptor was closed
  void abandon(uint32_t state_bits);
  void break_off();
  // connect(2) with AF_UNSPEC: resets the connection, and its descriptors get a socket without one.
  // The references of the table are returned in `released`, for after unlocking. 0 or -errno.
  int dissolve(uint32_t& released);
  void be_polite();          // from now on nothing is to be read while another process holds it too
  bool wind_up();            // after let_go: frees what the peer needs no more. True: done
  void share_with(shm::DomainId who);
  void become_child();

  // ---- AF_UNIX. Under control_lock.
  bool is_unix() const { return family == AF_UNIX; }
  int connect_name(const UnixName& to);  // as connect()
  bool ask_again();                      // a coordinator that came back gives another ticket
  int announce_name(int fd);
  int announce_port(int fd);
  bool takes_channel(shm::DomainId from, int fd);  // for ancillary data; it is ours then
  // Listener: whether that connection is one that may be made, and who makes it.
  bool admits(Pair& p, const shm::Slot& theirs, ucred& who);
  void become_kernels_alone();           // it carries something that only the kernel does
  UnixName name() const { return initiator ? UnixName() : bound_name; }  // getsockname(2)
  UnixName peer_name() const { return initiator ? bound_name : UnixName(); }
  // ---- passed over AF_UNIX (tcp_passing.cpp)
  // Our side goes on in a passing region, where others can write it too. With the send and receive
  // locks. False: it stays where it is.
  [[nodiscard]] bool move_to(PassRegion& region);
  // The other way round: our side of what came in a message. The pair is `p`.
  void take_over(Pair& p, uint32_t slot, uint32_t generation);
  [[nodiscard]] bool add_holder(shm::DomainId who);
  // The peer's side has moved, and we have not followed yet.
  bool is_left_behind_by_peer() const {
    const shm::Slot* peer = theirs;
    return peer != nullptr && (peer->state.load(std::memory_order_relaxed) & shm::kMoved) != 0;  // with the fence, or a hint
  }
  void follow();
  void catch_up();
  // After something was published or consumed, behind a full fence, with no lock: who has the peer's
  // side by now may sleep where we do not see it before we have followed.
  void look_behind() {
    if (theirs == nullptr ? unmet_has_news() : is_left_behind_by_peer()) [[unlikely]] catch_up();
  }
  bool unmet_has_news() const;
  void coordinator_is_back();  // what was in flight under the one before is lost
  bool others_hold() const { return others_hold(*mine); }
  bool others_hold(const shm::Slot& side) const;

  // ---- listening
  int listen(int fd, int backlog);
  // 0 or -errno; -EPERM: the policy denies it.
  int announce_listener(int fd);
  bool is_kernels_by_policy() const;
  bool permits(Pair& p) const;
  void announce_again();     // to a coordinator that came back
  void incoming(TcpSocket* s);
  TcpSocket* pop_backlog();
  void give_up(TcpSocket* s);  // in the backlog, and withdrawn
  void send_backlog_away();
  void stop_listening();     // also shutdown(2); what waits is sent elsewhere
  void note_interest(int fd);  // this process accepts here
  void no_longer_alone();      // a forked child has it too
  void no_longer_here();       // exec: this process does not accept any more

  int type() const { return records ? SOCK_SEQPACKET : SOCK_STREAM; }

  uint8_t family;
  bool records;               // SOCK_SEQPACKET
  TcpState state = TcpState::kUnconnected;
  bool real = false;          // the descriptor is a kernel socket of this socket's own
  bool bound = false;
  bool nonblocking = false;
  bool initiator = false;
  bool connect_reported = true;  // false: a later connect() says once that it worked
  bool urgent_inline = false;  // SO_OOBINLINE
  bool nodelay = false, cork = false, keepalive = false, reuse_address = false, quickack = true;
  bool counted = true;        // in this process's gauge of open connections
  bool closed = false;        // let_go was called
  bool shared = false;        // other processes have it too, by fork
  bool dead = false;          // all holders of the peer's side died
  bool accepts = false;       // listener: announced as accepting
  bool reuses_port = false;   // listener: others may accept at the same address
  bool only_holder = true;    // listener: no other process has it
  int status_flags = 0;       // of fcntl(F_SETFL), besides O_NONBLOCK
  bool orphaned = false;      // the acceptor died before it accepted: others may
  bool left_behind = false;   // what is left of a connection that moved, until its acceptor notices
  std::atomic<bool> reset_noted{false};  // its error is told once
  bool polite = false;        // see be_polite
  bool no_larger_ring = false;  // for records: one was wanted, and there was no memory
  bool followed = false;      // the peer's side is in a passing region
  uint32_t passed = 0;        // the passing region that our side is in, or 0
  bool signals_begun = false; // signal_watch.cpp has had its first report
  std::atomic<int> error{0};  // SO_ERROR
  linger linger_option{};
  int64_t receive_timeout_us = 0;
  int64_t send_timeout_us = 0;
  int receive_buffer = 0;     // as asked; 0: default
  int send_buffer = 0;
  int receive_low = 1;        // SO_RCVLOWAT
  // AF_UNIX: the listener's name as bound; as we were told to connect to it; SO_PEERCRED; SO_PASSCRED.
  UnixName bound_name, asked_name;
  ucred peer{0, uid_t(-1), gid_t(-1)};
  bool pass_credentials = false;
  bool kernel_only = false;
  Channels* channels = nullptr;  // once ancillary data was sent

  Pair* pair = nullptr;
  uint32_t slot = 0;
  uint32_t generation = 0;
  shm::Slot* mine = nullptr;
  shm::Slot* theirs = nullptr;  // null until the peer has taken the slot
  uint64_t head_seen = 0;
  uint64_t last_push = 0;
  uint64_t urgent_taken = 0;    // Slot::urgent of the byte that MSG_OOB has read
  uint64_t urgent_told = 0;     // likewise, of the last SIGURG
  shm::RingRef old_ring{};      // to give back after the next handover; size_log2 0: none
  shm::SocketName local{}, remote{};

  uint32_t listener_id = 0;
  uint32_t refused_under = 0;  // listener: the policy that does not let it be accelerated
  int backlog_limit = 0;
  Backlog backlog;
  Mutex accept_lock;          // of the kernel's backlog
  TcpSocket* next_listener = nullptr;
  TcpSocket* next_in_backlog = nullptr;
  TcpSocket* listener = nullptr;  // whose backlog it is in
  WaitingLinks waiting;           // initiator: while nobody has accepted it

  Mutex send_lock, receive_lock;
  StreamPace pace;
  std::atomic<uint32_t> waiting_bytes{0}, waiting_space{0};  // threads asleep on the doorbell
  std::atomic<uint32_t> own_doorbell{0};  // grows in wake_own_threads()

  // An inherited connection's state at the last look: scanning replaces the ready queue.
  uint64_t scanned_tail = 0, scanned_head = 0;
  uint32_t scanned_state = 0;
  bool has_unscanned() const {
    const shm::Slot* peer = theirs;
    constexpr auto relaxed = std::memory_order_relaxed;  // a hint
    return peer != nullptr && (peer->tail.load(relaxed) != scanned_tail || peer->head.load(relaxed) != scanned_head ||
                               peer->state.load(relaxed) != scanned_state);
  }

  // SIGURG comes once for each urgent byte.
  bool is_news_of_urgent_byte() {
    uint64_t urgent = theirs != nullptr ? theirs->urgent.load(std::memory_order_acquire) : 0;
    if (urgent == urgent_told) return false;
    urgent_told = urgent;
    return true;
  }

  // abandon() was called, by this process or by one that shares the connection: the peer broke the protocol, or was never
  // met. What it says does not count any more.
  bool is_abandoned() const { return (my_state() & shm::kReset) != 0; }
  // Likewise, because the peer broke the protocol: what it has sent does not count either.
  bool is_broken() const { return (my_state() & (shm::kReset | shm::kClosed)) == shm::kReset; }
  bool has_ended() const {
    uint32_t remote = remote_state();
    return reset_noted || (remote & shm::kReset) != 0 || (shut_write() && (remote & shm::kFin) != 0);
  }
  // Looks whether the peer has taken the slot meanwhile.
  void reach_peer();
  // After a change that the peer does not announce: threads of this process that sleep on this connection, or are
  // about to, look again. So do those of others that share it, if they sleep already.
  void wake_own_threads() { wake_own_threads(theirs); }
  void wake_own_threads(const shm::Slot* peer);

 private:
  // Every region has the same layout: its base follows from the slot.
  shm::PairView region_of(const shm::Slot* s) const {
    return {const_cast<std::byte*>(reinterpret_cast<const std::byte*>(s)) - shm::kSlotsOffset - slot * sizeof(shm::Slot)};
  }
  shm::PairView to() const { return region_of(mine); }
  shm::ByteProducer producer() { return {region_of(mine), *mine, theirs, head_seen}; }
  uint32_t my_state() const { return mine != nullptr ? mine->state.load(std::memory_order_relaxed) : 0; }  // ours
  uint32_t remote_state() const;
  int64_t bytes_to_mark() const;
  bool has_urgent_byte() const;
  bool has_bytes(int64_t at_least) const;
  // What poll(2) calls readable: unix_poll() does not look at SO_RCVLOWAT.
  bool has_enough() const { return has_bytes(is_unix() ? 1 : low_water()); }
  bool has_input() const { return has_enough() || has_urgent_byte(); }
  // SO_RCVLOWAT; never more than the sender can surely have under way.
  int64_t low_water() const { return records ? 1 : receive_low < kMostLowWater ? receive_low : kMostLowWater; }
  static constexpr int kMostLowWater = 32 * 1024;
  ssize_t receive_urgent(const iovec* iov, int count, int flags);
  void mark_urgent(uint64_t end);
  ssize_t send_urgent(const iovec* iov, int count, size_t skip);
  void note_reset(uint32_t remote);
  ssize_t receive_now(const iovec* iov, int count, size_t skip, int flags, msghdr* control, bool& ends_here);
  int end_of(uint32_t remote);
  ssize_t send_with_control_now(const msghdr& m);
  int announce_ancillary(const msghdr& m, uint32_t bytes);
  int open_channel();
  void let_go_of_far_end();
  bool is_told_anyway(const msghdr& m) const;
  int wait_for_channel(const Deadline& d, uint32_t seen_unrestarted);
  bool say_maker();
  int hand_out_channel(int end);
  int hand_to_holders(uint32_t where, int end);
  int next_ancillary(AncillaryHeader& header);
  bool take_ancillary(int channel, msghdr* into, int flags);
  static constexpr size_t kMostAtOnce = 32 * 1024;
  ssize_t send_now(const iovec* iov, int count, size_t skip, size_t at_most = SIZE_MAX);
  bool writable();
  size_t make_space(size_t wanted);
  bool grow(size_t wanted);
  bool switch_ring(uint32_t size_log2);
  uint32_t largest_ring_log2() const;
  void push_news();
  void after_publish();
  void after_retire(uint64_t available_before);
  void wake_peer(uint32_t wants);
  void look_away();
  int wait_for_bytes(size_t at_least, const Deadline& d, uint32_t seen_unrestarted);
  // `record`: until there is space for one of so many bytes.
  int wait_for_space(const Deadline& d, uint32_t seen_unrestarted, const size_t* record = nullptr);
  template <class Ready>
  int wait_on_doorbell(uint32_t wants, std::atomic<uint32_t>& waiting, const Deadline& d,
                       uint32_t seen_unrestarted, uint32_t seen, Ready&& ready);
  int send_error(int flags, bool waited = false);
  // AF_UNIX: the peer reads nothing more, which ends this direction at once.
  bool is_refused(uint32_t remote) const {
    return is_unix() && (remote & (shm::kClosed | shm::kDeaf)) != 0 && (remote & shm::kRedirect) == 0;
  }
  // Over TCP the kernel takes what is sent to a peer that has closed, or shut down both ways, if there is room for it, and is
  // then told that nobody reads (tcp_rcv_state_process()).
  bool nobody_reads(uint32_t remote) {
    constexpr uint32_t kBothWays = shm::kFin | shm::kDeaf;
    return (remote & shm::kClosed) != 0 || ((remote & kBothWays) == kBothWays && !is_unix() && writable());
  }
  ssize_t sent_in_vain(size_t bytes);
  static constexpr size_t kInVainBytes = 4096;  // at most, of what has to be read for that
  // ---- records.cpp, records_receive.cpp, records_splice.cpp
  size_t largest_sent_record() const;
  uint32_t record_ring_log2() const;
  bool may_grow_for_records();
  bool record_writable();
  bool never_fits(size_t bytes);
  bool record_fits(size_t bytes);
  bool grow_for_record(size_t bytes);
  void grow_for_child();
  int reserve_record(size_t bytes, iovec* room);
  void commit_record(size_t bytes);
  ssize_t put_record(const iovec* iov, int count, size_t bytes);
  ssize_t put_record_with(const msghdr& m, size_t bytes);
  static constexpr int kLookAgain = 1;
  int may_send_record();
  int next_record(shm::Pieces<const std::byte>& payload) const;
  void retire_record(size_t bytes);
  int ancillary_of_record(size_t bytes);
  ssize_t end_of_records(uint32_t remote);
  ssize_t break_off_records();
  ssize_t take_record(const iovec* iov, int count, int flags, msghdr* control, RecordInfo& info);
  size_t repeat_record(const std::byte* copy, uint64_t n);
  ssize_t send_file_in_records(int from, off_t* offset, size_t n);
  ssize_t splice_record_to(int pipe_fd, size_t n, bool pipe_waits);
  ssize_t splice_records_from(int pipe_fd, size_t n, bool pipe_waits);
  ssize_t splice_first(OwnPipe& own, int pipe_fd, size_t n);
  size_t most_spliced(size_t left) const;
  int wait_or_leave(const Deadline& d, uint32_t seen_unrestarted, size_t bytes);
  template <class Fill>
  ssize_t send_filled(size_t most, bool& full, Fill&& fill);

  void inherit_options(TcpSocket& accepted) const;
  void free_rings();
  void begin_at(Route& route, uint32_t slot, const shm::SocketName& from, const shm::SocketName& to);
  void redirect_locked();
  Moved move_locked();
  bool withdraw();
  void leave_behind(TcpSocket& rest);
  std::byte* copy_sent(uint64_t& sent) const;
  void begin_again(Pair& p, uint32_t slot, uint32_t listener, const std::byte* copy, uint64_t sent, uint64_t urgent);
  bool was_accepted() const;
  int connect_kernel(const std::byte* bytes, uint64_t n, bool finished) const;
  void leave_for_kernel(int fd);
};

// A connection that a peer has begun: finds its listener, or tells the peer to look elsewhere.
// Under control_lock.
void accept_incoming(Pair& p, uint32_t slot);

// If `fd` is a listener of the kernel's that came over exec or in a message: it becomes ours, and
// this process accepts on it when the program shows interest.
void inherit_listener(int fd);

// Sockets that listen, for incoming connections to find theirs. Under control_lock.
TcpSocket* find_listener(uint32_t id);
extern TcpSocket* listeners;
extern uint32_t listener_changes;  // grows when one comes, goes, or is waited at or not

TcpSocket* create_socket(int family, bool records = false);  // under control_lock
void destroy_socket(TcpSocket* s);                           // likewise

}  // namespace sluice::preload
