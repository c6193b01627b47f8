#include "nocsim/mesh.h"

#include <stdexcept>
#include <utility>

namespace nocsim {
namespace {

Config checked(const Config& config) {
  if (const std::string complaint = complaint_about(config); !complaint.empty())
    throw std::invalid_argument(complaint);
  return config;
}

bool is_hardwall_fault(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const HardwallFault&) {
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

Mesh::Mesh(const Config& config, const ProgramCosts& costs)
    : network_(checked(config), true),
      memory_(config.nodes(), costs.memory),
      stack_bytes_(costs.stack_bytes) {
  const auto nodes = static_cast<Node>(config.nodes());
  next_ = ready_ = senders_ = NodeSet(nodes);
  for (Node node = 0; node < nodes; ++node)
    tiles_.push_back({.tile = std::make_unique<Tile>(*this, node), .endpoint = Endpoint(config)});
}

Mesh::~Mesh() {
  for (Node node = 0; node < tiles_.size(); ++node) stop(node);
}

void Mesh::start(Node node, Program program, bool in_background) {
  Core& core = tiles_[node];
  if (is_running(node))
    throw std::logic_error("tile " + std::to_string(node) + " runs a program already");
  core.fiber = std::make_unique<Fiber>(
      stack_bytes_, [program = std::move(program), tile = core.tile.get()] { program(*tile); });
  core.in_background = in_background;
  core.fault.reset();
  if (!in_background) ++in_foreground_;
  next_.add(node);
  core.wakes = network_.cycle();
}

void Mesh::stop(Node node) {
  Core& core = tiles_[node];
  if (!is_running(node)) return;
  core.fiber->cancel();
  if (!core.in_background) --in_foreground_;
  core.wakes = kForever;
  core.tile->waits_ = Tile::Waits::kNot;
  for (NodeSet* set : {&next_, &ready_, &senders_}) set->remove(node);
}

void Mesh::wake_at(Cycle at, Node node) {
  tiles_[node].wakes = at;
  if (at == network_.cycle() + 1)
    next_.add(node);
  else
    alarms_.push({at, node});
}

void Mesh::resume(Node node) {
  Core& core = tiles_[node];
  if (!is_running(node)) return;
  core.wakes = kForever;
  core.fiber->resume();
  if (!core.fiber->finished()) return;
  core.tile->waits_ = Tile::Waits::kNot;
  if (!core.in_background) --in_foreground_;
  const std::exception_ptr failure = core.fiber->failure();
  if (failure && !failure_ && !is_hardwall_fault(failure)) failure_ = failure;
}

void Mesh::deliver(Node node) {
  Core& core = tiles_[node];
  const int queue = core.endpoint.run(network_, node);
  if (queue < 0) return;
  const Tile& tile = *core.tile;
  if ((tile.waits_ == Tile::Waits::kToReceive || tile.waits_ == Tile::Waits::kForAny) &&
      tile.queues_ & bit(queue))
    ready_.add(node);
}

void Mesh::step() {
  network_.begin_cycle();
  deliver_faults();
  network_.nodes_with_arrivals().for_each([&](Node node) { deliver(node); });
  next_.drain([&](Node node) { ready_.add(node); });
  for (; !alarms_.empty() && alarms_.top().at <= network_.cycle(); alarms_.pop())
    if (const Alarm& alarm = alarms_.top(); tiles_[alarm.tile].wakes == alarm.at)
      ready_.add(alarm.tile);
  senders_.for_each([&](Node node) {
    if (network_.vcs_with_room(node)) ready_.add(node);
  });
  ready_.drain([&](Node node) { resume(node); });
  if (torn_down_) drain_members();
  network_.end_cycle();
}

bool Mesh::is_quiet() const {
  // Nothing is on its way between routers once nothing has left for longer than any way takes.
  return next_.empty() && network_.cycle() > network_.last_move() + network_.longest_delay();
}

Outcome Mesh::run(Cycle cycles) {
  const Cycle end = cycles > kForever - network_.cycle() ? kForever : network_.cycle() + cycles;
  for (;;) {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    if (all_finished()) return stopped(Outcome::Kind::kFinished);
    if (network_.cycle() >= end) return stopped(Outcome::Kind::kLimit);
    while (!alarms_.empty() && tiles_[alarms_.top().tile].wakes != alarms_.top().at) alarms_.pop();
    if (is_quiet()) {
      if (alarms_.empty()) return stopped(Outcome::Kind::kDeadlock);
      if (alarms_.top().at > network_.cycle()) {
        network_.skip_to(std::min(alarms_.top().at, end));
        continue;
      }
    }
    step();
    if (watchdog_ && network_.cycle() % (watchdog_ / 4 + 1) == 0 &&
        !network_.stalls(watchdog_).empty())
      return stopped(Outcome::Kind::kStalled);
  }
}

Outcome Mesh::stopped(Outcome::Kind kind) const {
  Outcome outcome;
  outcome.kind = kind;
  outcome.cycle = network_.cycle();
  if (kind != Outcome::Kind::kDeadlock && kind != Outcome::Kind::kStalled) return outcome;
  outcome.stalls = network_.stalls(kind == Outcome::Kind::kStalled ? watchdog_ : 0);
  for (Node node = 0; node < tiles_.size(); ++node) {
    if (!is_running(node)) continue;
    const Tile& tile = *tiles_[node].tile;
    switch (tile.waits_) {
      case Tile::Waits::kToSend:
        outcome.waiters.push_back({node, "waits to send", tile.since_});
        break;
      case Tile::Waits::kToReceive:
        outcome.waiters.push_back(
            {node, "waits for a word in queue " + std::to_string(lowest(tile.queues_)),
             tile.since_});
        break;
      case Tile::Waits::kForAny:
        outcome.waiters.push_back({node, "waits for a word in any of its queues", tile.since_});
        break;
      default:
        break;
    }
  }
  return outcome;
}

std::string Outcome::describe() const {
  constexpr const char* kinds[] = {"finished", "deadlock", "stalled", "limit reached"};
  std::string text =
      std::string(kinds[static_cast<int>(kind)]) + " in cycle " + std::to_string(cycle);
  for (const Waiter& waiter : waiters)
    text += "\ntile " + std::to_string(waiter.tile) + " " + waiter.what + " since cycle " +
            std::to_string(waiter.since);
  for (const Stall& stall : stalls)
    text += "\ntile " + std::to_string(stall.node) + ": a flit " +
            (stall.port == kNodeSide ? std::string("that the endpoint does not take")
                                     : std::string("from ") + name_of(stall.port)) +
            " has not moved since cycle " + std::to_string(stall.since);
  return text;
}

}  // namespace nocsim
