#include "tilera/dlibos/plan.h"

#include <algorithm>
#include <stdexcept>

#include "nocsim/memory_model.h"

namespace sluice::tilera::dlibos {
namespace {

constexpr uint32_t kLineBytes = nocsim::MemoryModel::kLineBytes;

uint32_t lines(uint32_t bytes) { return (bytes + kLineBytes - 1) / kLineBytes; }

bool fits(const Split& split, uint32_t packets, uint32_t calls, uint32_t room) {
  for (Role role : {kDriver, kStack, kApplication})
    if (words_at(role, split, packets, calls) > room) return false;
  return true;
}

}  // namespace

Split Pipeline::split() const {
  Split s;
  for (uint32_t role = 0; role < kRoles; ++role) s.tiles[role] = uint32_t(tiles[role].size());
  return s;
}

uint32_t words_at(Role role, const Split& split, uint32_t packets, uint32_t calls) {
  switch (role) {
    case kDriver:
      return split[kStack] * packets * kWordsUnderWay;
    case kStack:
      return (split[kDriver] * packets + split[kApplication] * calls) * kWordsUnderWay + 1;
    default:
      return split[kStack] * calls * kWordsUnderWay;
  }
}

Pipeline with_credits(const Split& split, uint32_t room) {
  Pipeline p;
  if (split[kDriver] == 0 || split[kStack] == 0 || split[kApplication] == 0 || !fits(split, 1, 1, room)) return p;
  p.packets = p.calls = 1;
  for (bool grows = true; grows;) {
    grows = false;
    for (uint32_t* credit : {&p.packets, &p.calls}) {
      if (*credit == kMostUnderWay) continue;
      ++*credit;
      if (fits(split, p.packets, p.calls, room)) grows = true;
      else --*credit;
    }
  }
  return p;
}

std::vector<Split> divide(const Split& split, uint32_t room) {
  if (split[kStack] > room) return {};
  const uint32_t most = *std::min_element(split.tiles.begin(), split.tiles.end());
  for (uint32_t n = 1; n <= most; ++n) {
    std::vector<Split> parts(n);
    bool fit = true;
    for (uint32_t i = 0; i < n; ++i) {
      for (uint32_t role = 0; role < kRoles; ++role)
        parts[i].tiles[role] = split.tiles[role] * (i + 1) / n - split.tiles[role] * i / n;
      fit = fit && with_credits(parts[i], room).packets != 0;
    }
    if (fit) return parts;
  }
  return {};
}

TileId coordinator_of(const nocsim::Config& mesh) { return TileId(mesh.nodes()) - 1; }

std::vector<Pipeline> make_pipelines(const nocsim::Config& mesh, const Split& split) {
  if (split.sum() > uint32_t(mesh.nodes())) throw std::invalid_argument("more tiles than the mesh has");
  std::vector<Pipeline> pipelines;
  TileId next = 0;
  for (const Split& part : divide(split, uint32_t(mesh.queue_words))) {
    Pipeline p = with_credits(part, uint32_t(mesh.queue_words));
    for (uint32_t role = 0; role < kRoles; ++role)
      for (uint32_t i = 0; i < part.tiles[role]; ++i) p.tiles[role].push_back(next++);
    pipelines.push_back(std::move(p));
  }
  if (pipelines.empty()) throw std::invalid_argument("the queues have no room for credits of that split");
  return pipelines;
}

double least_cycles(const Setting& setting, Role role) {
  const Costs& c = setting.costs;
  const nocsim::MemoryCosts memory;
  const bool noc = setting.queues == Queues::kNoc;
  // To send: a header and the words; to receive: a look, and the words.
  const double two_words = c.message + (noc ? 3 : 1), a_word = setting.sends_messages_back() ? c.message + (noc ? 2 : 1) : 0;
  const double line = memory.remote, hand_back = setting.is_protected ? c.hand_back : 0;
  switch (role) {
    case kDriver:  // sends a packet, takes one; the engine's descriptor; RX comes back, TX goes back
      return c.driver_rx + c.driver_tx + 2 * two_words + 2 * a_word + line + hand_back;
    case kStack: {  // two of each way
      const double copy = setting.is_protected ? lines(c.reply_bytes) * (line + 2 * kLineBytes / 8) : 0;
      return c.stack_rx + c.stack_tx + 4 * two_words + 4 * a_word + line + copy + hand_back;
    }
    default:
      return c.application + 2 * two_words + 2 * a_word + lines(c.request_bytes) * line + lines(c.reply_bytes) * (kLineBytes / 8) + hand_back;
  }
}

double bound(const Setting& setting, const Split& split) {
  double sum = 0;
  for (const Split& part : divide(split, uint32_t(setting.mesh.queue_words))) {
    double least = double(part[kDriver]) / least_cycles(setting, kDriver);
    for (Role role : {kStack, kApplication}) least = std::min(least, double(part[role]) / least_cycles(setting, role));
    sum += least;
  }
  if (setting.has_coordinator()) {
    const double connection = setting.costs.coordinator + 2.0 * setting.costs.message;
    sum = std::min(sum, double(setting.requests_per_connection) / connection);
  }
  return sum;
}

}  // namespace sluice::tilera::dlibos
