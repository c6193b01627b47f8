// The world of the coordinator's core, suspicious: for everything that the core does it has to have a reason that was given
// before, by whoever has the right to it.
#pragma once

#include <sys/mman.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "monitor/core/coordinator_core.h"
#include "tests/fuzz/input.h"

namespace sluice::fuzz {

using monitor::core::Address;
using monitor::core::CoordinatorCore;
using monitor::core::Domain;
using monitor::core::DomainTable;
using monitor::core::Identity;
using monitor::core::Listener;
using monitor::core::ListenerId;
using monitor::core::Presence;
using shm::DomainId;
using shm::Message;

class CoreWorld : public monitor::core::Actions {
 public:
  CoreWorld()
      : core_(static_cast<CoordinatorCore*>(mmap(nullptr, sizeof(CoordinatorCore), PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    FUZZ_CHECK(core_ != MAP_FAILED);
  }
  ~CoreWorld() = default;

  void begin() {
    madvise(static_cast<void*>(core_), sizeof(CoordinatorCore), MADV_DONTNEED);  // zero again
    core_->init(*this, 100);
    core_->add_port_range(60000, 60127);
    replies.clear();
    granted.clear();
    choices.clear();
    neighbours.clear();
    lines.clear();
    lent.clear();
    ever_alive.clear();
    alive.clear();
    ports.clear();
    names.clear();
    waited.clear();
    watched.clear();
    dying = shm::kNobody;
    asleep = {};
    policy_allows = true;
  }
  CoordinatorCore& core() { return *core_; }

  // ---- what the core does, and whether it may
  void reply(DomainId to, const Message& m) override { replies.emplace_back(to, m); }
  void revoke(DomainId to, ListenerId l) override { FUZZ_CHECK(granted.erase({to, l}) == 1 || choices.erase({to, l}) == 1); }
  void unmet(DomainId to, DomainId peer, uint32_t) override {
    FUZZ_CHECK(to != peer && core_->domain(to).presence == Presence::kPresent && neighbours.contains(edge(to, peer)));
  }
  void gone(DomainId to, DomainId dead) override {
    FUZZ_CHECK(to != dead);
    if (dead != dying) return FUZZ_CHECK(may_announce == std::pair(to, dead));  // what was announced cannot be
    FUZZ_CHECK(!alive.contains(dead) && alive.contains(to));
    FUZZ_CHECK(neighbours.contains(edge(to, dead)));
  }
  void ring(DomainId d) override { FUZZ_CHECK(core_->domain(d).presence == Presence::kPresent); }
  void reconsider(DomainId to, ListenerId l) override {
    FUZZ_CHECK(core_->domain(to).presence == Presence::kPresent);
    FUZZ_CHECK(lines.contains({to, l}));
  }
  void set_port(uint16_t port, bool on) override { on ? void(ports.insert(port)) : void(ports.erase(port)); }
  void set_name(uint32_t bit, bool on) override {
    FUZZ_CHECK(bit < shm::kNameBits);
    on ? void(names.insert(bit)) : void(names.erase(bit));
  }
  void set_alive(DomainId d, bool on) override {
    FUZZ_CHECK(DomainTable::is_valid(d));
    on ? void(alive.insert(d)) : void(alive.erase(d));
    if (on) ever_alive.insert(d);
  }
  void set_waited(ListenerId l, bool on) override { on ? void(waited.insert(l)) : void(waited.erase(l)); }
  void forget_name(ListenerId) override {}
  void watch(DomainId d, int32_t pid) override { FUZZ_CHECK(watched.emplace(d, pid).second); }
  void unwatch(DomainId d) override { FUZZ_CHECK(watched.erase(d) == 1); }
  uint32_t sleeps_at(DomainId d, ListenerId l) override {
    return asleep.first == d && (asleep.second == 0 || asleep.second == l) ? 1 : 0;
  }
  bool may_listen(DomainId, const Address&, uint16_t) override { return policy_allows; }
  std::string_view program_of(DomainId) override { return "/usr/bin/program"; }
  std::string_view name_of(ListenerId) override { return "/run/name"; }
  uint64_t connections_of(uint32_t) override { return 0; }
  uint64_t memory_of(uint32_t) override { return 0; }

  // ---- whether what it remembers is what there is
  bool is_member(DomainId d, ListenerId l) {
    bool found = false;
    core_->for_each_listener_of(d, [&](const Listener& listener, auto) { found |= listener.id == l; });
    return found;
  }
  template <class F>
  void for_each_listener(F&& f) {
    for (DomainId d : alive) core_->for_each_listener_of(d, [&](const Listener& l, auto) { f(l); });
  }
  const Listener* listener(ListenerId id) {
    const Listener* found = nullptr;
    for (DomainId d : alive)
      core_->for_each_listener_of(d, [&](const Listener& l, auto) { if (l.id == id) found = &l; });
    return found;
  }
  void check_books() {
    std::map<ListenerId, const Listener*> listeners;
    std::set<uint16_t> open_ports;
    std::set<uint32_t> open_names;
    uint32_t present = 0;
    for (DomainId d : alive) {
      const Domain& domain = core_->domain(d);
      FUZZ_CHECK(domain.presence != Presence::kAbsent);
      present += domain.presence == Presence::kPresent || domain.presence == Presence::kReserved;
      FUZZ_CHECK((domain.presence == Presence::kExpected) == watched.contains(d));
      uint32_t memberships = 0;
      core_->for_each_listener_of(d, [&](const Listener& l, auto) {
        ++memberships;
        FUZZ_CHECK(l.used);
        listeners[l.id] = &l;
        if (l.is_name()) open_names.insert(shm::name_bit(monitor::core::key_of(l.address)));
        else open_ports.insert(l.port);
      });
      FUZZ_CHECK(memberships == domain.memberships);
    }
    FUZZ_CHECK(present == core_->present());
    FUZZ_CHECK(listeners.size() == core_->listeners());
    FUZZ_CHECK(open_ports == ports);
    FUZZ_CHECK(open_names == names);
    for (ListenerId l : waited) FUZZ_CHECK(listeners.contains(l));
    // No two users where the kernel would let one of them.
    for (auto& [a, first] : listeners)
      for (auto& [b, second] : listeners)
        FUZZ_CHECK(first->is_name() || second->is_name() || first->port != second->port || first->netns != second->netns ||
                   first->uid == second->uid || !first->overlaps(*second));
  }
  static std::pair<DomainId, DomainId> edge(DomainId a, DomainId b) { return {a < b ? a : b, a < b ? b : a}; }

  std::vector<std::pair<DomainId, Message>> replies;
  std::set<std::pair<DomainId, ListenerId>> granted, choices, lines;  // choices: listeners among which a client may choose
  std::set<std::pair<DomainId, DomainId>> neighbours;
  std::map<uint16_t, DomainId> lent;
  std::set<DomainId> alive, ever_alive;
  std::set<uint16_t> ports;
  std::set<uint32_t> names;
  std::set<ListenerId> waited;
  std::map<DomainId, int32_t> watched;
  std::pair<DomainId, DomainId> may_announce;
  DomainId dying = shm::kNobody;
  std::pair<DomainId, ListenerId> asleep;
  bool policy_allows = true;

 private:
  CoordinatorCore* core_;
};

}  // namespace sluice::fuzz
