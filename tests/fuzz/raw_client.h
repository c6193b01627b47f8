// A client that speaks the protocol by itself, without the shim: as it should, as far as these functions go.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "shm/layout.h"
#include "shm/message_ring.h"
#include "shm/protocol.h"
#include "shm/demux_queue.h"
#include "shm/shared_queue.h"

namespace sluice::fuzz {

class RawClient {
 public:
  RawClient() = default;
  RawClient(const RawClient&) = delete;
  ~RawClient();

  bool connect(const std::string& directory);
  // `memory`, `bell`: others than its own, or -1.
  bool hello(shm::DomainId wanted = 0, int memory = -1, int bell = -1, uint32_t version = shm::kProtocolVersion);

  bool send(const shm::Packet& p, std::initializer_list<int> fds = {}, const void* body = nullptr, std::size_t body_bytes = 0);
  // Waits a moment. Closes descriptors that `fds` does not want.
  bool receive(shm::Packet& p, std::vector<int>* fds = nullptr, int wait_ms = 200);
  // Until a packet of this type comes; regions of peers that come meanwhile are taken.
  bool await(uint16_t type, shm::Packet& p, std::vector<int>* fds = nullptr);
  bool push(const shm::Message& m);
  bool ask(shm::Message& m);
  // As a packet of a network-on-chip, in the name of `sender`.
  bool push_framed(const shm::Message& m, shm::DomainId sender);
  bool uses_noc() const { return kind_ == shm::kNocQueue; }

  // A region that `peer` reads, made known to it. False: refused.
  bool open_pair(shm::DomainId peer, uint32_t generation);
  // A connection to `listener` in the pair, announced as the shim does it.
  void begin_connection(uint32_t slot, uint32_t listener, uint16_t port);
  void push_ready(uint32_t slot);
  void ring_peer() const;

  static shm::Packet packet(uint16_t type, shm::DomainId domain = 0, uint32_t value = 0, uint32_t value2 = 0, uint32_t reserved = 0) {
    return {shm::kMagic, shm::kProtocolVersion, type, 0, domain, value, value2, reserved};
  }

  int socket = -1;
  shm::DomainId self = 0;
  shm::ClientRegion* region = nullptr;
  const shm::ReplyRegion* replies = nullptr;
  shm::SharedQueueRegion* queue = nullptr;
  shm::PairView out, in;
  shm::DomainId peer = 0;
  uint32_t generation = 0;
  int pair_memory = -1, peers_bell = -1, summons = -1;
  int bell[2] = {-1, -1};

 private:
  int make_client_memory();
  bool try_receive(shm::Message& reply);
  void take_peer_region(const shm::Packet& p, std::vector<int>& fds);

  shm::MessageProducer producer_;
  shm::MessageConsumer consumer_;
  shm::SharedProducer shared_;
  shm::DemuxProducer demux_requests_;  // without a thought for credits
  shm::DemuxConsumer demux_replies_;
  uint32_t kind_ = shm::kDividedQueue;
  uint64_t ready_ = 0;
};

}  // namespace sluice::fuzz
