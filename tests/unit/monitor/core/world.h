// A world for the coordinator's core: it records what the core wants done and speaks to it in
// the words of protocol.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "monitor/core/coordinator_core.h"

namespace sluice::monitor::core::test {

using shm::AcceptorRole;
using shm::Message;

struct ListenOptions {
  uint32_t flags = 0;
  uint32_t backlog = 128;
  bool only = false;
};

struct ConnectOptions {
  bool grant = false;
  ListenerId avoid_listener = 0;
  DomainId avoid_domain = 0;
  uint32_t number = 0;  // of the acceptor to be told
};

struct Connected {
  int status;
  DomainId domain;
  ListenerId listener;
  uint32_t backlog;
  uint32_t choices;  // 0: no grant
  Address address;
  int32_t pid;
};

class World : public Actions {
 public:
  std::unique_ptr<CoordinatorCore> core = std::make_unique<CoordinatorCore>();

  // What the core did.
  std::vector<std::pair<DomainId, Message>> replies;
  std::vector<std::pair<DomainId, ListenerId>> revoked;
  std::vector<std::pair<DomainId, DomainId>> told_gone;  // to, dead
  std::vector<DomainId> rung;
  struct NotMet {
    DomainId to, peer;
    uint32_t generation;
    bool operator==(const NotMet&) const = default;
  };
  std::vector<NotMet> not_met;
  std::vector<std::pair<DomainId, ListenerId>> reconsidered;
  std::set<ListenerId> waited;
  std::set<uint16_t> ports;
  std::set<uint32_t> names;
  std::vector<ListenerId> forgotten;
  std::set<DomainId> alive;
  std::map<DomainId, int32_t> watched;

  // What it is told when it asks.
  std::set<DomainId> waiting;
  std::map<DomainId, uint32_t> sleeps;         // the number of the sleep; 1 unless said here
  std::map<DomainId, ListenerId> asleep_at;    // every listener unless said here
  bool policy_allows = true;
  std::map<DomainId, std::string> programs;
  std::map<ListenerId, std::string> bound_names;
  struct Usage {
    uint64_t connections, bytes;
  };
  std::map<uint32_t, Usage> usage;

  World() { core->init(*this, 100); }

  void reply(DomainId to, const Message& m) override { replies.emplace_back(to, m); }
  void revoke(DomainId to, ListenerId listener) override { revoked.emplace_back(to, listener); }
  void gone(DomainId to, DomainId dead) override { told_gone.emplace_back(to, dead); }
  void ring(DomainId domain) override { rung.push_back(domain); }
  void set_port(uint16_t port, bool on) override { on ? void(ports.insert(port)) : void(ports.erase(port)); }
  void set_name(uint32_t bit, bool on) override { on ? void(names.insert(bit)) : void(names.erase(bit)); }
  void forget_name(ListenerId l) override { forgotten.push_back(l); }
  void set_alive(DomainId d, bool on) override { on ? void(alive.insert(d)) : void(alive.erase(d)); }
  void watch(DomainId d, int32_t pid) override { watched[d] = pid; }
  void unwatch(DomainId d) override { watched.erase(d); }
  uint32_t sleeps_at(DomainId d, ListenerId l) override {
    auto at = asleep_at.find(d);
    bool elsewhere = at != asleep_at.end() && at->second != l;
    auto sleep = sleeps.find(d);
    return waiting.count(d) == 0 || elsewhere ? 0 : sleep == sleeps.end() ? 1 : sleep->second;
  }
  void unmet(DomainId to, DomainId peer, uint32_t generation) override { not_met.push_back({to, peer, generation}); }
  void reconsider(DomainId to, ListenerId l) override { reconsidered.emplace_back(to, l); }
  void set_waited(ListenerId l, bool on) override { on ? void(waited.insert(l)) : void(waited.erase(l)); }
  bool may_listen(DomainId, const Address&, uint16_t) override { return policy_allows; }
  std::string_view program_of(DomainId d) override { return programs[d]; }
  std::string_view name_of(ListenerId l) override { return bound_names[l]; }
  uint64_t connections_of(uint32_t uid) override { return usage[uid].connections; }
  uint64_t memory_of(uint32_t uid) override { return usage[uid].bytes; }

  DomainId process(uint32_t uid = 1000, uint64_t netns = 1) {
    return core->admit({uid, netns, next_pid_++}, shm::kNobody);
  }

  // The reply; status UINT16_MAX when there was none or it went elsewhere.
  Message ask(DomainId from, Message m) {
    m.id = next_id_++;
    std::size_t before = replies.size();
    core->handle(from, m);
    bool answered = replies.size() == before + 1 && replies.back().first == from &&
                    replies.back().second.id == m.id && replies.back().second.type == m.type;
    if (answered) return replies.back().second;
    m.status = UINT16_MAX;
    return m;
  }
  // For requests without a reply. Whether there was none.
  bool tell(DomainId from, Message m) {
    std::size_t before = replies.size();
    core->handle(from, m);
    return replies.size() == before;
  }

  Message listen_message(const Address& a, uint16_t port, const ListenOptions& o = {}) {
    AddressWords w = words_of(a);
    return {shm::kListen, 0, 0,
            {w.first, w.second, port | uint64_t{o.flags} << 32, o.backlog | uint64_t{o.only} << 32}};
  }
  int listen_status(DomainId d, const Address& a, uint16_t port, const ListenOptions& o = {}) {
    return ask(d, listen_message(a, port, o)).status;
  }
  // 0 if refused.
  ListenerId listen(DomainId d, const Address& a, uint16_t port, const ListenOptions& o = {}) {
    Message m = ask(d, listen_message(a, port, o));
    return m.status == 0 ? ListenerId(m.words[0]) : 0;
  }
  bool unlisten(DomainId d, ListenerId id) { return tell(d, {shm::kUnlisten, 0, 0, {id}}); }
  bool accepts(DomainId d, ListenerId id, AcceptorRole role = AcceptorRole::kAccepts) {
    return tell(d, {shm::kAcceptor, 0, 0, {id, uint64_t(role)}});
  }
  // Listens and accepts.
  ListenerId serve(DomainId d, const Address& a, uint16_t port, const ListenOptions& o = {}) {
    ListenerId id = listen(d, a, port, o);
    accepts(d, id);
    return id;
  }
  Connected connect(DomainId from, const Address& a, uint16_t port, const ConnectOptions& o = {}) {
    AddressWords w = words_of(a);
    Message m = ask(from, {shm::kConnect, 0, 0,
                           {w.first, w.second, port, o.grant,
                            o.avoid_listener | uint64_t{o.avoid_domain} << 32, o.number}});
    return connected(m);
  }
  // Of AF_UNIX. Listens and accepts.
  ListenerId serve_name(DomainId d, const shm::UnixKey& key, uint32_t backlog = 128) {
    ListenerId id = core->listen_name(d, key, backlog, AcceptorRole::kHolder);
    accepts(d, id);
    return id;
  }
  Connected connect_name(DomainId from, const shm::UnixKey& key, bool grant = false) {
    return connect(from, address_of(key), 0, {.grant = grant});
  }
  Message who(DomainId asker, DomainId of, uint64_t ticket) { return ask(asker, {shm::kWho, 0, 0, {of, ticket}}); }
  // Asked by who holds the listener, of who has begun a connection there.
  Message may(DomainId asker, DomainId of, ListenerId l) { return ask(asker, {shm::kMay, 0, 0, {of, l}}); }
  bool waits(DomainId d, ListenerId l) { return tell(d, {shm::kWaiting, 0, 0, {l, 1}}); }
  bool waits_no_more(DomainId d, ListenerId l) { return tell(d, {shm::kWaiting, 0, 0, {l, 0}}); }
  bool is_idle(DomainId d, ListenerId l, bool asks = false) {
    return tell(d, {shm::kIdle, 0, 0, {l, asks}});
  }
  Connected move(DomainId d, ListenerId l, DomainId from, uint16_t port = 8080,
                 const Address& a = kV4Loopback) {
    AddressWords w = words_of(a);
    return connected(ask(d, {shm::kMove, 0, 0, {l | uint64_t{from} << 32, w.first, w.second, port}}));
  }

 private:
  static Connected connected(const Message& m) {
    return {m.status, DomainId(m.words[0]), ListenerId(m.words[0] >> 32), uint32_t(m.words[1]),
            uint32_t(m.words[1] >> 32), address_of(m.words[2], m.words[3]), int32_t(m.words[4])};
  }

  int32_t next_pid_ = 5000;
  uint32_t next_id_ = 1;
};

}  // namespace sluice::monitor::core::test
