// A connection between two tiles: a byte ring for each direction (shm/byte_ring.h) in the regions of the pair, as between
// processes, and doorbells in place of ready queues and bells. Bytes never go over the network, only the word
// that there are some.
//
// A region is memory that one tile writes and the other reads. Each direction of a slot has one ring of kRingBytes at a place of
// its own, so there is nothing to allocate.
//
// Whoever is rung by a tile looks at its connections with that tile. There is no loss of news, and none twice: see
// doorbells.h. A sender that finds the ring full says so in its slot, fences, and looks again; the receiver frees space, fences,
// and looks whether somebody waits (the same pair of fences as for a doorbell).
#pragma once

#include "shm/byte_ring.h"
#include "tilera/doorbells.h"

namespace sluice::tilera {

inline constexpr uint32_t kRingLog2 = 14;
inline constexpr std::size_t kRingBytes = std::size_t{1} << kRingLog2;
inline constexpr uint32_t kTileSlots = 256;  // connections of a pair
constexpr uint32_t ring_page(uint32_t slot) { return uint32_t((shm::kHeapOffset + slot * kRingBytes) / shm::kPageBytes); }
static_assert(uint64_t{ring_page(kTileSlots)} * shm::kPageBytes <= shm::kPairBytes);

template <Noc N>
class Connection {
 public:
  // `out`: the region from here to the peer, `in`: from there to here; `slot` is below kTileSlots.
  Connection(N& noc, Doorbells<N>& bells, shm::PairView out, shm::PairView in, TileId peer, uint32_t slot)
      : noc_(noc),
        bells_(bells),
        peer_(peer),
        mine_(out.slot(slot)),
        theirs_(in.slot(slot)),
        producer_(out, mine_, &theirs_, head_seen_),
        consumer_(in, theirs_, mine_) {
    if (!producer_.has_ring()) producer_.switch_to(ring_page(slot), kRingLog2);
  }

  // Begins a connection to that listener. The peer sees it when it is rung, so with the first bytes.
  void begin(uint32_t listener) {
    mine_.listener = listener;
    mine_.generation.store(mine_.generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    writes(noc_, &mine_, sizeof mine_);
  }
  // The listener to which the peer has begun one, or 0.
  uint32_t begun() {
    reads(noc_, &theirs_, sizeof theirs_);
    return theirs_.generation.load(std::memory_order_acquire) != 0 ? theirs_.listener : 0;
  }

  // As many bytes as there is room for, announced. With less than all of them the peer will ring when there is room.
  std::size_t try_send(const std::byte* bytes, std::size_t n) {
    std::size_t sent = push(bytes, n);
    if (sent < n) {
      want(shm::kWantsSpaceEvent);
      sent += push(bytes + sent, n - sent);
      if (sent == n) want(0);
    }
    if (sent != 0) bells_.ring(peer_);
    return sent;
  }
  // No byte comes after those that were sent.
  void finish() {
    mine_.state.store(shm::kFin, std::memory_order_release);
    writes(noc_, &mine_.state, sizeof mine_.state);
    bells_.ring(peer_);
  }

  // As many bytes as there are, up to n; 0: none now; or -EPROTO.
  [[nodiscard]] int64_t try_receive(std::byte* bytes, std::size_t n) {
    int64_t received = 0;
    while (std::size_t(received) < n) {
      shm::Pieces<const std::byte> p;
      reads(noc_, &theirs_, shm::kCacheLine);
      if (const int error = consumer_.observe(p); error != 0) return error;
      std::size_t piece = p.first_bytes;
      if (piece > n - std::size_t(received)) piece = n - std::size_t(received);
      if (piece == 0) break;
      reads(noc_, p.first, piece);
      copy(bytes + received, p.first, piece);
      retire(piece);
      received += int64_t(piece);
    }
    return received;
  }
  // All bytes have been received, and there will be no more.
  bool is_at_end() {
    reads(noc_, &theirs_, shm::kCacheLine);
    const bool finished = (theirs_.state.load(std::memory_order_acquire) & shm::kFin) != 0;
    return finished && consumer_.available() == 0;
  }

 private:
  std::size_t push(const std::byte* bytes, std::size_t n) {
    std::size_t pushed = 0;
    while (pushed < n) {
      if (producer_.space(false) == 0) {
        reads(noc_, &theirs_.head, sizeof theirs_.head);
        if (producer_.space(true) == 0) break;
      }
      const shm::Pieces<std::byte> room = producer_.reserve(n - pushed);
      copy(room.first, bytes + pushed, room.first_bytes);
      writes(noc_, room.first, room.first_bytes);
      producer_.publish(room.first_bytes);
      writes(noc_, &mine_.tail, sizeof mine_.tail);
      pushed += room.first_bytes;
    }
    return pushed;
  }
  void want(uint32_t wants) {
    mine_.wants.store(wants, std::memory_order_relaxed);  // ordered by the fence
    writes(noc_, &mine_.wants, sizeof mine_.wants);
    noc_.fence();
  }
  void retire(std::size_t bytes) {
    consumer_.retire(bytes);
    writes(noc_, &mine_.head, sizeof mine_.head);
    noc_.fence();
    reads(noc_, &theirs_.wants, sizeof theirs_.wants);
    // Relaxed: ordered by the fence.
    if (theirs_.wants.load(std::memory_order_relaxed) & shm::kWantsSpaceEvent) bells_.ring(peer_);
  }
  // A word in each cycle, or two.
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
    __builtin_memcpy(to, from, bytes);
    spend(noc_, uint32_t(bytes / 4));
  }

  N& noc_;
  Doorbells<N>& bells_;
  const TileId peer_;
  shm::Slot& mine_;
  shm::Slot& theirs_;
  uint64_t head_seen_ = 0;
  shm::ByteProducer producer_;
  shm::ByteConsumer consumer_;
};

}  // namespace sluice::tilera
