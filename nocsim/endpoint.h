// What a tile has between its switch and its core: a demultiplexer that removes headers, and queues
// of words.
//
// One flit in a cycle goes from the switch to the queues. A queue without room blocks the
// demultiplexer, so also words for other queues, then the FIFO before it, then the mesh.
#pragma once

#include <deque>
#include <vector>

#include "nocsim/network.h"

namespace nocsim {

class Endpoint {
 public:
  explicit Endpoint(const Config& config)
      : queues_(config.queues), room_each_(config.queue_words), shared_(config.queues_share) {}

  // One cycle. Returns the queue that has got a word, or -1.
  int run(Network& network, Node node);

  size_t count(int queue) const { return queues_[queue].size(); }
  // The queues that have words, as bits.
  uint64_t available() const;
  uint64_t pop(int queue);
  // Throws away a word. False: there is none.
  bool drain_one();
  size_t words() const { return words_; }
  bool is_open() const { return vc_ >= 0; }
  // The most words that were in all queues together.
  size_t most_words() const { return most_words_; }

 private:
  bool has_room(int queue) const {
    return static_cast<int>(shared_ ? words_ : queues_[queue].size()) < room_each_;
  }

  std::vector<std::deque<uint64_t>> queues_;
  int room_each_;
  bool shared_;
  size_t words_ = 0;
  size_t most_words_ = 0;
  int vc_ = -1;  // of the packet that is arriving
  int last_vc_ = 0;
  int queue_ = 0;
};

}  // namespace nocsim
