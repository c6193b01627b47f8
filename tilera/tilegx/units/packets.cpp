// What the network's primitives become: rules.py looks at these functions, by name.
#include "tilera/frame.h"
#include "tilera/tilegx_noc.h"

namespace sluice::tilera {

extern "C" {

void send_three_words(TileGxNoc& noc, Word header, Word a, Word b, Word c) { noc.send(header, a, b, c); }
void send_seven_words(TileGxNoc& noc, Word header, const Word* w) {
  noc.send(header, w[0], w[1], w[2], w[3], w[4], w[5], w[6]);
}

Word receive_request(TileGxNoc& noc) { return noc.receive<kRequests>(); }
Word receive_reply(TileGxNoc& noc) { return noc.receive<kReplies>(); }
Word receive_doorbell(TileGxNoc& noc) { return noc.receive<kDoorbells>(); }
Word receive_control(TileGxNoc& noc) { return noc.receive<kControl>(); }

Word look_at_queues(TileGxNoc& noc) { return noc.available(); }
uint32_t count_requests(TileGxNoc& noc) { return noc.count<kRequests>(); }
uint64_t read_cycle(TileGxNoc& noc) { return noc.cycle(); }

// What lies in memory is there before the word that tells of it.
void store_and_tell(TileGxNoc& noc, Word header, Word* at, Word value) {
  *at = value;
  noc.fence();
  noc.send(header, value);
}
// And is read only after that word has come.
Word hear_and_load(TileGxNoc& noc, const Word* at) {
  Word told = noc.receive<kDoorbells>();
  return told + *at;
}
// The compiler, which knows nothing of the network, would take either of the two for one.
void store_send_store(TileGxNoc& noc, Word header, Word* at, Word value) {
  *at = value;
  noc.send(header, value);
  *at = 0;
}
Word load_receive_load(TileGxNoc& noc, const Word* at) {
  Word before = *at;
  Word told = noc.receive<kDoorbells>();
  return before + told + *at;
}

void send_a_message(TileGxNoc& noc, TileId to, const Message& m) { send_message(noc, to, kRequests, m); }
void receive_a_message(TileGxNoc& noc, Message& m) {
  m = receive_rest<kReplies>(noc, Frame::unpacked(noc.receive<kReplies>()));
}

}  // extern "C"

}  // namespace sluice::tilera
