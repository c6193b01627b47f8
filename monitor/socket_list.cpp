#include "monitor/socket_list.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "monitor/process.h"

namespace sluice::monitor {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kSlotsPerRead = 256;
constexpr std::size_t kMostSockets = 200'000;
constexpr uint64_t kMostQueued = uint64_t{2} << shm::kLargestRingLog2;

// A piece of a region's slots, read without mapping it (see pair_regions.h).
class SlotReader {
 public:
  SlotReader() : slots_(std::make_unique<Buffer>()) {}
  void read(int fd, uint32_t first) {
    off_t at = off_t(shm::kSlotsOffset + first * sizeof(shm::Slot));
    ssize_t n = fd < 0 ? 0 : pread(fd, slots_->bytes, sizeof slots_->bytes, at);
    std::fill(slots_->bytes + std::max<ssize_t>(n, 0), std::end(slots_->bytes), std::byte{});
  }
  const shm::Slot& operator[](uint32_t i) const {
    return reinterpret_cast<const shm::Slot*>(slots_->bytes)[i];
  }

 private:
  struct Buffer {
    alignas(shm::Slot) std::byte bytes[kSlotsPerRead * sizeof(shm::Slot)];
  };
  std::unique_ptr<Buffer> slots_;
};

// The first slot at or after `from` whose memory exists, rounded down; kSlots if none.
uint32_t next_used(int fd, uint32_t from) {
  off_t at = lseek(fd, off_t(shm::kSlotsOffset + from * sizeof(shm::Slot)), SEEK_DATA);
  if (at < 0) return shm::kSlots;
  uint64_t slot = (uint64_t(at) - shm::kSlotsOffset) / sizeof(shm::Slot);
  return uint32_t(std::min<uint64_t>(slot, shm::kSlots));
}

// Relaxed throughout: these are private copies.
template <class T>
T value(const shm::Shared<T>& word) {
  return word.load(std::memory_order_relaxed);
}

uint64_t queued(uint64_t tail, uint64_t head) {
  return tail < head ? 0 : std::min(tail - head, kMostQueued);
}

// As ss(8) shows them: an abstract name begins with @, and other bytes that do not print likewise.
std::string text_of(const Name* name) {
  if (name == nullptr) return "(closed)";
  std::string text = name->bytes;
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 127; }, '@');
  return text;
}

// A name that nobody listens at any more does not tell.
const char* type_of(bool is_unix, const Name* name) {
  if (!is_unix) return "stream";
  return name == nullptr ? "?" : name->type == SOCK_SEQPACKET ? "seqpacket" : "stream";
}

std::string text_of(const shm::SocketName& name) {
  core::Address a;
  std::copy(std::begin(name.address), std::end(name.address), a.bytes);
  char text[INET6_ADDRSTRLEN];
  bool v4 = core::is_v4(a) && name.family == AF_INET;
  const void* bytes = v4 ? a.bytes + 12 : a.bytes;
  inet_ntop(v4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
  std::string port = std::to_string(name.port);
  return v4 ? std::string(text) + ":" + port : "[" + std::string(text) + "]:" + port;
}

const char* state_of(uint32_t mine, uint32_t peers, bool peer_attached) {
  if ((mine | peers) & shm::kReset) return "CLOSE";
  if (mine & shm::kFin) return peers & shm::kFin ? "CLOSING" : "FIN-WAIT-2";
  if (peers & (shm::kFin | shm::kClosed)) return "CLOSE-WAIT";
  return peer_attached ? "ESTAB" : "SYN-SENT";
}

// Lists the sockets of one region's writer.
class Lister {
 public:
  Lister(Clients& clients, const NameTable& names, Json& out) : clients_(clients), names_(names), out_(out) {}

  void list(const PairKey& key, const PairRegion& region, const PairRegion* opposite) {
    int fd = region.fd.get(), peer_fd = opposite == nullptr ? -1 : opposite->fd.get();
    for (uint32_t i = next_used(fd, 0); i < shm::kSlots; i = next_used(fd, i)) {
      mine_.read(fd, i);
      peers_.read(peer_fd, i);
      uint32_t end = std::min(i + kSlotsPerRead, shm::kSlots);
      for (uint32_t k = i; k < end && out_.size() < kMostSockets; ++k)
        list(key, k, mine_[k - i], peers_[k - i]);
      i = end;
    }
  }

  Json process(DomainId domain) {
    Client* c = clients_.by_domain(domain);
    if (c == nullptr) return {{"domain", domain}, {"pid", 0}, {"command", "?"}};
    auto& name = commands_[c->pid];
    if (name.empty()) name = command_of(c->pid);
    return {{"domain", domain}, {"pid", c->pid}, {"command", name}};
  }

 private:
  void list(const PairKey& key, uint32_t index, const shm::Slot& mine, const shm::Slot& peers) {
    uint32_t generation = value(mine.generation);
    if (generation == 0 || value(mine.state) & shm::kClosed) return;
    bool attached = value(peers.generation) == generation;
    // Even indexes are given out by the smaller id.
    bool initiated = (index % 2 == 0) == (key.writer < key.reader);
    const shm::Slot& named = initiated ? mine : peers;
    const shm::SocketName& local = initiated ? named.initiator : named.acceptor;
    const shm::SocketName& peer = initiated ? named.acceptor : named.initiator;
    bool is_unix = named.acceptor.family == AF_UNIX;
    const Name* known = is_unix ? names_.by_key(std::bit_cast<shm::UnixKey>(named.acceptor.address)) : nullptr;
    std::string name = is_unix ? text_of(known) : "";
    uint64_t peer_tail = attached ? value(peers.tail) : 0;
    uint64_t peer_head = attached ? value(peers.head) : 0;
    out_.push_back(
        {{"state", state_of(value(mine.state), attached ? value(peers.state) : 0, attached)},
         {"recv_q", queued(peer_tail, value(mine.head))},
         {"send_q", queued(value(mine.tail), peer_head)},
         {"local", !is_unix ? text_of(local) : initiated ? "*" : name},
         {"peer", !is_unix ? text_of(peer) : initiated ? name : "*"},
         {"family", is_unix ? "unix" : "inet"},
         {"type", type_of(is_unix, known)},
         {"process", process(holder_of(mine, key.writer))},
         {"peer_process", process(holder_of(peers, key.reader))}});
  }

  // After a fork the end may be held by a child only.
  DomainId holder_of(const shm::Slot& slot, DomainId owner) {
    for (const auto& holder : slot.holders)
      if (DomainId d = value(holder); d != shm::kNobody && clients_.by_domain(d) != nullptr)
        return d;
    return owner;
  }

  Clients& clients_;
  const NameTable& names_;
  Json& out_;
  SlotReader mine_, peers_;
  std::unordered_map<int32_t, std::string> commands_;
};

void list_listeners(Clients& clients, core::CoordinatorCore& core, const NameTable& names, Lister& lister, Json& out) {
  clients.for_each([&](const Client& c) {
    if (c.domain == shm::kNobody) return;
    core.for_each_listener_of(c.domain, [&](const core::Listener& l, shm::AcceptorRole role) {
      shm::SocketName name{};
      std::copy(std::begin(l.address.bytes), std::end(l.address.bytes), name.address);
      name.port = l.port;
      name.family = core::is_v4(l.address) ? AF_INET : AF_INET6;
      static constexpr const char* kRoles[] = {"holder", "only", "accepts"};
      out.push_back({{"state", "LISTEN"},
                     {"recv_q", 0},
                     {"send_q", l.backlog},
                     {"local", l.is_name() ? text_of(names.by_listener(l.id)) : text_of(name)},
                     {"peer", l.is_name() ? "*" : "*:*"},
                     {"family", l.is_name() ? "unix" : "inet"},
                     {"type", type_of(l.is_name(), l.is_name() ? names.by_listener(l.id) : nullptr)},
                     {"role", kRoles[uint32_t(role)]},
                     {"process", lister.process(c.domain)}});
    });
  });
}

}  // namespace

std::string SocketList::json() const {
  Json out = Json::array();
  Lister lister(clients_, names_, out);
  list_listeners(clients_, core_, names_, lister, out);
  for (const auto& [key, region] : pairs_.all()) lister.list(key, region, pairs_.opposite(key));
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::monitor
