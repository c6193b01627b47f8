// The first word of every packet on a network-on-chip. The network strips its own header, so a receiver knows only
// what a packet says of itself: what it is, how many words follow, who sent it.
//
//     63        40 39      24 23      12 11    8 7      0
//    [     id     |  sender  |  status  | words |  type  ]
//
// A message (protocol.h) travels as this word and those of its words that are not zeros at the end: the receiver
// puts the zeros back. Or in memory, when it is longer than what its sender may send: kInLine.
//
// Trust: whoever may send to a queue can claim to be anybody. A transport with a place of its own for each sender
// compares; one without (a tile inside its hardwall) believes.
#pragma once

#include <bit>

#include "shm/layout.h"

namespace sluice::shm {

inline constexpr uint32_t kFrameStatuses = 1u << 12;  // errno is below
inline constexpr uint32_t kFrameSenders = 1u << 16;
inline constexpr uint32_t kFrameIds = 1u << 24;       // of a message's id only these travel
static_assert(kFrameSenders >= kMaxDomains && kFrameIds == kMessageIds);

// In place of a number of words: the message lies in the sender's line of memory, and is whole.
inline constexpr uint32_t kInLine = 15;
static_assert(kMessageWords < kInLine);

// The longest packet: this word and all those of a message.
inline constexpr uint32_t kFramedWords = 1 + kMessageWords;

struct Frame {
  uint32_t type = 0;    // below 256
  uint32_t words = 0;   // that follow, or kInLine
  uint32_t status = 0;
  uint32_t sender = 0;  // a tile, or a domain
  uint32_t id = 0;

  constexpr uint64_t packed() const {
    return (type & 0xffu) | (words & 0xfu) << 8 | (status & (kFrameStatuses - 1)) << 12 |
           uint64_t{sender & (kFrameSenders - 1)} << 24 | uint64_t{id & (kFrameIds - 1)} << 40;
  }
  static constexpr Frame unpacked(uint64_t word) {
    return {uint32_t(word) & 0xffu, uint32_t(word) >> 8 & 0xfu, uint32_t(word) >> 12 & (kFrameStatuses - 1),
            uint32_t(word >> 24) & (kFrameSenders - 1), uint32_t(word >> 40)};
  }
  // Whether `words` is a number that a message can have.
  constexpr bool is_plausible() const { return words <= kMessageWords || words == kInLine; }
};

// How many of a message's words have to travel. Without a branch for each: seven bits, of which the highest counts.
constexpr uint32_t words_that_travel(const Message& m) {
  uint32_t filled = 0;
#pragma GCC unroll 7
  for (uint32_t i = 0; i < kMessageWords; ++i) filled |= uint32_t{m.words[i] != 0} << i;
  return uint32_t(std::bit_width(filled));
}

constexpr Frame frame_of(const Message& m, uint32_t words, uint32_t sender) {
  return {m.type, words, m.status, sender, m.id};
}

}  // namespace sluice::shm
