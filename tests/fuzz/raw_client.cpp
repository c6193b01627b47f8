#include "tests/fuzz/raw_client.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/bell.h"
#include "shm/futex.h"
#include "shm/region.h"
#include "shm/wake.h"

namespace sluice::fuzz {

using namespace shm;

namespace {

void close_all(std::vector<int>& fds) {
  for (int fd : fds) close(fd);
  fds.clear();
}

}  // namespace

RawClient::~RawClient() {
  for (int fd : {socket, pair_memory, peers_bell, summons, bell[0], bell[1]})
    if (fd >= 0) close(fd);
  if (region != nullptr) munmap(region, kClientBytes);
  if (replies != nullptr) munmap(const_cast<ReplyRegion*>(replies), kReplyBytes);
  if (queue != nullptr) munmap(queue, kSharedQueueBytes);
  for (PairView v : {out, in})
    if (v) munmap(v.base, kPairBytes);
}

bool RawClient::connect(const std::string& directory) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::string path = directory + "/" + kSocketName;
  if (path.size() >= sizeof a.sun_path) return false;
  memcpy(a.sun_path, path.c_str(), path.size());
  socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  return ::connect(socket, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
}

int RawClient::make_client_memory() {
  int memory = create_region("hostile-client", kClientBytes);
  region = static_cast<ClientRegion*>(map_writable(memory, kClientBytes));
  if (region == nullptr || seal_region(memory, Protect::kRegions) != 0) return -1;
  region->magic = kMagic;
  region->version = kProtocolVersion;
  return memory;
}

bool RawClient::hello(DomainId wanted, int memory, int other_bell, uint32_t version) {
  int own = make_client_memory();
  if (own < 0 || socketpair(AF_UNIX, kBellType | SOCK_CLOEXEC, 0, bell) != 0) return false;
  init_bell(bell);
  Packet p = packet(kHello, wanted);
  p.version = version;
  bool sent = send(p, {memory >= 0 ? memory : own, other_bell >= 0 ? other_bell : bell[1]});
  close(own);
  std::vector<int> fds;
  if (!sent || !await(kWelcome, p, &fds) || p.status != 0 || fds.size() < 3) return close_all(fds), false;
  self = p.domain;
  kind_ = p.value;
  replies = static_cast<const ReplyRegion*>(map_readable(fds[0], kReplyBytes));
  summons = dup(fds[2]);
  if (fds.size() > 3) queue = static_cast<SharedQueueRegion*>(map_writable(fds[3], kSharedQueueBytes));
  close_all(fds);
  if (replies == nullptr) return false;
  producer_ = MessageProducer(&region->requests, &replies->requests_head);
  consumer_ = MessageConsumer(&replies->replies, &region->replies_head);
  shared_ = SharedProducer(queue, &region->claim, self);
  demux_requests_ = DemuxProducer(&region->demux_requests, &replies->demux_requests_head);
  demux_replies_ = DemuxConsumer(&replies->demux_replies, &region->demux_replies_head);
  return true;
}

bool RawClient::send(const Packet& p, std::initializer_list<int> fds, const void* body, std::size_t body_bytes) {
  iovec parts[2] = {{const_cast<Packet*>(&p), sizeof p}, {const_cast<void*>(body), body_bytes}};
  alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = body != nullptr ? 2 : 1;
  if (fds.size() != 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    *c = {CMSG_LEN(fds.size() * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds.begin(), fds.size() * sizeof(int));
  }
  return sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

bool RawClient::receive(Packet& p, std::vector<int>* fds, int wait_ms) {
  pollfd ready{socket, POLLIN, 0};
  if (poll(&ready, 1, wait_ms) <= 0) return false;
  char rest[256];
  iovec parts[2] = {{&p, sizeof p}, {rest, sizeof rest}};
  alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = 2;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  if (recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < ssize_t(sizeof p)) return false;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (fds != nullptr) fds->push_back(fd);
      else close(fd);
    }
  }
  return true;
}

bool RawClient::await(uint16_t type, Packet& p, std::vector<int>* fds) {
  for (int n = 0; n < 64; ++n) {
    std::vector<int> got;
    if (!receive(p, &got)) return close_all(got), false;
    if (p.type == type) {
      if (fds != nullptr) fds->swap(got);
      close_all(got);
      return true;
    }
    take_peer_region(p, got);
    close_all(got);
  }
  return false;
}

void RawClient::take_peer_region(const Packet& p, std::vector<int>& fds) {
  if (p.type != kPeerRegion || p.domain != peer || in || fds.size() != 2) return;
  in = {static_cast<std::byte*>(map_readable(fds[0], kPairBytes))};
}

bool RawClient::push(const Message& m) {
  if (uses_noc()) return push_framed(m, self);
  bool shares = kind_ == kSharedQueue || (kind_ == kEitherQueue && replies->queue.load(std::memory_order_relaxed) == kSharedQueue);
  bool pushed = shares && queue != nullptr ? shared_.try_push(m, 1000) : producer_.try_push(m);
  uint64_t one = 1;
  if (summons >= 0) (void)!write(summons, &one, sizeof one);
  return pushed;
}

bool RawClient::push_framed(const Message& m, DomainId sender) {
  bool pushed = demux_requests_.try_send(frame_of(m, words_that_travel(m), sender), m);
  uint64_t one = 1;
  if (summons >= 0) (void)!write(summons, &one, sizeof one);
  return pushed;
}

bool RawClient::try_receive(Message& reply) {
  Frame frame;
  return uses_noc() ? demux_replies_.try_take(frame, reply) == Taken::kPacket : consumer_.try_pop(reply);
}

bool RawClient::ask(Message& m) {
  static uint32_t next = 1;
  m.id = next++ % kMessageIds;
  if (!push(m)) return false;
  for (int n = 0; n < 100; ++n) {
    uint32_t doorbell = replies->doorbell.load(std::memory_order_acquire);
    Message r;
    while (try_receive(r))
      if (r.id == m.id) return m = r, true;
    timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += 2'000'000;
    if (end.tv_nsec >= 1'000'000'000) end.tv_sec += 1, end.tv_nsec -= 1'000'000'000;
    region->waiters.store(1, std::memory_order_seq_cst);
    (void)futex_wait(replies->doorbell, doorbell, &end);
  }
  return false;
}

bool RawClient::open_pair(DomainId to, uint32_t with_generation) {
  peer = to;
  generation = with_generation;
  pair_memory = create_region("hostile-pair", kPairBytes);
  out = {static_cast<std::byte*>(map_writable(pair_memory, kPairBytes))};
  if (!out) return false;
  PairHeader& h = out.header();
  h.magic = kMagic;
  h.version = kProtocolVersion;
  h.writer = self;
  h.reader = peer;
  h.generation = generation;
  if (seal_region(pair_memory, Protect::kRegions) != 0) return false;
  Packet p;
  std::vector<int> fds;
  if (!send(packet(kRegion, peer, generation), {pair_memory}) || !await(kPeer, p, &fds) || fds.empty()) return close_all(fds), false;
  peers_bell = dup(fds[0]);
  close_all(fds);
  return p.status == 0;
}

void RawClient::begin_connection(uint32_t slot, uint32_t listener, uint16_t port) {
  Slot& s = out.slot(slot);
  s.listener = listener;
  const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
  memcpy(s.initiator.address, loopback, 16);
  memcpy(s.acceptor.address, loopback, 16);
  s.initiator.port = uint16_t(60000 + slot);
  s.acceptor.port = port;
  s.initiator.family = s.acceptor.family = AF_INET;
  s.holders[0].store(self, std::memory_order_relaxed);
  s.rings[1] = {0, uint32_t(kHeapOffset / kPageBytes) + slot * 16, kSmallestRingLog2};
  s.switches.store(1, std::memory_order_relaxed);
  s.tail.store(64, std::memory_order_relaxed);
  s.generation.fetch_add(1, std::memory_order_release);
  push_ready(slot);
}

void RawClient::push_ready(uint32_t slot) {
  out.ready()[ready_ % kSlots].store((ready_ / kSlots + 1) << 32 | slot, std::memory_order_release);
  ++ready_;
  sleep_wake_fence();
  ring_peer();
}

void RawClient::ring_peer() const {
  if (peers_bell >= 0) ring_bell(peers_bell);
}

}  // namespace sluice::fuzz
