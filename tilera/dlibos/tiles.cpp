#include "tilera/dlibos/tiles.h"

#include <algorithm>

namespace sluice::tilera::dlibos {
namespace {

// Requests that the network engine keeps for a driver tile; one more is refused.
constexpr std::size_t kMostWaiting = 512;
// How often a driver tile that has nothing to do looks whether something has arrived.
constexpr uint64_t kLook = 20;

}  // namespace

void TileProgram::be(nocsim::Tile& tile, Mail& mail) {
  tile_ = &tile;
  mailbox_ = mail.open(tile);
  work();
}

void TileProgram::work() {
  for (;;) take(mailbox_->receive());
}

// ---- driver -------------------------------------------------------------------------------

DriverProgram::DriverProgram(Run& run, TileId here, const Pipeline& pipeline, uint32_t drivers)
    : TileProgram(run, kDriver, here), stacks_(pipeline.tiles[kStack]), drivers_(drivers), random_(run.setting.seed, here) {
  for (TileId stack : stacks_)
    for (uint32_t id = 0; id < pipeline.packets; ++id) slots_[stack].push_back(std::make_unique<Slot>(stack, id, costs()));
}

void DriverProgram::work() {
  if (run_.setting.rate > 0) return work_at_a_rate();
  // One of each stack tile, then the next of each.
  for (std::size_t id = 0; id < slots_.begin()->second.size(); ++id)
    for (TileId stack : stacks_) begin(*slots_[stack][id], now());
  TileProgram::work();
}

void DriverProgram::work_at_a_rate() {
  uint64_t next = now() + gap();
  for (;;) {
    while (next <= now() && !run_.stops) {
      arrive(next);
      next += gap();
    }
    for (TileId stack : stacks_)
      for (auto& slot : slots_[stack]) {
        if (slot->is_open || waiting_[stack].empty()) continue;
        const uint64_t arrived = waiting_[stack].front();
        waiting_[stack].pop_front();
        --waits_;
        begin(*slot, arrived);
      }
    const uint64_t looked = now();
    if (Note note; mailbox_->try_receive(note)) {
      take(note);
    } else {
      tile_->compute(kLook);
      idle_ += now() - looked;
    }
  }
}

// Of even chance between none and twice the mean.
uint64_t DriverProgram::gap() {
  const double mean = double(drivers_) / run_.setting.rate;
  return 1 + random_.below(uint32_t(std::min(2 * mean, 4e9)));
}

void DriverProgram::arrive(uint64_t when) {
  if (waits_ == kMostWaiting) {
    ++run_.refused;
    return;
  }
  waiting_[stacks_[random_.below(uint32_t(stacks_.size()))]].push_back(when);
  ++waits_;
}

void DriverProgram::begin(Slot& slot, uint64_t arrived) {
  slot.begun = arrived;
  slot.is_open = true;
  ++run_.begun;
  run_.mesh.device_writes(slot.descriptor.line(0), slot.descriptor.bytes());
  run_.mesh.device_writes(slot.rx.line(0), slot.rx.bytes());
  tile_->touch_to_load(slot.descriptor.line(0), sizeof(uint64_t));
  tile_->compute(costs().driver_rx);
  send(slot.stack, kPacket, slot.id, &slot);
}

void DriverProgram::take(const Note& note) {
  if (note.type == kRxFree) return take_back();
  Slot& slot = *slots_[note.from][note.id];
  take_back_with_it();
  tile_->compute(costs().driver_tx);
  ++run_.ended;
  if (run_.measures) {
    ++run_.requests;
    run_.latencies.push_back(uint32_t(now() - slot.begun));
  }
  if (run_.setting.sends_messages_back()) send(slot.stack, kTxDone, slot.id);
  slot.is_open = false;
  if (run_.setting.rate == 0 && !run_.stops) begin(slot, now());
}

// ---- stack --------------------------------------------------------------------------------

StackProgram::StackProgram(Run& run, TileId here, const Pipeline& pipeline) : TileProgram(run, kStack, here), random_(run.setting.seed, here) {
  for (TileId tile : pipeline.tiles[kApplication]) {
    index_of_[tile] = applications_.size();
    Application& a = applications_.emplace_back();
    a.tile = tile;
    for (uint32_t id = 0; id < pipeline.calls; ++id) {
      a.calls.push_back(std::make_unique<Call>(costs()));
      a.free.push_back(id);
    }
  }
  // Not all begin with the same.
  turn_ = here % applications_.size();
  if (run_.setting.has_coordinator()) packets_ = random_.below(run_.setting.requests_per_connection);
}

void StackProgram::take(const Note& note) {
  switch (note.type) {
    case kPacket: {
      auto* slot = reinterpret_cast<Slot*>(note.word);
      take_back_with_it();
      tile_->touch_to_load(slot->rx.line(0), nocsim::MemoryModel::kLineBytes);
      tile_->compute(costs().stack_rx);
      const bool is_first = run_.setting.has_coordinator() && packets_++ % run_.setting.requests_per_connection == 0;
      if (!is_first) return assign(note.from, slot);
      unconnected_.emplace_back(note.from, slot);
      return ask_if_free();
    }
    case kConnected: {
      const auto [driver, slot] = unconnected_.front();
      unconnected_.pop_front();
      asks_ = false;
      ask_if_free();
      return assign(driver, slot);
    }
    case kRxDone: {
      const Call& call = *applications_[index_of_[note.from]].calls[note.id];
      return send(call.driver, kRxFree, call.slot->id);
    }
    case kReply:
      return reply(applications_[index_of_[note.from]], note.id);
    default:
      return take_back();
  }
}

void StackProgram::assign(TileId driver, Slot* slot) {
  const bool random = run_.setting.spread == Spread::kRandom;
  Application& a = applications_[random ? random_.below(uint32_t(applications_.size())) : turn_++ % applications_.size()];
  a.waiting.emplace_back(driver, slot);
  call_if_free(a);
}

void StackProgram::ask_if_free() {
  if (asks_ || unconnected_.empty()) return;
  asks_ = true;
  send(coordinator_of(run_.mesh.config()), kConnect, 0);
}

void StackProgram::call_if_free(Application& a) {
  if (a.waiting.empty() || a.free.empty()) return;
  const uint32_t id = a.free.back();
  a.free.pop_back();
  Call& call = *a.calls[id];
  std::tie(call.driver, call.slot) = a.waiting.front();
  a.waiting.pop_front();
  send(a.tile, kData, id, &call);
}

void StackProgram::reply(Application& a, uint32_t id) {
  Call& call = *a.calls[id];
  if (run_.setting.is_protected) copy(call.reply, call.slot->tx);
  tile_->compute(costs().stack_tx);
  tile_->touch_to_store(call.slot->tx.line(0), nocsim::MemoryModel::kLineBytes);
  mailbox_->publish();
  send(call.driver, kTransmit, call.slot->id, call.slot);
  if (run_.setting.sends_messages_back()) send(a.tile, kReplyFree, id);
  a.free.push_back(id);
  call_if_free(a);
}

// A load and a store for each word; stores go on behind it, and loads wait for their line.
void StackProgram::copy(const Buffer& from, const Buffer& to) {
  for (std::size_t i = 0; i < from.lines(); ++i) {
    tile_->touch_to_load(from.line(i), nocsim::MemoryModel::kLineBytes);
    tile_->compute(2 * Buffer::kLineWords);
    tile_->touch_to_store(to.line(i), nocsim::MemoryModel::kLineBytes);
  }
  if (run_.measures) run_.copied_bytes += from.bytes();
}

// ---- coordinator --------------------------------------------------------------------------

void CoordinatorProgram::take(const Note& note) {
  tile_->compute(costs().coordinator);
  send(note.from, kConnected, 0);
}

// ---- application --------------------------------------------------------------------------

void ApplicationProgram::take(const Note& note) {
  if (note.type == kReplyFree) return take_back();
  auto& call = *reinterpret_cast<Call*>(note.word);
  take_back_with_it();
  tile_->touch_to_load(call.slot->rx.line(0), call.slot->rx.bytes());
  tile_->compute(costs().application);
  const Buffer& reply = run_.setting.is_protected ? call.reply : call.slot->tx;
  for (std::size_t i = 0; i < reply.lines(); ++i) {
    tile_->compute(Buffer::kLineWords);
    tile_->touch_to_store(reply.line(i), nocsim::MemoryModel::kLineBytes);
  }
  mailbox_->publish();
  if (run_.setting.sends_messages_back()) send(note.from, kRxDone, note.id);
  send(note.from, kReply, note.id, &call);
}

}  // namespace sluice::tilera::dlibos
