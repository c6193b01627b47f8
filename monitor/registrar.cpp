#include "monitor/registrar.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "monitor/process.h"
#include "monitor/tickets.h"
#include "shm/bell.h"

namespace sluice::monitor {
namespace {

constexpr std::size_t kOwnDescriptors = 32;
constexpr std::size_t kDescriptorsPerClient = 4;
constexpr std::size_t kDescriptorsPerPair = 2 + 2 * 2;  // and as many to each side, if they queue

}  // namespace

// ---- hello --------------------------------------------------------------------------------

void Registrar::hello(Client& client, InPacket& packet) {
  if (client.stage == Stage::kWelcomed) return clients_.doom(client);
  int error = check_hello(client, packet);
  if (error == 0) error = welcome(client, packet);
  if (error != 0) refuse(client, error);
}

int Registrar::check_hello(const Client& client, const InPacket& packet) const {
  if (packet.header.version != shm::kProtocolVersion) return EPROTO;
  if (client.stage == Stage::kReserved && packet.header.domain != client.domain) return EPERM;
  if (packet.fds.size() != 2 || !shm::is_bell(packet.fds[1].get())) return EBADF;
  return -shm::verify_region(packet.fds[0].get(), shm::kClientBytes, options_.protect);
}

int Registrar::welcome(Client& client, InPacket& packet) {
  Descriptor replies;
  int error = attach(client, packet);
  if (error == 0) error = create_replies(client, replies);
  if (error == 0) error = register_domain(client, packet.header.domain);
  if (error != 0) return error;
  int queue = transport_->queue_for(core_.domain(client.domain).identity.uid);
  if (queue < -1) return -queue;
  client.stage = Stage::kWelcomed;
  transport_->join(client);
  shm::Packet p = make_packet(shm::kWelcome, client.domain, options_.queues,
                              options_.protect == shm::Protect::kRegions);
  if (queue < 0)
    post_.send(client, p, {replies.get(), directory_.fd(), client.summons.get()});
  else
    post_.send(client, p, {replies.get(), directory_.fd(), client.summons.get(), queue});
#ifdef SLUICE_NEWER_MINOR
  // Tests: a later minor version says things of which this one's clients have not heard.
  post_.send(client, make_packet(shm::PacketType(shm::kStatus - 1), shm::kCoordinator, 1, 2), {directory_.fd()});
#endif
  // What its parent had; or what was offered to it before it was back.
  pass_regions(client);
  for (OutPacket& p : client.kept) {
    clients_.forget_waiting(p);
    post_.send(client, p.header, {p.fds[0].get()});
  }
  client.kept.clear();
  tickets_->introduce(client);
  return 0;
}

int Registrar::attach(Client& client, InPacket& packet) {
  void* base = shm::map_readable(packet.fds[0].get(), shm::kClientBytes);
  if (base == nullptr) return ENOMEM;
  client.region = {base, shm::kClientBytes};
  if (client.region->magic != shm::kMagic) return EBADF;
  if (client.region->version != shm::kProtocolVersion) return EPROTO;
  client.bell = std::move(packet.fds[1]);
  // A bell for each client: whoever has one can also silence it.
  client.summons = Descriptor(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  // Edge-triggered, so that nobody needs to read it.
  bool watched = client.summons && events_.add(client.summons.get(), Source::kSummons,
                                               client.serial, EPOLLIN | EPOLLET);
  return watched ? 0 : EMFILE;
}

int Registrar::create_replies(Client& client, Descriptor& fd) {
  int created = shm::create_region("sluice-replies", shm::kReplyBytes);
  if (created < 0) return -created;
  fd = Descriptor(created);
  void* base = shm::map_writable(created, shm::kReplyBytes);
  if (base == nullptr) return ENOMEM;
  client.reply_region = {base, shm::kReplyBytes};
  client.reply_region->magic = shm::kMagic;
  client.reply_region->version = shm::kProtocolVersion;
  client.requests = {&client.region->requests, &client.reply_region->requests_head};
  client.replies = {&client.reply_region->replies, &client.region->replies_head};
  return -shm::seal_region(created, shm::Protect::kRegions);
}

core::Identity Registrar::identity_of(const Client& client) const {
  // What a child inherits, it keeps: its rights are those of the process that forked it.
  uint32_t uid =
      client.stage == Stage::kReserved ? core_.domain(client.domain).identity.uid : client.uid;
  bool reserved = client.stage == Stage::kReserved;  // its socket is our own work
  uint64_t netns = network_namespace(client.pid, reserved ? -1 : client.socket.get());
  if (netns == 0 && reserved) netns = core_.domain(client.domain).identity.netns;
  return {uid, netns, client.pid};
}

int Registrar::register_domain(Client& client, DomainId wanted) {
  core::Identity identity = identity_of(client);
  if (identity.netns == 0) return EPERM;
  bool reserved = client.stage == Stage::kReserved;
  client.process = reserved ? open_process(client.pid) : open_peer(client.socket.get(), client.pid);
  if (client.process) events_.add(client.process.get(), Source::kProcess, client.serial);
  if (reserved) {
    if (!core_.enter(client.domain, identity)) return EPERM;
  } else {
    if (int error = core_.may_register(identity.uid); error != 0) return error;
    client.program = program_of(client.process.get(), client.pid);
    DomainId domain = core_.admit(identity, wanted);
    if (domain == shm::kNobody) return ENOSPC;
    clients_.enter_domain(client, domain);
  }
  client.reply_region->client = client.domain;
  return 0;
}

void Registrar::refuse(Client& client, int error) {
  client.reply_region = {};
  post_.send(client, make_packet(shm::kWelcome, 0, 0, 0, error));
  post_.dismiss(client);
}

// ---- fork ---------------------------------------------------------------------------------

// Who may ask is settled by the channel: a vfork child, too, speaks through its parent's. The answer goes to a socket that
// the parent has opened, from which nothing is read: whoever has the same end can hold its lock for ever, by reading from
// it into memory that does not come (userfaultfd(2), fuse(4)). The child's own is made here.
void Registrar::reserve(Client& parent, InPacket& packet) {
  if (packet.fds.size() != 1 || !is_channel(packet.fds[0].get())) return clients_.doom(parent);
  int answer = packet.fds[0].get();
  bool has_domain = !parent.doomed && parent.stage != Stage::kStranger;
  int ends[2];
  if (!has_domain || !clients_.has_room_for(parent.uid) ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
    return Post::send_once(answer, make_packet(shm::kReserved, 0, 0, 0, has_domain ? ENOSPC : EPERM), {});
  Descriptor theirs(ends[1]);
  fcntl(theirs.get(), F_SETFL, 0);
  Client& client = clients_.add(Descriptor(ends[0]), parent.uid, parent.pid);
  client.groups = groups_of(parent);
  DomainId child = events_.add(ends[0], Source::kSocket, client.serial) ? core_.reserve(parent.domain) : shm::kNobody;
  if (child == shm::kNobody) {
    clients_.doom(client);
    return Post::send_once(answer, make_packet(shm::kReserved, 0, 0, 0, ENOSPC), {});
  }
  client.stage = Stage::kReserved;
  client.program = parent.program;  // fork(2) changes nothing about it
  clients_.enter_domain(client, child);
  pairs_.inherit(child, parent.domain);
  tickets_->inherit(child, parent.domain);
  for (const OutPacket& p : parent.kept) client.keep(p.header, p.fds[0].get(), parent.serial);
  parent.fds_elsewhere += client.kept.size();
  // The hello will come from another process.
  int on = 1;
  setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  Post::send_once(answer, make_packet(shm::kReserved, child), {theirs.get()});
}

// ---- pairs --------------------------------------------------------------------------------

void Registrar::region(Client& client, InPacket& packet) {
  DomainId peer_id = packet.header.domain;
  Client* peer = clients_.by_domain(peer_id);
  bool again = packet.header.value2 == shm::kOfferedBefore;
  uint32_t generation = packet.header.value;
  int error = accept_region(client, peer, packet);
  if (again && error == ESRCH && core_.is_expected(peer_id))
    return pairs_.add({client.domain, peer_id, generation}, std::move(packet.fds[0]));
  if (again && error != 0) return;
  if (error == 0) {
    shm::Packet p = make_packet(shm::kPeerRegion, client.domain, generation, uint32_t(client.pid));
    bool passed = post_.pass_on(client, *peer, p, {packet.fds[0].get(), client.bell.get()});
    if (!passed && again) return;
    // Who answers is told that it has met the other one only when that can hear so whatever becomes of us.
    if (!again && pairs_.is_answer({client.domain, peer_id, generation}) && !peer->outbox.empty()) passed = false;
    if (!passed) error = EMFILE;
  }
  if (error != 0) return post_.send(client, make_packet(shm::kPeer, peer_id, 0, 0, error));
  if (!again)
    post_.send(client, make_packet(shm::kPeer, peer_id, uint32_t(peer->pid)), {peer->bell.get()});
  PairKey key{client.domain, peer_id, generation};
  tickets_->complete(key, packet.fds[0].get());
  pairs_.add(key, std::move(packet.fds[0]));
  // Who was forked by the peer before the region came shares the peer's side of the pair.
  if (const PairRegion* side = pairs_.opposite(key); side != nullptr) {
    for (DomainId sharer : std::vector<DomainId>(side->writers)) {
      if (sharer == peer_id || !pairs_.share(key, sharer)) continue;
      Client* child = clients_.by_domain(sharer);
      if (child != nullptr && !child->doomed && child->stage == Stage::kWelcomed)
        pass_region(*child, key);
    }
  }
}

void Registrar::pass_region(Client& to, const PairKey& key) {
  Client* writer = clients_.by_domain(key.writer);
  auto region = pairs_.all().find(key);
  if (writer == nullptr || region == pairs_.all().end() || writer->stage != Stage::kWelcomed) return;
  post_.send(to, make_packet(shm::kPeerRegion, key.writer, key.generation, uint32_t(writer->pid)),
             {region->second.fd.get(), writer->bell.get()});
}

void Registrar::pass_regions(Client& reader) {
  for (const PairKey& key : pairs_.read_by(reader.domain)) {
    bool inherited = key.reader != reader.domain;
    if (inherited || core_.pair(key.writer, key.reader) == 0) pass_region(reader, key);
  }
}

int Registrar::accept_region(Client& client, Client* peer, const InPacket& packet) {
  if (client.stage != Stage::kWelcomed) return EPERM;
  if (packet.fds.size() != 1) return EBADF;
  int fd = packet.fds[0].get();
  PairKey key{client.domain, packet.header.domain, packet.header.value};
  if (shm::verify_region(fd, shm::kPairBytes, options_.protect) != 0) return EBADF;
  if (!PairRegions::is_valid(fd, key)) return EBADF;
  if (peer == nullptr || peer->doomed || peer->stage != Stage::kWelcomed) return ESRCH;
  bool again = packet.header.value2 == shm::kOfferedBefore;
  if (!again && !pairs_.is_answer(key)) {
    if (!has_room_for_pair(*peer)) return EMFILE;
    if (int error = core_.may_take_memory(core_.domain(client.domain).identity.uid); error != 0) return error;
  }
  return core_.pair(client.domain, packet.header.domain);
}

// What is begun has to be finished: without a descriptor for the peer's region, and for both while
// they are under way, the connection would never be accepted.
bool Registrar::has_room_for_pair(const Client& peer) const {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return kOwnDescriptors + kDescriptorsPerClient * clients_.size() + pairs_.descriptors() +
             kDescriptorsPerPair + peer.outbox_fds <=
         limit.rlim_cur;
}

// A false claim harms nobody: a bell is rung only for who is a holder of a connection, which its own
// side says.
void Registrar::sharers_bell(Client& client, const InPacket& packet) {
  DomainId ancestor = packet.header.value2, peer = packet.header.domain;
  if (client.stage != Stage::kWelcomed || ancestor == client.domain || !core_.descends(client.domain, ancestor)) return;
  if (core_.pair(client.domain, peer) != 0) return;
  shm::Packet p = make_packet(shm::kSharersBell, client.domain, packet.header.value, ancestor);
  clients_.for_each([&](Client& c) {
    if (c.stage == Stage::kWelcomed && !c.doomed && core_.descends(c.domain, peer))
      (void)post_.pass_on(client, c, p, {client.bell.get()});  // else its family's bell is rung
  });
}

void Registrar::announce_pair(Client& client, const InPacket& packet) {
  if (client.stage != Stage::kWelcomed) return;
  core_.announce(client.domain, packet.header.domain, int32_t(packet.header.value2));
}

}  // namespace sluice::monitor
