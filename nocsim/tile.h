// What a program on a tile can do. Each call takes modelled cycles and may block; other tiles run
// meanwhile. One word sent or received, one look at the network's registers: one cycle each.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <type_traits>

#include "nocsim/config.h"
#include "nocsim/geometry.h"

namespace nocsim {

class Mesh;

// Thrown in every member of a hardwall when a packet wants to leave it.
class HardwallFault : public std::runtime_error {
 public:
  HardwallFault(Node at, int port, Cycle cycle)
      : std::runtime_error("a packet wanted to leave the hardwall at tile " + std::to_string(at) +
                           " to the " + name_of(port) + ", cycle " + std::to_string(cycle)),
        at(at),
        port(port),
        cycle(cycle) {}
  Node at;
  int port;
  Cycle cycle;
};

class Tile {
 public:
  struct Counts {
    uint64_t words_sent = 0;
    uint64_t words_received = 0;
    Cycle computing = 0;
    Cycle in_memory = 0;
    Cycle waiting_to_send = 0;
    Cycle waiting_to_receive = 0;
    uint64_t sends_with_open_stores = 0;  // headers sent without a fence after a store
  };

  // The longest packet's words: what a header has room for.
  static constexpr int kMostWords = 1023;

  Tile(Mesh& mesh, Node id) : mesh_(mesh), id_(id) {}

  Node id() const { return id_; }
  Place place() const;
  Mesh& mesh() { return mesh_; }
  const Counts& counts() const { return counts_; }

  // ---- sending ----
  // The header of a packet to that queue of that tile, to which its number of words is added.
  // Opaque otherwise. Throws std::invalid_argument if there is no such tile or queue.
  uint64_t header(Node to, int queue) const;
  // A header, then as many words as it says, each of them with this. Blocks while the switch has no
  // room.
  void send(uint64_t word);
  // A whole packet.
  void send(Node to, int queue, std::span<const uint64_t> words);
  void send(Node to, int queue, std::initializer_list<uint64_t> words) {
    send(to, queue, std::span<const uint64_t>(words.begin(), words.size()));
  }

  // ---- receiving ----
  // The next word of that queue; blocks while there is none.
  uint64_t receive(int queue);
  // The queues that have words, as bits.
  uint64_t available();
  // Words in that queue.
  size_t count(int queue);
  // Polls available() until one of these queues (bits) has words, and says which.
  uint64_t wait_for(uint64_t queues);

  // ---- time and memory ----
  Cycle cycle();
  void compute(Cycle cycles);
  // Waits until what this tile stored has arrived. A header that announces data goes after it.
  void fence();
  template <typename T>
  T load(const T& from) {
    static_assert(std::is_trivially_copyable_v<T>);
    touch_to_load(&from, sizeof(T));
    return from;
  }
  template <typename T>
  void store(T& to, const std::type_identity_t<T>& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    touch_to_store(&to, sizeof(T));
    to = value;
  }
  // What loading and storing it costs, for code that accesses it by itself. A store takes one cycle
  // and is under way after that.
  void touch_to_load(const void* at, size_t bytes);
  void touch_to_store(const void* at, size_t bytes);

  // Packets that begin from now on carry this mark; 0: none. Those are followed by
  // Network::trace().
  void mark_packets(uint64_t mark) { mark_ = mark; }

 private:
  friend class Mesh;
  enum class Waits : uint8_t { kNot, kForTime, kToSend, kToReceive, kForAny };

  void advance(Cycle cycles);
  void block(Waits what);

  Mesh& mesh_;
  Node id_;
  Counts counts_;
  Cycle stores_done_ = 0;
  uint64_t mark_ = 0;

  // The packet that is being sent.
  uint32_t packet_ = 0;
  int words_left_ = 0;
  int vc_ = 0;

  // What it waits for, for the mesh.
  Waits waits_ = Waits::kNot;
  uint64_t queues_ = 0;  // kToReceive, kForAny
  Cycle since_ = 0;
};

}  // namespace nocsim
