#include "tilera/dlibos/round_trip.h"

#include <stdexcept>

#include "nocsim/mesh.h"
#include "tilera/dlibos/mailbox.h"

namespace sluice::tilera::dlibos {
namespace {

constexpr uint32_t kWarmUp = 100, kRounds = 200;

// One tile that answers, and its senders: first the one that speaks.
Pipeline star(const nocsim::Config& mesh, uint32_t hops, uint32_t senders) {
  if (hops == 0 || hops >= uint32_t(mesh.width) || senders == 0 || senders >= uint32_t(mesh.nodes()))
    throw std::invalid_argument("the mesh has no such tiles");
  Pipeline p;
  p.packets = 1;
  p.tiles[kStack] = {0};
  p.tiles[kDriver] = {hops};
  for (TileId t = 1; p.tiles[kDriver].size() < senders; ++t)
    if (t != hops) p.tiles[kDriver].push_back(t);
  return p;
}

}  // namespace

double half_round_trip(const Setting& setting, uint32_t hops, uint32_t senders) {
  const std::vector<Pipeline> pipelines{star(setting.mesh, hops, senders)};
  Mail mail(setting, pipelines);
  nocsim::Mesh mesh(setting.mesh);
  uint64_t begun = 0, ended = 0;
  mesh.start(0, [&](nocsim::Tile& tile) {
    auto mailbox = mail.open(tile);
    for (;;) {
      const Note note = mailbox->receive();
      mailbox->send(note.from, {kTransmit, 0, note.id, note.word});
    }
  }, true);
  mesh.start(hops, [&](nocsim::Tile& tile) {
    auto mailbox = mail.open(tile);
    for (uint32_t round = 0; round < kWarmUp + kRounds; ++round) {
      if (round == kWarmUp) begun = mesh.cycle();
      mailbox->send(0, {kPacket, hops, 0, round});
      mailbox->receive();
    }
    ended = mesh.cycle();
  });
  if (mesh.run().kind != nocsim::Outcome::Kind::kFinished) throw std::runtime_error("a message was not answered");
  mesh.stop(0);
  return double(ended - begun) / (2 * kRounds);
}

}  // namespace sluice::tilera::dlibos
