// The layout of every region. A region has one writing domain and one reading domain.
//
//   pair region A->B     everything A tells B                      writer A, reader B
//   client region A->C   requests and counters of A                writer A, reader coordinator
//   reply region C->A    replies and notices to A                  writer coordinator, reader A
//   directory C->*       what everybody may know (ports, who lives) writer coordinator, readers all
//
// The coordinator may read any region. A reader maps read-only; the kernel refuses more.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sluice::shm {

inline constexpr uint32_t kProtocolVersion = 8;
inline constexpr uint64_t kMagic = 0x31'65'63'69'75'6c'73'00;
inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kPageBytes = 4096;

// A domain is one process. 0 is nobody, 1 the coordinator.
using DomainId = uint32_t;
inline constexpr DomainId kNobody = 0;
inline constexpr DomainId kCoordinator = 1;
inline constexpr uint32_t kMaxDomains = 65536;
// From here on: no process, but what stands in as a holder for a connection that is being passed. Those
// come and go by the thousand; ids of their own leave the others their rest.
inline constexpr DomainId kFirstInFlight = kMaxDomains / 4 * 3;

// A listener's id: generation << kListenerBits | index. 0 is none.
inline constexpr uint32_t kListenerBits = 14;
inline constexpr uint32_t kMaxListeners = 1u << kListenerBits;
inline constexpr uint32_t kEveryListener = ~0u;  // in ClientRegion::accepting: more than one

template <class T>
using Shared = std::atomic<T>;
static_assert(Shared<uint64_t>::is_always_lock_free && sizeof(Shared<uint64_t>) == 8);
static_assert(Shared<uint32_t>::is_always_lock_free && sizeof(Shared<uint32_t>) == 4);

// ---- pair region ------------------------------------------------------------------------

inline constexpr uint32_t kSlots = 16384;  // connections of one ordered pair
inline constexpr uint32_t kChannelMakers = 4;  // of them may send ancillary data
inline constexpr uint32_t kHolders = 6;    // processes that share one connection after fork

inline constexpr uint32_t kSharers = 16;

// A process that shares its side of a pair by fork and says for itself whether it sleeps. It takes an
// entry that is free, or whose process is dead.
struct Sharer {
  Shared<DomainId> domain;
  Shared<uint32_t> sleeping;  // as PairHeader::sleeping
};

struct PairHeader {
  // Constant after creation.
  uint64_t magic;
  uint32_t version;
  DomainId writer;
  DomainId reader;
  uint32_t generation;
  DomainId maker;  // of a passing region: who made it, which need not be the writer
  // W: how the writer sleeps. Odd: asleep in the kernel, ring its bell. Grows with each sleep.
  alignas(kCacheLine) Shared<uint32_t> sleeping;
  // Sleepers among the processes that inherited this region by fork and have no entry in `sharers`;
  // never reset by the dead.
  Shared<uint32_t> sharers_sleeping;
  Shared<uint32_t> cpu;             // where the writer last ran, to know when spinning is vain
  Shared<uint32_t> listener_epoch;  // grows when the writer closes a listener: grants end
  Shared<uint32_t> attached;        // 1: the writer has mapped the opposite region
  Shared<uint32_t> frozen;          // the writer forked: no new connections in this pair
  // Processes that inherited this region do not push to its ready queue, which has one
  // producer; they count here, and the reader then looks at every connection of the pair.
  Shared<uint32_t> sharers_news;
  // R: how far the writer has consumed the ready queue of the opposite region.
  alignas(kCacheLine) Shared<uint64_t> ready_head;
  alignas(kCacheLine) Sharer sharers[kSharers];
  // W: odd while a thread of the writer looks for connections at this listener (kEveryListener: at several), awake. Grows with
  // each look. A line of their own, as the reader looks at the others with each message.
  alignas(kCacheLine) Shared<uint32_t> looking;
  Shared<uint32_t> looking_at;
};
static_assert(sizeof(PairHeader) <= kPageBytes);

// A passing region is a pair region for connections that have been passed over AF_UNIX. It has
// several writers: whoever holds one of these connections, all of one user. So it is not sealed
// against writing; the reader gets a descriptor that can only be read.

// Which ring a direction uses from byte `from` on.
struct RingRef {
  uint64_t from;
  uint32_t page;       // offset in the region, in pages
  uint32_t size_log2;  // bytes, a power of two
};

enum SlotState : uint32_t {
  kFin = 1,        // no byte comes after tail
  kReset = 2,      // the connection was aborted
  kClosed = 4,     // this side has let go of the slot and reads nothing more
  kAccepted = 8,   // accept() has returned this connection
  kRedirect = 16,  // never accepted here: connect again, elsewhere
  kDeaf = 32,      // shutdown(SHUT_RD) was called; only this side's processes care
  kUrgent = 64,    // Slot::urgent says something, or did
  kPolite = 128,   // a process of this side waits until the others let go of it; likewise
  // The initiator takes the connection back to make it elsewhere: who accepts it after that gives
  // it up. Sets this, full fence, looks at kAccepted; the acceptor the other way round.
  kWithdrawn = 256,
  // This side goes on in the slot with the same index of the passing region Slot::moved_to.
  kMoved = 512,
  kFinished = 1024,  // kFin came of shutdown(2), while the connection was whole
};

// What goes along with a connection that is passed: Slot::passed.
enum PassedFlags : uint32_t {
  kPassedInitiator = 1,
  kPassedNonblocking = 2,
  kPassedNoDelay = 4,
  kPassedCork = 8,
  kPassedKeepAlive = 16,
  kPassedUrgentInline = 32,
  kPassedReuseAddress = 64,
  kPassedReported = 128,  // connect() has nothing more to say
  kPassedV6 = 256,
};

enum Wants : uint32_t {
  kWantsBytes = 1,       // a thread sleeps on the peer's doorbell until bytes come
  kWantsSpace = 2,       // likewise until bytes have been consumed
  kWantsSpaceEvent = 4,  // push to the ready queue when bytes have been consumed
};

struct SocketName {
  uint8_t address[16];  // IPv6 form; IPv4 is v4-mapped. AF_UNIX: a UnixKey, or the initiator's ticket
  uint16_t port;        // host order; AF_UNIX: 0
  uint16_t family;      // AF_INET, AF_INET6 or AF_UNIX: as the owner of the name sees it
};

// Names a socket of AF_UNIX: the inode of its file; or, with kAbstractDevice, what the coordinator
// calls its abstract name, with the hash of that name in the low half.
struct UnixKey {
  uint64_t device;
  uint64_t inode;
  bool operator==(const UnixKey&) const = default;
};
inline constexpr uint64_t kAbstractDevice = ~uint64_t{0};
static_assert(sizeof(UnixKey) == sizeof(SocketName::address));

inline constexpr uint32_t kNameBits = 4096;  // of Directory::names

inline uint32_t hash_of_name(const char* name, std::size_t bytes) {  // FNV-1a
  uint32_t h = 2166136261u;
  for (std::size_t i = 0; i < bytes; ++i) h = (h ^ uint8_t(name[i])) * 16777619u;
  return h;
}

inline uint32_t name_bit(const UnixKey& k) {
  if (k.device == kAbstractDevice) return uint32_t(k.inode) % kNameBits;
  return uint32_t(((k.inode ^ k.device << 17) * 0x9e37'79b9'7f4a'7c15u) >> 40) % kNameBits;
}

// One side of one connection. The connection has the same index in A->B and B->A; even
// indexes belong to the domain with the smaller id to give out, odd ones to the other.
struct alignas(kCacheLine) Slot {
  // Line 0, written when this side sends.
  Shared<uint64_t> tail;        // bytes published since the connection began
  Shared<uint32_t> generation;  // of the connection in this slot; the initiator counts
  Shared<uint32_t> state;       // SlotState bits
  Shared<uint32_t> wants;       // Wants bits
  Shared<uint32_t> doorbell;    // futex word for the peer's sleeping threads
  Shared<uint32_t> switches;    // rings[switches & 1] is the newest
  // Messages with ancillary data that were sent; each counted before its bytes are published.
  Shared<uint32_t> ancillaries;
  RingRef rings[2];
  // Line 1, written when this side receives.
  alignas(kCacheLine) Shared<uint64_t> head;  // bytes consumed of the opposite direction
  Shared<uint32_t> send_lock;                 // used only between processes that share by fork
  Shared<uint32_t> receive_lock;
  Shared<uint32_t> ancillaries_taken;         // of the opposite direction
  // Line 2, written by the initiator before it announces the connection.
  alignas(kCacheLine) uint32_t listener;
  SocketName initiator;
  SocketName acceptor;
  // In a passing region, written by whoever passes the connection first. Times in ms, 0: never.
  uint32_t passed;  // PassedFlags
  uint32_t passed_receive_ms, passed_send_ms;
  int32_t passed_linger;  // seconds; -1: off
  // Line 3: the domains that hold this side open (0: free entry).
  alignas(kCacheLine) Shared<DomainId> holders[kHolders];
  Shared<uint32_t> holders_overflow;  // set once more processes shared than fit
  uint32_t moved_to;                  // with kMoved: the passing region, as the coordinator numbers it
  // The position after the last urgent byte (send(2), MSG_OOB), written before the byte is
  // published; 0: there was none. The byte itself is in the stream.
  Shared<uint64_t> urgent;
  // The domains that have made a channel for ancillary data; kept when they let go of the slot.
  Shared<DomainId> channel_makers[kChannelMakers];
};
static_assert(sizeof(Slot) == 4 * kCacheLine && offsetof(Slot, head) == kCacheLine);
static_assert(sizeof(RingRef) == 16 && sizeof(SocketName) == 20);

// An entry: lap << 32 | slot index. The lap tells a fresh entry from an old one.
using ReadyEntry = Shared<uint64_t>;

inline constexpr std::size_t kReadyOffset = kPageBytes;
inline constexpr std::size_t kSlotsOffset = 0x40000;
inline constexpr std::size_t kHeapOffset = 0x480000;
inline constexpr std::size_t kPairBytes = std::size_t{256} << 20;  // sparse: memory only when touched
static_assert(kReadyOffset + kSlots * sizeof(ReadyEntry) <= kSlotsOffset);
static_assert(kSlotsOffset + kSlots * sizeof(Slot) <= kHeapOffset);

inline constexpr uint32_t kSmallestRingLog2 = 12;
inline constexpr uint32_t kLargestRingLog2 = 20;

// A mapped pair region. Pointers only; nothing here owns the mapping.
struct PairView {
  std::byte* base = nullptr;
  PairHeader& header() const { return *reinterpret_cast<PairHeader*>(base); }
  ReadyEntry* ready() const { return reinterpret_cast<ReadyEntry*>(base + kReadyOffset); }
  Slot& slot(uint32_t i) const { return reinterpret_cast<Slot*>(base + kSlotsOffset)[i]; }
  explicit operator bool() const { return base != nullptr; }
};

// ---- client and reply regions -----------------------------------------------------------

inline constexpr std::size_t kMessageWords = 7;

// A request, reply or notice: one cache line, so that it moves as one.
struct Message {
  uint16_t type;
  uint16_t status;  // errno in replies; below 0x8000
  uint32_t id;      // the sender's choice, below kMessageIds; a reply repeats it
  uint64_t words[kMessageWords];
};
static_assert(sizeof(Message) == kCacheLine);

inline constexpr uint32_t kMessageIds = 1u << 24;
inline constexpr uint32_t kMessages = 64;  // entries of a message ring

// A message in a ring: type, status and id are one word, with a mark (message_ring.h).
struct alignas(kCacheLine) MessageEntry {
  Shared<uint64_t> first;
  uint64_t words[kMessageWords];
};
static_assert(sizeof(MessageEntry) == sizeof(Message));

struct MessageEntries {
  MessageEntry entries[kMessages];
};

// A queue of a network-on-chip, in memory (demux_queue.h): words, of which no more than kDemuxWords are under way.
inline constexpr uint32_t kDemuxWords = 118;
inline constexpr uint32_t kDemuxPlaces = 128;
struct DemuxWords {
  alignas(kCacheLine) Shared<uint64_t> tail;  // words published
  alignas(kCacheLine) Shared<uint64_t> words[kDemuxPlaces];
};
static_assert(kDemuxWords <= kDemuxPlaces && (kDemuxPlaces & (kDemuxPlaces - 1)) == 0);

// What the shim counts for `sluice status`. Totals unless named otherwise.
enum Counter : uint32_t {
  kConnects,         // accelerated, initiator's side
  kConnectsGranted,  // of these without asking the coordinator
  kAccepts,          // accelerated, acceptor's side
  kOpen,             // now: initiator's ends that are open
  kOpenAccepted,     // now: acceptor's ends that are open
  kKernelAccepts,    // accept() returned a kernel connection
  kBells,            // bells rung
  kResets,           // connections ended because the peer broke an invariant
  kPipes,            // pipes whose bytes went through a channel
  kSocketPairs,      // socket pairs, likewise
  kKeyed,            // now: processes whose shim has a protection key
  kKeyInstructions,  // now: instructions in them that change rights to keys, and are not the shim's
  kFallbacks = 16,   // kFallbacks + Fallback: connects that went to the kernel, by reason
  kCounters = 48,
};

enum class Fallback : uint32_t {
  kNoListener,     // nobody with the shim listens there
  kNoAcceptor,     // a listener, but no process is known to accept on it yet
  kNoCoordinator,  // the coordinator could not be reached in time
  kBacklogFull,    // the kernel's backlog decides
  kNoPorts,        // no local port left to give
  kNoMemory,       // region, slots or ring memory exhausted
  kRefused,        // policy
  kOption,         // the socket carries something only the kernel does
  kType,           // a kind of AF_UNIX socket that is the kernel's: datagrams; a pipe of packets
  kSocketPair,     // a socket pair of records or datagrams, or one that is watched for events
  kFifo,           // a named pipe was made
  kLimit,          // a limit of the user's (policy)
  kCount,
};
inline constexpr const char* kFallbackNames[] = {"no_listener", "no_acceptor", "no_coordinator",
                                                 "backlog_full", "no_ports", "no_memory",
                                                 "refused", "option", "type", "socketpair", "fifo", "limit"};
static_assert(sizeof(kFallbackNames) / sizeof(*kFallbackNames) == uint32_t(Fallback::kCount));

struct ClientRegion {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  // Shared queue only: 0, or 1 while claiming, or 2 + ticket until published.
  alignas(kCacheLine) Shared<uint64_t> claim;
  alignas(kCacheLine) Shared<uint64_t> replies_head;  // consumed of ReplyRegion::replies
  Shared<uint32_t> sleeping;                          // odd: ring the bell after a notice
  // The listener at which a thread sleeps until a connection comes; kEveryListener, or 0: none.
  Shared<uint32_t> accepting;
  Shared<uint32_t> waiters;  // threads that sleep, or are about to, on ReplyRegion::doorbell
  alignas(kCacheLine) Shared<uint64_t> counters[kCounters];
  MessageEntries requests;
  // kNocQueue only: in the place of `requests`, and how far the queues of ReplyRegion are consumed.
  alignas(kCacheLine) Shared<uint64_t> demux_replies_head;
  Shared<uint64_t> demux_doorbells_head;
  Shared<uint64_t> demux_control_head;
  DemuxWords demux_requests;
};
inline constexpr std::size_t kClientBytes = 2 * kPageBytes;
static_assert(sizeof(ClientRegion) <= kClientBytes);

// How requests reach the coordinator. kEitherQueue: the first two ways are open, and ReplyRegion::queue says which
// one to take. kNocQueue: as packets of a network-on-chip, and replies come back so (noc_queues.h).
enum RequestQueue : uint32_t { kDividedQueue = 0, kSharedQueue = 1, kEitherQueue = 2, kNocQueue = 3 };
inline constexpr bool has_shared_queue(uint32_t kind) { return kind == kSharedQueue || kind == kEitherQueue; }

struct ReplyRegion {
  uint64_t magic;
  uint32_t version;
  DomainId client;
  alignas(kCacheLine) Shared<uint64_t> requests_head;  // consumed of ClientRegion::requests
  alignas(kCacheLine) Shared<uint64_t> packets;        // packets sent on the control socket; not with kNocQueue
  Shared<uint32_t> doorbell;                           // futex word, grows with each reply
  Shared<uint32_t> queue;                              // RequestQueue: kDividedQueue or kSharedQueue
  MessageEntries replies;
  // kNocQueue only: in the place of requests_head, `replies` and `packets`.
  alignas(kCacheLine) Shared<uint64_t> demux_requests_head;
  DemuxWords demux_replies, demux_doorbells, demux_control;
};
inline constexpr std::size_t kReplyBytes = 2 * kPageBytes;
static_assert(sizeof(ReplyRegion) <= kReplyBytes);

struct Directory {
  uint64_t magic;
  uint32_t version;
  uint32_t polling;  // 1: the coordinator never sleeps and rings bells on request
  // 0: anybody may connect anywhere, and whoever accepts need not ask (kMay). Else the number of the policy in
  // force: what was answered under another one does not hold.
  Shared<uint32_t> policy;
  // Futex word for who sleeps on nothing that the kernel would end with the coordinator: its thread, to which the kernel adds
  // kOwnerDied when that has ended, and wakes one sleeper (robust futexes, set_robust_list(2)). That one wakes the rest.
  Shared<uint32_t> owner;
  static constexpr uint32_t kOwnerDied = 1u << 30;  // FUTEX_OWNER_DIED
  bool has_owner() const { return (owner.load(std::memory_order_acquire) & kOwnerDied) == 0; }
  alignas(kCacheLine) Shared<uint32_t> sleeping;  // odd: the coordinator sleeps, ring its bell
  alignas(kCacheLine) Shared<uint64_t> ports[65536 / 64];        // accelerated listeners, any namespace
  alignas(kCacheLine) Shared<uint64_t> alive[kMaxDomains / 64];  // registered and not dead
  // By a listener's index: connections wait at it, and all who accept there are busy. Whoever
  // goes to sleep there looks, after the full fence, and says kIdle.
  alignas(kCacheLine) Shared<uint64_t> waited[kMaxListeners / 64];
  // By name_bit: listeners of AF_UNIX, in any namespace.
  alignas(kCacheLine) Shared<uint64_t> names[kNameBits / 64];
  bool has_names() const {
    for (const Shared<uint64_t>& word : names)
      if (word.load(std::memory_order_acquire) != 0) return true;
    return false;
  }
  bool has_name(uint32_t bit) const {
    return names[bit / 64].load(std::memory_order_acquire) >> (bit % 64) & 1;
  }
  bool has_port(uint16_t p) const {
    return ports[p / 64].load(std::memory_order_acquire) >> (p % 64) & 1;
  }
  bool is_waited(uint32_t listener) const {
    uint32_t i = listener % kMaxListeners;
    return waited[i / 64].load(std::memory_order_relaxed) >> (i % 64) & 1;  // ordered by the fence
  }
  bool is_alive(DomainId d) const {
    return d < kMaxDomains && (alive[d / 64].load(std::memory_order_acquire) >> (d % 64) & 1);
  }
};
inline constexpr std::size_t kDirectoryBytes = 8 * kPageBytes;
static_assert(sizeof(Directory) <= kDirectoryBytes);

// ---- shared request queue ---------------------------------------------------------------

inline constexpr uint32_t kSharedMessages = 1024;

struct SharedEntry {
  Shared<uint64_t> sequence;  // ticket + 1 once published
  DomainId sender;            // a claim: checked against the queue's uid
  uint32_t reserved;
  alignas(kCacheLine) Message message;
};

struct SharedQueueRegion {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  alignas(kCacheLine) Shared<uint64_t> tail;  // next ticket, claimed by fetch_add
  // Written by every client as well, so only a hint: the coordinator keeps its own.
  alignas(kCacheLine) Shared<uint64_t> head;
  alignas(kCacheLine) SharedEntry entries[kSharedMessages];
};
inline constexpr std::size_t kSharedQueueBytes =
    (sizeof(SharedQueueRegion) + kPageBytes - 1) / kPageBytes * kPageBytes;

}  // namespace sluice::shm
