// A mesh of tiles that run programs. A program is ordinary blocking code on a stack of its own:
//
//   nocsim::Mesh mesh(nocsim::find_profile("tilegx36")->config);
//   mesh.start(0, [](nocsim::Tile& tile) { tile.send(35, 0, {42}); });
//   mesh.start(35, [](nocsim::Tile& tile) { answer = tile.receive(0); });
//   nocsim::Outcome outcome = mesh.run();
//
// All of it is one thread, and deterministic: in a cycle, tiles run in the order of their numbers,
// and hear of each other a cycle later at the earliest (but for memory that they share, see
// memory_model.h).
//
// Packets of a pair arrive in the order in which they were sent if there is one VC, as on the user
// dynamic network; with more they may overtake each other.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "nocsim/endpoint.h"
#include "nocsim/fiber.h"
#include "nocsim/memory_model.h"
#include "nocsim/network.h"
#include "nocsim/tile.h"

namespace nocsim {

// What a tile that does not go on waits for.
struct Waiter {
  Node tile;
  std::string what;
  Cycle since;
};

struct Outcome {
  enum class Kind {
    kFinished,  // all programs have returned
    kDeadlock,  // nothing moves, and nothing ever will
    kStalled,   // a flit has not moved for longer than the watchdog allows; run() may go on
    kLimit,     // that many cycles have passed
  };
  Kind kind = Kind::kFinished;
  Cycle cycle = 0;
  std::vector<Waiter> waiters;  // kDeadlock, kStalled
  std::vector<Stall> stalls;    // kDeadlock, kStalled: flits that are first in their FIFOs
  std::string describe() const;
};

using HardwallId = int;

struct Teardown {
  bool complete = false;
  Cycle cycles = 0;
  uint64_t words_drained = 0;    // from the queues
  uint64_t zeros_sent = 0;       // to complete packets
  uint64_t flits_discarded = 0;  // of packets that were stuck at the wall
};

// What programs do, for pictures.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void did(Node tile, std::string_view what, Cycle from, Cycle to) = 0;
};

struct ProgramCosts {
  size_t stack_bytes = 64 * 1024;
  MemoryCosts memory;
};

class Mesh {
 public:
  using Program = std::function<void(Tile&)>;
  static constexpr Cycle kForever = ~Cycle{0};

  // Throws std::invalid_argument for a configuration that complaint_about() complains of.
  explicit Mesh(const Config& config, const ProgramCosts& costs = {});
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  const Config& config() const { return network_.config(); }
  Cycle cycle() const { return network_.cycle(); }
  Tile& tile(Node node) { return *tiles_[node].tile; }
  const Endpoint& endpoint(Node node) const { return tiles_[node].endpoint; }
  Network& network() { return network_; }

  // The tile begins this program in the next cycle of run(). `in_background`: run() does not wait
  // for it.
  void start(Node node, Program program, bool in_background = false);
  bool is_running(Node node) const { return tiles_[node].fiber && !tiles_[node].fiber->finished(); }
  // Ends a tile's program as cancelled. This, run() and tear_down() are not for programs to call.
  void stop(Node node);
  // Until all programs have returned, or the other reasons of Outcome; for `cycles` at most. What a
  // program throws comes out of here (and a HardwallFault does not: it only ends its program).
  Outcome run(Cycle cycles = kForever);

  // A flit that is first in its FIFO for that long ends run() as kStalled; 0: no watchdog
  // (default).
  void set_watchdog(Cycle timeout) { watchdog_ = timeout; }
  // As an engine beside the mesh would: every tile's next load of it is a remote access.
  void device_writes(const void* at, size_t bytes) { memory_.written_by_device(at, bytes); }
  void watch(Watcher* watcher) { watcher_ = watcher; }

  // ---- hardwalls ----
  // No packet crosses the rectangle's edge from now on; one that wants to faults all members (a
  // HardwallFault in each program, at what it does next or waits for). Throws std::invalid_argument
  // if it does not lie in the mesh, or touches another one.
  HardwallId create_hardwall(const Rectangle& rectangle);
  std::optional<HardwallId> hardwall_of(Node node) const;
  const std::vector<WallFault>& faults(HardwallId id) const { return hardwalls_[id].faults; }
  // Stops the members' programs, completes the packets that they owe with zeros, drains queues and
  // switches until no flit of theirs is left, and takes the wall down. Everybody else runs on
  // meanwhile.
  Teardown tear_down(HardwallId id, Cycle limit = 1'000'000);

 private:
  friend class Tile;
  struct Core {
    std::unique_ptr<Tile> tile;
    Endpoint endpoint;
    std::unique_ptr<Fiber> fiber;
    bool in_background = false;
    Cycle wakes = kForever;          // the alarm that counts
    std::optional<WallFault> fault;  // to be thrown
  };
  struct Hardwall {
    Rectangle rectangle;
    std::vector<Node> members;
    std::vector<std::pair<Node, int>> edges;  // both sides
    std::vector<WallFault> faults;
    bool exists = true;
  };
  struct Alarm {
    Cycle at;
    Node tile;
    bool operator>(const Alarm& other) const {
      return at != other.at ? at > other.at : tile > other.tile;
    }
  };

  // One cycle of everything.
  void step();
  void wake_at(Cycle at, Node node);
  void resume(Node node);
  void deliver(Node node);
  void deliver_faults();
  bool is_quiet() const;
  bool all_finished() const { return in_foreground_ == 0; }
  Outcome stopped(Outcome::Kind kind) const;
  // A cycle of the members' share of a teardown: a zero for each packet owed, a word off each
  // queue.
  void drain_members();
  bool is_empty(const Hardwall& wall) const;

  Network network_;
  MemoryModel memory_;
  size_t stack_bytes_;
  std::vector<Core> tiles_;
  std::vector<Hardwall> hardwalls_;
  std::priority_queue<Alarm, std::vector<Alarm>, std::greater<>> alarms_;
  NodeSet next_;     // run in the next cycle
  NodeSet ready_;    // run in this cycle
  NodeSet senders_;  // wait for room
  int in_foreground_ = 0;
  Cycle watchdog_ = 0;
  Watcher* watcher_ = nullptr;
  std::exception_ptr failure_;
  Hardwall* torn_down_ = nullptr;  // in tear_down()
  Teardown teardown_;
};

}  // namespace nocsim
