// The coordinator's core: several clients of several users and namespaces, who come, go, fork, lie about ids and say
// anything. Nobody is told what is another's, nobody gets what he has no right to, and the books are right.
#include <errno.h>

#include "monitor/core/words.h"
#include "tests/fuzz/core_world.h"

namespace sluice::fuzz {
namespace {

using namespace monitor::core;

class Core {
 public:
  void run(Input& in) {
    w_.begin();
    crowd_.clear();
    listeners_.clear();
    tickets_.clear();
    turn_ = 100;
    while (!in.empty()) {
      uint8_t choice = in.byte();
      if (choice % 4 == 0) come_or_go(in);
      else ask(in);
      w_.check_books();
    }
    for (DomainId d : std::vector<DomainId>(w_.alive.begin(), w_.alive.end())) remove(d);
    FUZZ_CHECK(w_.core().present() == 0 && w_.core().listeners() == 0);
    FUZZ_CHECK(w_.alive.empty() && w_.ports.empty() && w_.names.empty() && w_.waited.empty() && w_.watched.empty());
  }

 private:
  static constexpr std::size_t kCrowd = 12;
  struct Ticket {
    DomainId holder;
    ListenerId listener;
    uint64_t number;
  };

  DomainId someone(Input& in) {
    uint8_t n = in.byte();
    return crowd_.empty() || n >= 240 ? DomainId(in.lie(100)) : crowd_[n % crowd_.size()];
  }
  Identity identity(Input& in) {
    uint8_t n = in.byte();
    return {1000 + n % 3u, 1 + n / 3 % 2u, 1 + n / 6 % 8};
  }
  Address address(Input& in) {
    const Address known[] = {kV4Any, kV4Loopback, kV6Any, kV6Loopback, v4(10, 0, 0, 1)};
    uint8_t n = in.byte();
    return n < 250 ? known[n % 5] : address_of(in.word(), in.word());
  }
  shm::UnixKey key(Input& in) {
    uint8_t n = in.byte();
    return {n % 2 ? shm::kAbstractDevice : 7, n / 2 % 3u};
  }
  ListenerId some_listener(Input& in) {
    uint8_t n = in.byte();
    return listeners_.empty() || n >= 240 ? ListenerId(in.lie(1u << shm::kListenerBits)) : listeners_[n % listeners_.size()];
  }

  // ---- who is there
  void keep(DomainId d) {
    if (d == shm::kNobody) return;
    FUZZ_CHECK(w_.alive.contains(d));
    if (crowd_.size() >= kCrowd) {
      remove(crowd_[0]);
      crowd_.erase(crowd_.begin());
    }
    crowd_.push_back(d);
  }
  void forget(DomainId d) {
    std::erase_if(w_.granted, [d](auto& g) { return g.first == d; });
    std::erase_if(w_.choices, [d](auto& g) { return g.first == d; });
    std::erase_if(w_.lines, [d](auto& l) { return l.first == d; });
    std::erase_if(w_.lent, [d](auto& l) { return l.second == d; });
  }
  void remove(DomainId d) {
    if (w_.alive.contains(d)) forget(d);
    w_.dying = d;
    w_.core().remove(d);
    w_.dying = shm::kNobody;
    std::erase_if(w_.neighbours, [d](auto& e) { return e.first == d || e.second == d; });
    FUZZ_CHECK(!w_.alive.contains(d));
  }
  bool is_present(DomainId d) { return DomainTable::is_valid(d) && w_.core().domain(d).presence == Presence::kPresent; }

  // What is given to who asks for no id.
  DomainId next_in_turn() const {
    DomainId id = turn_;
    while (w_.alive.contains(id)) ++id;
    return id;
  }

  void admit(Input& in) {
    Identity who = identity(in);
    DomainId wanted = in.flip() ? someone(in) : shm::kNobody;
    bool taken = w_.alive.contains(wanted);
    bool was_anothers = false;
    if (w_.ever_alive.contains(wanted)) {
      const Identity& before = w_.core().domain(wanted).identity;  // kept after death
      was_anothers = before.uid != who.uid || before.pid != who.pid;
    }
    int32_t expected = w_.watched.contains(wanted) ? w_.watched[wanted] : 0;
    DomainId next = next_in_turn();
    DomainId d = w_.core().admit(who, wanted);
    FUZZ_CHECK(d != shm::kNobody && DomainTable::is_process(d));
    // Somebody else's id only to whom it was kept for.
    FUZZ_CHECK(!taken || d != wanted || expected == who.pid);
    FUZZ_CHECK(taken || d != wanted || !was_anothers || d == next);
    if (d != wanted || was_anothers) turn_ = d + 1;  // else it was given as asked for
    FUZZ_CHECK(w_.core().domain(d).identity.uid == who.uid && w_.core().domain(d).identity.pid == who.pid);
    keep(d);
  }
  void reserve(DomainId parent) {
    DomainId child = w_.core().reserve(parent);
    if (child == shm::kNobody) return;
    turn_ = child + 1;
    FUZZ_CHECK(w_.core().domain(child).identity.uid == w_.core().domain(parent).identity.uid);
    std::vector<DomainId> theirs{parent};
    for (auto& e : w_.neighbours)
      if (e.first == parent || e.second == parent) theirs.push_back(e.first == parent ? e.second : e.first);
    for (DomainId n : theirs) w_.neighbours.insert(CoreWorld::edge(child, n));
    keep(child);
  }
  void pair(DomainId a, DomainId b, bool share) {
    int error = share ? w_.core().share(a, b) : w_.core().pair(a, b);
    if (error != 0) return;
    FUZZ_CHECK(is_present(a) && (share ? w_.alive.contains(b) : is_present(b)));
    FUZZ_CHECK(share || w_.core().domain(a).identity.netns == w_.core().domain(b).identity.netns);
    if (a != b) w_.neighbours.insert(CoreWorld::edge(a, b));
  }
  void announce(DomainId a, DomainId b, int32_t pid) {
    bool known = w_.alive.contains(b);
    w_.may_announce = {a, b};
    w_.core().announce(a, b, pid);
    w_.may_announce = {};
    if (w_.alive.contains(b) && is_present(a) && a != b && DomainTable::is_process(b)) w_.neighbours.insert(CoreWorld::edge(a, b));
    if (!known && w_.alive.contains(b)) keep(b);
  }
  void come_or_go(Input& in) {
    switch (in.byte() % 14) {
      case 0: return remove(someone(in));
      case 1: return reserve(someone(in));
      case 2: return (void)w_.core().enter(someone(in), identity(in));
      case 3:
      case 4: {
        DomainId a = someone(in);
        return pair(a, someone(in), false);
      }
      case 5: {
        DomainId a = someone(in);
        return pair(a, someone(in), true);
      }
      case 6: {
        DomainId a = someone(in), b = someone(in);
        return announce(a, b, 1 + in.byte() % 8);
      }
      case 7: return keep(w_.core().begin_flight(someone(in)));
      case 8: return listen_name(in);
      case 9: return admit_to(in);
      case 10: w_.policy_allows = in.byte() % 8 != 0; return;
      case 11: w_.asleep = {someone(in), in.flip() ? 0 : some_listener(in)}; return;
      default: return admit(in);
    }
  }

  // ---- names
  void listen_name(Input& in) {
    DomainId d = someone(in);
    ListenerId l = w_.core().listen_name(d, key(in), in.byte(), shm::AcceptorRole(in.byte() % 3));
    if (l == 0) return;
    FUZZ_CHECK(is_present(d) && w_.is_member(d, l));
    listeners_.push_back(l);
  }
  void admit_to(Input& in) {
    DomainId d = someone(in);
    ListenerId l = some_listener(in);
    uint64_t number = w_.core().admit_to(d, l, 1000 + in.byte() % 3u, 1000);
    if (number == 0) return;
    const Listener* to = w_.listener(l);
    FUZZ_CHECK(to != nullptr && to->is_name() && is_present(d) && to->netns == w_.core().domain(d).identity.netns);
    for (const Ticket& t : tickets_) FUZZ_CHECK(t.number != number || (t.holder == d && t.listener == l));
    tickets_.push_back({d, l, number});
  }

  // ---- messages
  Message some_message(Input& in) {
    Message m{};
    uint8_t type = in.byte();
    m.type = uint16_t(type < 250 ? 1 + type % shm::kCannotMeet : in.word(2));
    m.id = 1 + in.byte();
    AddressWords a = words_of(address(in));
    uint64_t l = some_listener(in);
    switch (m.type) {
      case shm::kListen:
        m.words[0] = a.first, m.words[1] = a.second;
        m.words[2] = both(in.byte() % 4 ? 8000 + in.byte() % 3 : uint32_t(in.lie(0)) & 0xffff, in.byte() % 4);
        m.words[3] = both(in.byte(), in.flip());
        break;
      case shm::kConnect: {
        m.words[0] = a.first, m.words[1] = a.second;
        m.words[2] = in.byte() % 4 ? 8000 + in.byte() % 3 : 0;
        if (m.words[2] == 0) m.words[0] = key_words(in).first, m.words[1] = key_words(in).second;
        m.words[3] = in.byte() % 3;
        m.words[4] = in.flip() ? both(uint32_t(l), someone(in)) : 0;
        m.words[5] = in.byte() % 4;
        break;
      }
      case shm::kWho: {
        m.words[0] = someone(in);
        m.words[1] = tickets_.empty() || in.byte() % 8 == 0 ? in.lie(uint64_t{100} << 32) : tickets_[in.byte() % tickets_.size()].number;
        break;
      }
      case shm::kMay:
        m.words[0] = someone(in);
        m.words[1] = l;
        break;
      case shm::kCannotMeet:
        m.words[0] = both(someone(in), in.byte());
        break;
      case shm::kMove:
        m.words[0] = both(uint32_t(l), someone(in));
        m.words[1] = a.first, m.words[2] = a.second;
        m.words[3] = in.byte() % 4 ? 8000 + in.byte() % 3 : 0;
        break;
      default:
        m.words[0] = m.type == shm::kRing ? someone(in) : l;
        m.words[1] = in.byte() % 4;
    }
    if (in.byte() % 16 == 0) m.words[in.byte() % 7] = in.lie(m.words[0]);
    return m;
  }
  static AddressWords key_words(Input& in) {
    uint8_t n = in.byte();
    return words_of(address_of(shm::UnixKey{n % 2 ? shm::kAbstractDevice : 7, n / 2 % 3u}));
  }

  void ask(Input& in) {
    DomainId from = someone(in);
    Message m = some_message(in);
    // What it says about lines is true from now on.
    ListenerId l = low(m.words[0]);
    if (m.type == shm::kMove || (m.type == shm::kWaiting && m.words[1] != 0)) w_.lines.insert({from, l});
    w_.replies.clear();
    bool present = is_present(from);
    w_.core().handle(from, m);
    FUZZ_CHECK(w_.replies.size() <= 1);
    if (w_.replies.empty()) return;
    auto [to, r] = w_.replies[0];
    FUZZ_CHECK(present && to == from && r.id == m.id && r.type == m.type);
    if (r.status == 0) check_reply(from, m, r);
  }

  void check_reply(DomainId from, const Message& m, const Message& r) {
    const Identity& me = w_.core().domain(from).identity;
    if (m.type == shm::kListen) {
      ListenerId l = ListenerId(r.words[0]);
      FUZZ_CHECK(w_.policy_allows && w_.is_member(from, l));
      listeners_.push_back(l);
      if (listeners_.size() > 32) listeners_.erase(listeners_.begin());
    }
    if (m.type == shm::kConnect || m.type == shm::kMove) {
      DomainId acceptor = low(r.words[0]);
      ListenerId l = high(r.words[0]);
      const Listener* listener = w_.listener(l);
      FUZZ_CHECK(listener != nullptr && listener->netns == me.netns);
      FUZZ_CHECK(w_.is_member(acceptor, l) && int32_t(r.words[4]) == w_.core().domain(acceptor).identity.pid);
      FUZZ_CHECK(listener->match(address_of(r.words[2], r.words[3])) != 0);
      if (listener->is_name()) FUZZ_CHECK(is_admitted(from, l));
      if (high(r.words[1]) == 1) w_.granted.insert({from, l});
      if (high(r.words[1]) > 1) {
        FUZZ_CHECK(high(r.words[1]) <= shm::kMostChoices);
        Address at = address_of(r.words[2], r.words[3]);
        w_.for_each_listener([&](const Listener& other) {
          if (other.netns == me.netns && other.chain() == listener->chain() && other.match(at) == listener->match(at))
            w_.choices.insert({from, other.id});
        });
      }
    }
    if (m.type == shm::kLeasePorts) {
      uint32_t first = low(r.words[0]), count = high(r.words[0]);
      FUZZ_CHECK(count == kPortsPerLease && first >= 60000 && first + count <= 60128);
      FUZZ_CHECK(w_.lent.emplace(uint16_t(first), from).second);
    }
    if (m.type == shm::kWho) {
      ListenerId l = ListenerId(r.words[0]);
      FUZZ_CHECK(w_.is_member(from, l));
      bool known = false;
      for (const Ticket& t : tickets_) known |= t.number == m.words[1] && t.holder == low(m.words[0]) && t.listener == l;
      FUZZ_CHECK(known);
    }
  }
  bool is_admitted(DomainId d, ListenerId l) const {
    for (const Ticket& t : tickets_)
      if (t.holder == d && t.listener == l) return true;
    return false;
  }

  CoreWorld w_;
  std::vector<DomainId> crowd_;
  std::vector<ListenerId> listeners_;
  std::vector<Ticket> tickets_;
  DomainId turn_ = 100;
};

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t n) {
  static sluice::fuzz::Core core;
  sluice::fuzz::Input in(bytes, n);
  core.run(in);
  return 0;
}
