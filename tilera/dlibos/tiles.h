// What the tiles of a pipeline do with a message.
#pragma once

#include <deque>
#include <functional>
#include <map>

#include "nocsim/mesh.h"
#include "nocsim/random.h"
#include "tilera/dlibos/mailbox.h"

namespace sluice::tilera::dlibos {

// Whole lines, so that no two buffers share one.
class Buffer {
 public:
  explicit Buffer(uint32_t bytes) : lines_((bytes + sizeof(Line) - 1) / sizeof(Line)) {}
  const void* line(std::size_t i) const { return &lines_[i]; }
  std::size_t lines() const { return lines_.size(); }
  std::size_t bytes() const { return lines_.size() * sizeof(Line); }
  static constexpr uint32_t kLineWords = nocsim::MemoryModel::kLineBytes / 8;

 private:
  struct alignas(nocsim::MemoryModel::kLineBytes) Line {
    uint64_t words[kLineWords];
  };
  std::vector<Line> lines_;
};

// A request that a driver tile may have under way at a stack tile, and its buffers.
struct Slot {
  Slot(TileId stack, uint32_t id, const Costs& costs)
      : stack(stack), id(id), descriptor(1), rx(costs.request_bytes), tx(costs.reply_bytes) {}
  TileId stack;
  uint32_t id;
  Buffer descriptor, rx, tx;  // the engine writes the first two and reads the last
  uint64_t begun = 0;
  bool is_open = false;
};

// A request that a stack tile may have under way at an application tile.
struct Call {
  explicit Call(const Costs& costs) : reply(costs.reply_bytes) {}
  Buffer reply;  // in the application's memory
  TileId driver = 0;
  Slot* slot = nullptr;
};

// What all tiles of a run share: what is counted.
struct Run {
  const Setting& setting;
  nocsim::Mesh& mesh;
  bool measures = false, stops = false;
  uint64_t begun = 0, ended = 0;  // requests, all the time
  uint64_t requests = 0, copied_bytes = 0, refused = 0;
  std::vector<uint32_t> latencies;
};

class TileProgram {
 public:
  TileProgram(Run& run, Role role, TileId here) : run_(run), role_(role), here_(here) {}
  virtual ~TileProgram() = default;
  // Never returns.
  void be(nocsim::Tile& tile, Mail& mail);
  Role role() const { return role_; }
  TileId here() const { return here_; }
  uint64_t idle() const { return mailbox_ != nullptr ? mailbox_->idle(now()) + idle_ : 0; }

 protected:
  virtual void work();
  virtual void take(const Note& note) = 0;
  void send(TileId to, uint32_t type, uint32_t id, const void* what = nullptr) {
    mailbox_->send(to, {type, here_, id, reinterpret_cast<uintptr_t>(what)});
  }
  // A buffer has come back in a message of its own, or with another one.
  void take_back() { tile_->compute(run_.setting.costs.hand_back); }
  void take_back_with_it() {
    if (run_.setting.is_protected && run_.setting.hand_back == HandBack::kPiggyback) take_back();
  }
  const Costs& costs() const { return run_.setting.costs; }
  uint64_t now() const { return run_.mesh.cycle(); }  // costs nothing

  Run& run_;
  const Role role_;
  const TileId here_;
  nocsim::Tile* tile_ = nullptr;
  std::unique_ptr<Mailbox> mailbox_;
  uint64_t idle_ = 0;
};

class DriverProgram : public TileProgram {
 public:
  // `drivers`: of the whole chip, among which the requests are divided.
  DriverProgram(Run& run, TileId here, const Pipeline& pipeline, uint32_t drivers);

 private:
  void work() override;
  void take(const Note& note) override;
  void work_at_a_rate();
  void arrive(uint64_t when);
  void begin(Slot& slot, uint64_t arrived);
  uint64_t gap();

  std::map<TileId, std::vector<std::unique_ptr<Slot>>> slots_;
  std::vector<TileId> stacks_;
  const uint32_t drivers_;
  nocsim::Random random_;
  // At a rate: when those arrived that wait in the network engine for a slot, by stack tile.
  std::map<TileId, std::deque<uint64_t>> waiting_;
  std::size_t waits_ = 0;
};

class StackProgram : public TileProgram {
 public:
  StackProgram(Run& run, TileId here, const Pipeline& pipeline);

 private:
  struct Application {
    TileId tile;
    std::vector<std::unique_ptr<Call>> calls;
    std::vector<uint32_t> free;
    std::deque<std::pair<TileId, Slot*>> waiting;
  };
  void take(const Note& note) override;
  void assign(TileId driver, Slot* slot);
  void ask_if_free();
  void call_if_free(Application& application);
  void reply(Application& application, uint32_t id);
  void copy(const Buffer& from, const Buffer& to);

  std::deque<Application> applications_;
  std::map<TileId, std::size_t> index_of_;
  std::size_t turn_ = 0;
  uint64_t packets_ = 0;
  std::deque<std::pair<TileId, Slot*>> unconnected_;  // of the first the coordinator is being asked
  bool asks_ = false;
  nocsim::Random random_;
};

// Answers who asks, one after the other.
class CoordinatorProgram : public TileProgram {
 public:
  CoordinatorProgram(Run& run, TileId here) : TileProgram(run, kStack, here) {}

 private:
  void take(const Note& note) override;
};

class ApplicationProgram : public TileProgram {
 public:
  ApplicationProgram(Run& run, TileId here) : TileProgram(run, kApplication, here) {}

 private:
  void take(const Note& note) override;
};

}  // namespace sluice::tilera::dlibos
