#include "tilera/dlibos/mailbox.h"

#include <algorithm>
#include <stdexcept>

#include "nocsim/mesh.h"

namespace sluice::tilera::dlibos {

// ---- packets ------------------------------------------------------------------------------

class NocMailbox : public Mailbox {
 public:
  NocMailbox(Mail& mail, nocsim::Tile& tile) : mail_(mail), noc_(tile) {}

  void publish() override { noc_.fence(); }
  void send(TileId to, const Note& note) override {
    noc_.spend(mail_.setting_.costs.message);
    ++mail_.sent_;
    const uint32_t words = is_short(note.type) ? 0 : 1;
    const Word frame = shm::Frame{note.type, words, 0, noc_.here(), note.id}.packed();
    const Word header = noc_.header(to, kRequests);
    if (words == 0) noc_.send(header, frame);
    else noc_.send(header, frame, note.word);
  }
  Note receive() override {
    begin_wait(noc_.tile().mesh().cycle());
    noc_.await(bit_of(kRequests));
    end_wait(noc_.tile().mesh().cycle() - 1);  // the look
    return take();
  }
  bool try_receive(Note& note) override {
    if ((noc_.available() & bit_of(kRequests)) == 0) return false;
    note = take();
    return true;
  }

 private:
  Note take() {
    const shm::Frame frame = shm::Frame::unpacked(noc_.receive<kRequests>());
    ++mail_.taken_;
    Note note{frame.type, frame.sender, frame.id, 0};
    if (frame.words != 0) note.word = noc_.receive<kRequests>();
    noc_.spend(mail_.setting_.costs.message);
    return note;
  }

  Mail& mail_;
  SimNoc noc_;
};

// ---- rings in memory ----------------------------------------------------------------------

class MemoryMailbox : public Mailbox {
 public:
  MemoryMailbox(Mail& mail, nocsim::Tile& tile) : mail_(mail), tile_(tile), receiver_(mail.receivers_[tile.id()]) {}

  void publish() override {}  // sending fences once, for both
  void send(TileId to, const Note& note) override {
    tile_.compute(mail_.setting_.costs.message);
    ++mail_.sent_;
    Mail::Ring& ring = ring_to(to);
    if (mail_.setting_.queues == Queues::kShared) wait_for_claim(ring);
    const uint64_t place = ring.claimed++;
    Mail::Line& line = ring.lines[place % ring.lines.size()];
    if (place - ring.taken >= ring.lines.size()) throw std::logic_error("a ring without room for what the plan allows");
    line.note = note;
    line.note.from = tile_.id();
    tile_.touch_to_store(&line.note, sizeof line.note);
    tile_.fence();
    tile_.touch_to_store(&line.number, sizeof line.number);
    line.number = place + 1;
  }
  Note receive() override {
    Note note;
    for (;;) {
      const uint64_t begun = tile_.mesh().cycle();
      if (try_receive(note)) return note;
      begin_wait(begun);
      end_wait(tile_.mesh().cycle());
    }
  }
  // Looks at each ring once, from the one after that it took from the last time.
  bool try_receive(Note& note) override {
    for (std::size_t i = 0; i < receiver_.rings.size(); ++i) {
      Mail::Ring& ring = *receiver_.rings[next_];
      next_ = (next_ + 1) % receiver_.rings.size();
      tile_.compute(mail_.setting_.costs.scan);
      const Mail::Line& line = ring.lines[ring.taken % ring.lines.size()];
      tile_.touch_to_load(&line, sizeof line.number);
      if (line.number != ring.taken + 1) continue;
      tile_.fence();
      note = line.note;
      ++ring.taken;
      ++mail_.taken_;
      tile_.compute(mail_.setting_.costs.message);
      return true;
    }
    return false;
  }

 private:
  Mail::Ring& ring_to(TileId to) {
    auto& rings = mail_.receivers_[to].rings;
    if (mail_.setting_.queues == Queues::kShared) return *rings.front();
    for (auto& ring : rings)
      if (ring->from == tile_.id()) return *ring;
    throw std::logic_error("a message to a tile that the plan does not connect");
  }
  // There and back, and one after the other where the counter is at home.
  void wait_for_claim(Mail::Ring& ring) {
    const nocsim::MemoryCosts memory;
    const uint64_t now = tile_.mesh().cycle(), there = now + memory.remote / 2;
    ring.counter_free = std::max(there, ring.counter_free) + mail_.setting_.costs.atomic;
    tile_.compute(ring.counter_free + memory.remote / 2 - now);
  }

  Mail& mail_;
  nocsim::Tile& tile_;
  Mail::Receiver& receiver_;
  std::size_t next_ = 0;
};

// ---- all of them --------------------------------------------------------------------------

Mail::Mail(const Setting& setting, const std::vector<Pipeline>& pipelines) : setting_(setting), receivers_(setting.mesh.nodes()) {
  if (setting.queues == Queues::kNoc) return;
  const TileId coordinator = coordinator_of(setting.mesh);
  if (setting.has_coordinator())
    for (const Pipeline& p : pipelines)
      for (TileId stack : p.tiles[kStack]) connect(stack, coordinator, 1), connect(coordinator, stack, 1);
  // Of one request there are at most two messages under way in one direction, see plan.h.
  for (const Pipeline& p : pipelines)
    for (TileId stack : p.tiles[kStack]) {
      for (TileId driver : p.tiles[kDriver]) connect(driver, stack, 2 * p.packets), connect(stack, driver, 2 * p.packets);
      for (TileId app : p.tiles[kApplication]) connect(stack, app, 2 * p.calls), connect(app, stack, 2 * p.calls);
    }
}

Mail::~Mail() = default;

void Mail::connect(TileId from, TileId to, uint32_t notes) {
  auto& rings = receivers_[to].rings;
  const bool is_new = rings.empty() || setting_.queues == Queues::kDivided;
  if (is_new) rings.push_back(std::make_unique<Ring>());
  rings.back()->from = from;
  rings.back()->lines.resize(rings.back()->lines.size() + notes);
}

std::unique_ptr<Mailbox> Mail::open(nocsim::Tile& tile) {
  if (setting_.queues == Queues::kNoc) return std::make_unique<NocMailbox>(*this, tile);
  return std::make_unique<MemoryMailbox>(*this, tile);
}

}  // namespace sluice::tilera::dlibos
