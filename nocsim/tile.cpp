#include "nocsim/tile.h"

#include "nocsim/mesh.h"

namespace nocsim {
namespace {

// A header of the simulator's own: words in the low bits, where numbers are added; then queue and
// tile.
constexpr int kLengthBits = 10, kQueueBits = 6;
constexpr uint64_t kHeaderMark = uint64_t{0x5ead} << 48;
constexpr uint64_t kMarkMask = uint64_t{0xffff} << 48;

}  // namespace

Place Tile::place() const { return mesh_.config().place_of(id_); }

uint64_t Tile::header(Node to, int queue) const {
  if (to >= static_cast<Node>(mesh_.config().nodes()))
    throw std::invalid_argument("no tile " + std::to_string(to));
  if (queue < 0 || queue >= mesh_.config().queues)
    throw std::invalid_argument("no queue " + std::to_string(queue));
  return kHeaderMark | uint64_t{to} << (kLengthBits + kQueueBits) |
         static_cast<uint64_t>(queue) << kLengthBits;
}

void Tile::send(uint64_t word) {
  Network& network = mesh_.network_;
  if (words_left_ == 0) {
    if ((word & kMarkMask) != kHeaderMark)
      throw std::invalid_argument("a packet begins with a header");
    const Node to = static_cast<Node>((word & ~kMarkMask) >> (kLengthBits + kQueueBits));
    const Place place = mesh_.config().place_of(to);
    while (!network.vcs_with_room(id_)) block(Waits::kToSend);
    vc_ = round_robin(network.vcs_with_room(id_), (vc_ + 1) % mesh_.config().vcs);
    words_left_ = static_cast<int>(word & (bit(kLengthBits) - 1));
    if (stores_done_ > mesh_.cycle()) ++counts_.sends_with_open_stores;
    packet_ = network.packets().create(
        {.from = id_,
         .to = to,
         .to_x = static_cast<uint16_t>(place.x),
         .to_y = static_cast<uint16_t>(place.y),
         .flits = static_cast<uint16_t>(words_left_ + 1),
         .queue = static_cast<uint16_t>(word >> kLengthBits & (bit(kQueueBits) - 1)),
         .created = mesh_.cycle(),
         .injected = mesh_.cycle(),
         .tag = mark_});
  } else {
    while (!(network.vcs_with_room(id_) & bit(vc_))) block(Waits::kToSend);
    --words_left_;
  }
  network.inject(id_, vc_, Flit(packet_, words_left_ == 0), word);
  ++counts_.words_sent;
  if (mesh_.watcher_) mesh_.watcher_->did(id_, "send", mesh_.cycle(), mesh_.cycle() + 1);
  advance(1);
}

void Tile::send(Node to, int queue, std::span<const uint64_t> words) {
  if (words.size() > kMostWords) throw std::invalid_argument("a packet has 1023 words at most");
  send(header(to, queue) + words.size());
  for (uint64_t word : words) send(word);
}

uint64_t Tile::receive(int queue) {
  if (queue < 0 || queue >= mesh_.config().queues)
    throw std::invalid_argument("no queue " + std::to_string(queue));
  Endpoint& endpoint = mesh_.tiles_[id_].endpoint;
  queues_ = bit(queue);
  while (!endpoint.count(queue)) block(Waits::kToReceive);
  const uint64_t word = endpoint.pop(queue);
  ++counts_.words_received;
  if (mesh_.watcher_) mesh_.watcher_->did(id_, "receive", mesh_.cycle(), mesh_.cycle() + 1);
  advance(1);
  return word;
}

uint64_t Tile::available() {
  advance(1);
  return mesh_.tiles_[id_].endpoint.available();
}

size_t Tile::count(int queue) {
  if (queue < 0 || queue >= mesh_.config().queues)
    throw std::invalid_argument("no queue " + std::to_string(queue));
  advance(1);
  return mesh_.tiles_[id_].endpoint.count(queue);
}

uint64_t Tile::wait_for(uint64_t queues) {
  const Endpoint& endpoint = mesh_.tiles_[id_].endpoint;
  queues_ = queues;
  while (!(endpoint.available() & queues)) block(Waits::kForAny);
  advance(1);
  return endpoint.available() & queues;
}

Cycle Tile::cycle() {
  advance(1);
  return mesh_.cycle();
}

void Tile::compute(Cycle cycles) {
  counts_.computing += cycles;
  if (mesh_.watcher_ && cycles)
    mesh_.watcher_->did(id_, "compute", mesh_.cycle(), mesh_.cycle() + cycles);
  if (cycles) advance(cycles);
}

void Tile::fence() {
  const Cycle now = mesh_.cycle();
  const Cycle cycles = stores_done_ > now ? stores_done_ - now : 1;
  counts_.in_memory += cycles;
  if (mesh_.watcher_) mesh_.watcher_->did(id_, "fence", now, now + cycles);
  advance(cycles);
}

void Tile::touch_to_load(const void* at, size_t bytes) {
  const Cycle cycles = mesh_.memory_.load(id_, at, bytes);
  counts_.in_memory += cycles;
  if (mesh_.watcher_) mesh_.watcher_->did(id_, "load", mesh_.cycle(), mesh_.cycle() + cycles);
  if (cycles) advance(cycles);
}

void Tile::touch_to_store(const void* at, size_t bytes) {
  const Cycle cycles = mesh_.memory_.store(id_, at, bytes);
  stores_done_ = std::max(stores_done_, mesh_.cycle() + cycles);
  counts_.in_memory += 1;
  if (mesh_.watcher_) mesh_.watcher_->did(id_, "store", mesh_.cycle(), mesh_.cycle() + 1);
  advance(1);
}

void Tile::advance(Cycle cycles) {
  waits_ = Waits::kForTime;
  mesh_.wake_at(mesh_.cycle() + cycles, id_);
  mesh_.tiles_[id_].fiber->suspend();
  waits_ = Waits::kNot;
  if (const auto fault = std::exchange(mesh_.tiles_[id_].fault, std::nullopt))
    throw HardwallFault(fault->node, fault->port, fault->cycle);
}

// Until the mesh thinks that it may go on; the caller looks again.
void Tile::block(Waits what) {
  waits_ = what;
  since_ = mesh_.cycle();
  if (what == Waits::kToSend) mesh_.senders_.add(id_);
  mesh_.tiles_[id_].fiber->suspend();
  mesh_.senders_.remove(id_);
  waits_ = Waits::kNot;
  (what == Waits::kToSend ? counts_.waiting_to_send : counts_.waiting_to_receive) +=
      mesh_.cycle() - since_;
  if (const auto fault = std::exchange(mesh_.tiles_[id_].fault, std::nullopt))
    throw HardwallFault(fault->node, fault->port, fault->cycle);
}

}  // namespace nocsim
