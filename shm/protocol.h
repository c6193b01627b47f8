// What clients and the coordinator say to each other.
//
// Two channels. Packets carry descriptors and go over a SOCK_SEQPACKET socket at
// DIR/coordinator.sock; the kernel vouches for their sender (SO_PEERCRED). Messages carry
// none and go over the request queue (divided, shared, noc) and back over the reply ring. One request,
// one reply with the same id, except where "no reply" is noted.
//
// After each packet the coordinator adds one to ReplyRegion::packets (noc: a doorbell) and rings the client's
// bell if it sleeps, so a client looks at its socket only when there is something.
#pragma once

#include "shm/layout.h"

namespace sluice::shm {

// ---- messages ---------------------------------------------------------------------------

enum MessageType : uint16_t {
  // words 0,1: address (16 bytes, IPv6 form); 2: port | family << 16 | ListenFlags << 32;
  // 3: backlog | 1 << 32 if this process is the only one that holds the socket.
  // Reply words 0: listener id (> 0). EACCES: not accelerated; EPERM: not at all, by policy.
  kListen = 1,
  // word 0: listener id. The sender no longer holds it. No reply.
  kUnlisten,
  // words 0: listener id; 1: AcceptorRole. No reply.
  kAcceptor,
  // words 0,1: destination; 2: port | family << 16; 3: 1 to ask for a grant;
  // 4: a listener to avoid on this domain << 32 (after kRedirect), else 0; 5: of several acceptors, the number
  // (from 1) of the one to be told, else 0. With port 0 and AF_UNIX,
  // words 0,1 are a UnixKey that kNamed has told the sender; EACCES: kName has to be asked (again).
  // Reply: status 0, ENOENT (no listener), EAGAIN (no acceptor), EACCES (not accelerated), EPERM (not at all, by
  // policy), EDQUOT (a limit of the user's: not accelerated, now).
  // Words 0: acceptor's domain | listener id << 32; 1: backlog | choices << 32: 0 without a grant, else among
  // how many acceptors the sender may choose without asking, as soon as it has been told of all;
  // 2,3: the acceptor's address as connected to; 4: the acceptor's pid.
  kConnect,
  // Reply words 0: first port | count << 32. ENOSPC. The ports stay the client's until it dies.
  kLeasePorts,
  // word 0: domain. Ring that domain's bell. No reply. Only with Directory::polling.
  kRing,
  // Reply repeats the words. For measurements.
  kPing,
  // words 0: listener id; 1: 1 if connections of the sender wait there to be accepted for longer
  // than usual, 0 if none do any more. No reply: kReconsider follows as soon as a process is idle
  // there.
  kWaiting,
  // words 0: listener id, at which the sender sleeps; 1: 1 if it does not sleep but accepts when it
  // looks again. No reply. Said when Directory::waited shows somebody, and again while it does.
  kIdle,
  // words 0: listener id | domain where a connection waits << 32; 1,2: its destination; 3: port.
  // Another process that is idle at this very listener; reply as to kConnect. EAGAIN: none, and the
  // sender waits as by kWaiting. EBUSY: only the one where it waits already. ENOENT: the listener is
  // another one, or gone.
  kMove,
  // words 0: a domain that connects to a listener of AF_UNIX that the sender holds; 1: its ticket.
  // Reply words 0: listener id; 1: pid | uid << 32; 2: gid, as they were when it got the ticket.
  // ENOENT: no such ticket. Those of the dead hold on.
  kWho,
  // words 0: a domain that has begun a connection at a listener that the sender holds; 1: that listener. Asked
  // where Directory::policy says that there are rules. Reply word 0: how many connections it may have open there,
  // 0: no bound. ENOENT: no such listener; EACCES: it was not told that it may.
  kMay,
  // words 0: domain | generation << 32. The sender has not what it takes to share that pair, which the domain is told by
  // kUnmet. No reply.
  kCannotMeet,
};

// A grant is given up to this number of acceptors.
inline constexpr uint32_t kMostChoices = 32;

enum ListenFlags : uint32_t { kListenV6Only = 1, kListenReusePort = 2 };

// HOLDER: has the descriptor, has not shown interest. ONLY: the one holder, so connections may go to
// it although it has not called accept yet. ACCEPTS: has called accept or waits on it.
enum class AcceptorRole : uint64_t { kHolder = 0, kOnly = 1, kAccepts = 2 };

// ---- packets ----------------------------------------------------------------------------

enum PacketType : uint16_t {
  // Client -> coordinator. fds: client region, bell (the ringing end: bell.h). domain: 0, or the id to have again after
  // the coordinator restarted, or the id got by kReserve. Answer: kWelcome.
  kHello = 1,
  // fds: reply region, directory, coordinator's bell[, shared queue]. domain: the client's id.
  // value: RequestQueue. value2: 0 protect=none, 1 regions. status: 0 or errno
  // (EPROTO other version, EPERM not allowed, EBADF region not acceptable).
  kWelcome,
  // Parent -> coordinator before fork. fds: one end of a socket pair (AF_UNIX, SEQPACKET), which is for
  // the answer only. Answer there: kReserved, domain: the child's id, alive from now on; fds: a socket that the
  // child will inherit and keep. The child may send kHello later, with that id, on that socket. A child
  // that has not said hello yet may reserve for children of its own.
  kReserve,
  kReserved,
  // Client -> coordinator. domain: peer; value: generation; fds: pair region (writer: the client).
  // Answer: kPeer, then the peer gets kPeerRegion. value2 is 0, or kOfferedBefore after the
  // coordinator restarted: no answer then, and the peer may get it only when it says Hello again.
  kRegion,
  // fds: the peer's bell. domain: peer; value: its pid. status: 0, ESRCH, EBADF.
  kPeer,
  // Coordinator -> client. domain: writer; value: generation; value2: its pid. fds: pair
  // region (to map read-only), the writer's bell.
  kPeerRegion,
  // Coordinator -> client: domain is dead. Directory::alive says so already.
  kPeerGone,
  // Client -> coordinator after the coordinator restarted: domain: peer, value: generation, value2: peer's pid.
  kAnnouncePair,
  // Coordinator -> client: value: listener whose grants end.
  kRevoke,
  // Coordinator -> client: value: listener. A process is idle there: kMove a connection that waits.
  kReconsider,
  // Client -> coordinator and back, after all that the coordinator sent before.
  kSync,
  // Client -> coordinator: listens on a socket of AF_UNIX. fds: that socket, and if it has a file, that
  // file (O_PATH), in case the coordinator may not ask the kernel. value: backlog; value2: 1 if this
  // process is the only one that holds the socket. Answer: kListening.
  kListenName,
  kListening,  // status: 0, EINVAL, EACCES, EPERM, ENOSPC. value: listener id
  // Client -> coordinator: would connect to a socket of AF_UNIX of the type `value`, and shows that it may. fds: its file
  // (O_PATH), which proves that the path could be searched; or none, and the abstract name follows in a
  // NameBody. With SCM_CREDENTIALS: effective ids. Answer: kNamed.
  kName,
  kNamed,  // status: 0, ENOENT, EACCES, EPERM, EDQUOT, ENOSPC. A NameBody follows.
  // Client -> coordinator -> peer: a socket for the ancillary data that the sender sends along with
  // the bytes of one connection. fds: the peer's end. domain: peer (then: sender); value: generation
  // of the pair; value2: slot; reserved: generation of the slot. Answer: kChannelPassed, status 0, ESRCH,
  // ENOBUFS (too much that the client sent to others waits for them).
  kChannel,
  kChannelPassed,
  // Client -> coordinator: a passing region. domain: peer; value: generation; value2: the writer, whose
  // pair it is; reserved: 1 if the client has the peer's region (a new coordinator may not, and then
  // refuses); fds: both ends of a bell for those who will hold its connections (ringing,
  // hearing)[, the peer's region, if the peer is the client itself]. Those who read the pair get kPeerRegion with the
  // region's number in `reserved` and the bell. Answer after that: kPass, value: the number; fds: the
  // region, which the coordinator has made.
  kPass,
  // Client -> coordinator, before it passes a connection. domain: 1 if it wants to hear kTaken; value:
  // passing region; value2: slot; reserved: its generation; fds: the end that travels, the other
  // end. Answer: kDeposit, domain: a holder that lives until nobody has the first end any more, value: a number.
  kDeposit,
  // Coordinator -> client: what it deposited under this number (value) was claimed for the first time.
  kTaken,
  // Client -> coordinator. value: what was deposited under this number. Answer: kCarry, status 0: nobody
  // can claim it any more, so the client may serve the other end; ECANCELED: somebody has.
  kCarry,
  // Client -> coordinator. fds: an end that came in a message. Answer: kClaim, domain: the peer's pid, 0
  // if it is dead; value: passing region; value2: slot; reserved: its generation; fds: the region,
  // its bell (hearing end), the peer's bell[, the peer's region]. status: ENOENT, EPERM (another user's).
  kClaim,
  // Client -> coordinator -> peer, and those whom the peer has forked: the sender shares the side of the
  // pair (domain: peer, value: generation) that its ancestor (value2) writes, and says for itself
  // whether it sleeps (PairHeader::sharers). They get it with the sender as domain, and its bell. No answer.
  kSharersBell,
  // Coordinator -> client. domain: peer; value: generation. The peer, which lives, will never see what is in that pair.
  // Those who do not know this see a peer that accepts nothing, as before.
  kUnmet,
  // `sluice` -> coordinator. Answer: kText packets, whose text follows the header; an empty one
  // is the last. status: EPROTO, EPERM.
  kStatus = 64,   // JSON. value: 1 if a client is about to come, so that --linger waits for it
  kSockets,       // JSON array for `sluice ss`
  kStop,
  kText,
  kRegions,       // JSON object for `sluice audit`
};

struct Packet {
  uint64_t magic;
  uint32_t version;
  uint16_t type;
  uint16_t status;
  DomainId domain;
  uint32_t value;
  uint32_t value2;
  uint32_t reserved;  // 0 unless said otherwise
};
static_assert(sizeof(Packet) == 32);

// Follows the header of kName (name only) and kNamed.
struct NameBody {
  UnixKey key;
  uint64_t ticket;  // in the slots of connections to this listener: SocketName::address
  int32_t pid;      // who called listen(2), as SO_PEERCRED tells
  uint32_t uid;
  uint32_t gid;
  uint32_t name_bytes;
  char name[112];   // of sun_path, as bound
};
static_assert(sizeof(NameBody) == 152);
inline constexpr int kMaxPacketFds = 4;
inline constexpr uint32_t kOfferedBefore = 1;  // see kRegion

// Of the end of a socket pair that stands for a passed connection: its SO_MAX_PACING_RATE, which
// means nothing on AF_UNIX. A hint: the coordinator knows.
inline constexpr uint64_t kTicketMark = 0x5d'65'63'69'75'6c'73'01;

inline constexpr const char* kSocketName = "coordinator.sock";
// In the coordinator's directory: programs that start while it is there protect the shim's memory by a key, as it says; preload/keys.h.
inline constexpr const char* kKeysName = "protect-keys";
inline constexpr const char* kKeys = "keys";
inline constexpr const char* kKeysStrict = "keys-strict";

}  // namespace sluice::shm
