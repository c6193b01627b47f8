#include "monitor/tickets.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>

#include "shm/bell.h"
#include "shm/wake.h"

namespace sluice::monitor {
namespace {

constexpr std::size_t kDescriptorsPerRegion = 5;

int option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

bool is_stream(int fd) { return option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == SOCK_STREAM; }

// Of a socket, and never another's again. 0: not a socket.
uint64_t cookie_of(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

// The same region, for those who may only read. Nobody opens it again by its name in /proc.
Descriptor open_readable(int region) {
  Descriptor readable(::open(("/proc/self/fd/" + std::to_string(region)).c_str(), O_RDONLY | O_CLOEXEC));
  return readable && fchmod(region, 0) == 0 ? std::move(readable) : Descriptor();
}

// Made here, because several processes will write it: once one of them has the file, it can hold the file's lock for ever,
// by writing to it from memory that does not come (userfaultfd(2), fuse(4)), and fchmod(2) would wait.
Descriptor create_passing(const PairKey& key, DomainId maker) {
  int created = shm::create_region("sluice-passed", shm::kPairBytes);
  if (created < 0) return {};
  Descriptor region(created);
  shm::PairHeader h{};
  h.magic = shm::kMagic;
  h.version = shm::kProtocolVersion;
  h.writer = key.writer;
  h.reader = key.reader;
  h.generation = key.generation;
  h.maker = maker;
  h.attached.store(1, std::memory_order_relaxed);  // nobody sees it yet
  h.frozen.store(1, std::memory_order_relaxed);    // likewise
  bool filled = pwrite(created, static_cast<const void*>(&h), sizeof h, 0) == ssize_t(sizeof h);
  return filled && shm::seal_region(created, shm::Protect::kNone) == 0 ? std::move(region) : Descriptor();
}

// One side of a connection in a passing region. As memory: see above.
class MappedSlot {
 public:
  MappedSlot(int region, uint32_t slot) {
    off_t at = off_t(shm::kSlotsOffset + slot * sizeof(shm::Slot)), page = at & ~off_t{shm::kPageBytes - 1};
    void* p = mmap(nullptr, shm::kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, region, page);
    if (p == MAP_FAILED) return;
    page_ = p;
    slot_ = reinterpret_cast<shm::Slot*>(static_cast<std::byte*>(p) + (at - page));
  }
  MappedSlot(const MappedSlot&) = delete;
  ~MappedSlot() {
    if (page_ != nullptr) munmap(page_, shm::kPageBytes);
  }
  // Its holders.
  shm::Shared<DomainId>* begin() const { return slot_ == nullptr ? nullptr : slot_->holders; }
  shm::Shared<DomainId>* end() const { return slot_ == nullptr ? nullptr : slot_->holders + shm::kHolders; }
  bool is_held(uint32_t generation, DomainId who) const {
    if (slot_ == nullptr || slot_->generation.load(std::memory_order_acquire) != generation) return false;
    if (slot_->holders_overflow.load(std::memory_order_acquire) != 0) return true;
    return std::any_of(begin(), end(), [&](const shm::Shared<DomainId>& h) { return h.load(std::memory_order_acquire) == who; });
  }

 private:
  static_assert(shm::kPageBytes % sizeof(shm::Slot) == 0 && shm::kSlotsOffset % sizeof(shm::Slot) == 0);
  void* page_ = nullptr;
  shm::Slot* slot_ = nullptr;
};

}  // namespace

Tickets::Tickets(const Options& options, Events& events, Clients& clients, core::CoordinatorCore& core,
                 Post& post, PairRegions& pairs)
    : options_(options), events_(events), clients_(clients), core_(core), post_(post), pairs_(pairs) {
  // Applications remember numbers of an earlier coordinator.
  if (getrandom(&next_region_, sizeof next_region_, GRND_NONBLOCK) != sizeof next_region_)
    next_region_ = uint32_t(getpid()) * 2654435761u;
}

uint32_t Tickets::uid_of(const Client& client) const { return core_.domain(client.domain).identity.uid; }

// No user may take all descriptors, nor all users so many that nobody can register.
bool Tickets::has_room(uint32_t uid) const {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  auto found = of_uid_.find(uid);
  uint32_t own = found == of_uid_.end() ? 0 : found->second;
  return own < limit.rlim_cur / 8 && tickets_.size() + kDescriptorsPerRegion * regions_.size() < limit.rlim_cur / 4;
}

void Tickets::give_back(uint32_t uid, uint32_t descriptors) {
  auto found = of_uid_.find(uid);
  if ((found->second -= descriptors) == 0) of_uid_.erase(found);
}

// ---- passing regions ----------------------------------------------------------------------

void Tickets::pass(Client& client, InPacket& packet) {
  PairKey key{packet.header.value2, packet.header.domain, packet.header.value};
  uint32_t number = 0;
  int error = accept_region(client, key, packet);
  if (error == 0) error = open(client, key, packet, number);
  shm::Packet answer = make_packet(shm::kPass, key.reader, number, 0, error);
  if (error != 0) return post_.send(client, answer);
  // The readers first: what follows the answer they understand.
  tell_readers(number, regions_[number]);
  post_.send(client, answer, {regions_[number].writable.get()});
}

int Tickets::accept_region(const Client& client, const PairKey& key, const InPacket& packet) const {
  if (client.stage != Stage::kWelcomed) return EPERM;
  bool own = key.writer == client.domain && key.reader == client.domain;
  if (packet.fds.size() != (own ? 3 : 2)) return EBADF;
  if (!shm::is_bell(packet.fds[0].get()) || !shm::is_bell(packet.fds[1].get())) return EBADF;
  if (!has_room(uid_of(client))) return EMFILE;
  if (own) {
    int opposite = packet.fds[2].get();
    bool sound = shm::verify_region(opposite, shm::kPairBytes, options_.protect) == 0;
    return sound && PairRegions::is_written_by(opposite, client.domain) ? 0 : EBADF;
  }
  // Only who writes this pair moves its connections.
  auto pair = pairs_.all().find(key);
  if (pair == pairs_.all().end()) return ENOENT;
  bool complete = packet.header.reserved == 0 || pairs_.all().contains({key.reader, key.writer, key.generation});
  if (!complete) return ENOENT;  // who takes a connection would never see the peer's side
  const std::vector<DomainId>& writers = pair->second.writers;
  return std::count(writers.begin(), writers.end(), client.domain) != 0 ? 0 : EPERM;
}

int Tickets::open(Client& client, const PairKey& key, InPacket& packet, uint32_t& number) {
  Region region{key, create_passing(key, client.domain), {}, std::move(packet.fds[0]), std::move(packet.fds[1]), {},
                uid_of(client), {client.domain}};
  if (region.writable) region.readable = open_readable(region.writable.get());
  if (!region.readable) return EMFILE;
  // Kept here: the writer may be dead when somebody takes what it has passed.
  auto back = pairs_.all().find(opposite_of(region));
  if (packet.fds.size() > 2) region.opposite = std::move(packet.fds[2]);
  else if (back != pairs_.all().end()) region.opposite = Descriptor(fcntl(back->second.fd.get(), F_DUPFD_CLOEXEC, 0));
  do number = next_region_++;
  while (number == 0 || regions_.contains(number));
  of_uid_[region.uid] += kDescriptorsPerRegion;
  regions_.emplace(number, std::move(region));
  return 0;
}

// Once. `generation`: of the reader's pair.
void Tickets::tell(DomainId reader, uint32_t generation, uint32_t number, Region& region) {
  Client* client = clients_.by_domain(reader);
  if (client == nullptr || client->doomed || client->stage != Stage::kWelcomed) return;
  if (std::count(region.told.begin(), region.told.end(), reader) != 0) return;
  region.told.push_back(reader);
  Client* writer = clients_.by_domain(region.key.writer);
  shm::Packet p = make_packet(shm::kPeerRegion, region.key.writer, generation,
                              writer != nullptr ? uint32_t(writer->pid) : 0);
  p.reserved = number;
  post_.send(*client, p, {region.readable.get(), region.bell.get()});
}

void Tickets::tell_readers(uint32_t number, Region& region) {
  if (!region.is_own()) {
    auto pair = pairs_.all().find(region.key);
    if (pair == pairs_.all().end()) return;
    for (DomainId reader : std::vector<DomainId>(pair->second.readers))
      tell(reader, region.key.generation, number, region);
    return;
  }
  // Both sides are one process, which knows; those who were passed the other side do not.
  for (auto& [n, other] : regions_) {
    if (other.key != opposite_of(region)) continue;
    for (DomainId holder : other.holders)
      if (holder != region.key.writer) tell(holder, other.key.generation, number, region);
  }
}

void Tickets::complete(const PairKey& key, int fd) {
  for (auto& [number, region] : regions_)
    if (!region.opposite && opposite_of(region) == key) region.opposite = Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

void Tickets::introduce(Client& reader) {
  if (regions_.empty()) return;
  std::vector<PairKey> keys = pairs_.read_by(reader.domain);
  for (auto& [number, region] : regions_) {
    if (std::count(keys.begin(), keys.end(), region.key) != 0) tell(reader.domain, region.key.generation, number, region);
    if (region.is_own()) tell_readers(number, region);
  }
}

// The key of the passing regions of the other side. A process is its own peer with two generations.
PairKey Tickets::opposite_of(const Region& region) {
  const PairKey& k = region.key;
  return {k.reader, k.writer, region.is_own() ? k.generation ^ 1 : k.generation};
}

// ---- tickets ------------------------------------------------------------------------------

bool Tickets::is_deposited_well(const Client& client, const InPacket& packet) const {
  if (client.stage != Stage::kWelcomed || packet.fds.size() != 2) return false;
  auto region = regions_.find(packet.header.value);
  if (region == regions_.end() || packet.header.value2 >= shm::kSlots) return false;
  const std::vector<DomainId>& holders = region->second.holders;
  if (std::count(holders.begin(), holders.end(), client.domain) == 0) return false;
  MappedSlot slot(region->second.writable.get(), packet.header.value2);
  return slot.is_held(packet.header.reserved, client.domain) &&
         is_stream(packet.fds[0].get()) && is_stream(packet.fds[1].get());
}

void Tickets::deposit(Client& client, InPacket& packet) {
  const shm::Packet& h = packet.header;
  uint32_t uid = uid_of(client);
  if (!is_deposited_well(client, packet)) return post_.send(client, make_packet(shm::kDeposit, 0, 0, 0, ENOENT));
  uint64_t cookie = cookie_of(packet.fds[0].get());
  bool known = cookie == 0 || by_cookie_.contains(cookie);
  DomainId stand_in = !known && has_room(uid) ? core_.begin_flight(client.domain) : shm::kNobody;
  if (stand_in == shm::kNobody) return post_.send(client, make_packet(shm::kDeposit, 0, 0, 0, ENOSPC));
  while (next_ticket_ == 0 || tickets_.contains(next_ticket_)) ++next_ticket_;
  uint32_t number = next_ticket_++;
  if (!events_.add(packet.fds[1].get(), Source::kTicket, number)) {
    core_.remove(stand_in);
    return post_.send(client, make_packet(shm::kDeposit, 0, 0, 0, ENOSPC));
  }
  tickets_[number] = {std::move(packet.fds[1]), cookie, h.value, h.value2, h.reserved, stand_in, uid,
                      h.domain == 1 ? client.domain : shm::kNobody, false};
  by_cookie_[cookie] = number;
  ++of_uid_[uid];
  ++regions_[h.value].tickets;
  post_.send(client, make_packet(shm::kDeposit, stand_in, number));
}

void Tickets::claim(Client& client, InPacket& packet) {
  auto refuse = [&](int error) { post_.send(client, make_packet(shm::kClaim, 0, 0, 0, error)); };
  if (client.stage != Stage::kWelcomed || packet.fds.size() != 1) return refuse(EPERM);
  auto found = by_cookie_.find(cookie_of(packet.fds[0].get()));
  if (found == by_cookie_.end()) return refuse(ENOENT);
  Ticket& ticket = tickets_[found->second];
  Region& region = regions_[ticket.region];
  // Who holds the descriptor may have the connection; the memory only who is of the same user.
  if (uid_of(client) != region.uid) {
    refuse(EPERM);
    if (ticket.watched_by == shm::kNobody) ended(found->second);  // nobody will carry it
    return;
  }
  Client* peer = clients_.by_domain(region.key.reader);
  if (peer != nullptr && (peer->doomed || peer->stage != Stage::kWelcomed)) peer = nullptr;
  // Also one who is about to be removed: the directory still shows it, so its death is to be heard of. ESRCH: it does not.
  if (core_.share(client.domain, region.key.reader) == ENOMEM) return refuse(ENOMEM);
  if (std::count(region.holders.begin(), region.holders.end(), client.domain) == 0) region.holders.push_back(client.domain);
  PairKey back = opposite_of(region);
  pairs_.join(region.key, client.domain);
  for (auto& [number, other] : regions_)
    if (other.key == back && client.domain != back.reader) tell(client.domain, region.key.generation, number, other);
  int in = region.opposite.get();
  shm::Packet p = make_packet(shm::kClaim, peer != nullptr ? uint32_t(peer->pid) : 0, ticket.region, ticket.slot);
  p.reserved = ticket.generation;
  int bell = peer != nullptr ? peer->bell.get() : region.bell.get();
  if (in >= 0)
    post_.send(client, p, {region.writable.get(), region.hearing.get(), bell, in});
  else
    post_.send(client, p, {region.writable.get(), region.hearing.get(), bell});
  Client* watcher = ticket.claimed ? nullptr : clients_.by_domain(ticket.watched_by);
  ticket.claimed = true;
  ++claimed_;
  if (watcher != nullptr) post_.send(*watcher, make_packet(shm::kTaken, 0, found->second));
}

void Tickets::carry(Client& client, InPacket& packet) {
  auto found = tickets_.find(packet.header.value);
  bool allowed = client.stage == Stage::kWelcomed && found != tickets_.end() && found->second.uid == uid_of(client);
  bool free = allowed && !found->second.claimed;
  // Whoever carries it holds it.
  if (free) ended(packet.header.value);
  post_.send(client, make_packet(shm::kCarry, 0, packet.header.value, 0, free ? 0 : ECANCELED));
}

void Tickets::ended(uint32_t number) {
  auto found = tickets_.find(number);
  if (found == tickets_.end()) return;
  Ticket ticket = std::move(found->second);
  tickets_.erase(found);
  by_cookie_.erase(ticket.cookie);
  give_back(ticket.uid, 1);
  // Whoever deposited it may have the same open file.
  events_.remove(ticket.end.get());
  Region& region = regions_[ticket.region];
  leave_slot(region, ticket);
  --region.tickets;
  drop_if_over(ticket.region);
}

// The id is about to be used again, so it may stay in no slot. Only the coordinator takes it out, and
// nobody puts another in its place as long as it lives. Of two holders that leave at once at least
// one must see that it is the last: first it goes, then we look for others.
void Tickets::leave_slot(const Region& region, const Ticket& ticket) {
  MappedSlot holders(region.writable.get(), ticket.slot);
  for (shm::Shared<DomainId>& h : holders) {
    DomainId expected = ticket.stand_in;
    (void)h.compare_exchange_strong(expected, shm::kNobody, std::memory_order_acq_rel);
  }
  core_.remove(ticket.stand_in);
  shm::sleep_wake_fence();
  bool held = false;
  for (shm::Shared<DomainId>& h : holders) held |= core_.is_alive(h.load(std::memory_order_acquire));
  if (held) return;
  // The last reference was in flight: now the other side sees the end.
  auto pair = pairs_.all().find(region.key);
  std::vector<DomainId> readers{region.key.reader};
  if (pair != pairs_.all().end()) readers = pair->second.readers;
  for (DomainId reader : readers) {
    Client* client = clients_.by_domain(reader);
    if (client != nullptr && client->stage == Stage::kWelcomed)
      post_.send(*client, make_packet(shm::kPeerGone, ticket.stand_in));
  }
}

// ---- comings and goings -------------------------------------------------------------------

void Tickets::inherit(DomainId child, DomainId parent) {
  for (auto& [number, region] : regions_)
    if (std::count(region.holders.begin(), region.holders.end(), parent) != 0) region.holders.push_back(child);
}

void Tickets::remove(DomainId dead) {
  std::vector<uint32_t> concerned;
  for (auto& [number, region] : regions_) {
    std::erase(region.holders, dead);
    std::erase(region.told, dead);
    if (region.holders.empty() || region.key.reader == dead) {
      region.over = true;
      concerned.push_back(number);
    }
  }
  for (uint32_t number : concerned) drop_if_over(number);
}

void Tickets::drop_if_over(uint32_t number) {
  auto found = regions_.find(number);
  if (found == regions_.end() || found->second.tickets != 0) return;
  if (!found->second.over && !found->second.holders.empty()) return;
  give_back(found->second.uid, kDescriptorsPerRegion);
  regions_.erase(found);
}

}  // namespace sluice::monitor
