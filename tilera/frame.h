// Messages as packets: the frame word (shm/noc_frame.h), then as many words as it says.
#pragma once

#include "shm/noc_frame.h"
#include "tilera/noc.h"

namespace sluice::tilera {

using shm::Frame;
using shm::Message;

// Each case is a packet of a fixed length, which a parameter pack makes plain writes.
template <Noc N>
void send_framed(N& noc, Word header, Frame frame, const Message& m) {
  const uint64_t* w = m.words;
  const Word first = frame.packed();
  switch (frame.words) {
    case 1:
      return noc.send(header, first, w[0]);
    case 2:
      return noc.send(header, first, w[0], w[1]);
    case 3:
      return noc.send(header, first, w[0], w[1], w[2]);
    case 4:
      return noc.send(header, first, w[0], w[1], w[2], w[3]);
    case 5:
      return noc.send(header, first, w[0], w[1], w[2], w[3], w[4]);
    case 6:
      return noc.send(header, first, w[0], w[1], w[2], w[3], w[4], w[5]);
    case 7:
      return noc.send(header, first, w[0], w[1], w[2], w[3], w[4], w[5], w[6]);
    default:  // none, or kInLine
      return noc.send(header, first);
  }
}

// A message in one packet.
template <Noc N>
void send_message(N& noc, TileId to, Queue queue, const Message& m) {
  send_framed(noc, noc.header(to, queue), shm::frame_of(m, shm::words_that_travel(m), noc.here()), m);
}

// The message that a frame begins. Of one that lies in memory, and of an impossible one, no word follows.
template <Queue kQueue, Noc N>
Message receive_rest(N& noc, Frame frame) {
  Message m{};
  m.type = uint16_t(frame.type);
  m.status = uint16_t(frame.status);
  m.id = frame.id;
  const uint32_t words = frame.words <= shm::kMessageWords ? frame.words : 0;
  for (uint32_t i = 0; i < words; ++i) m.words[i] = noc.template receive<kQueue>();
  return m;
}

}  // namespace sluice::tilera
