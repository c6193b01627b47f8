// Everybody connected to the coordinator's socket.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "monitor/descriptor.h"
#include "monitor/mapping.h"
#include "shm/message_ring.h"
#include "shm/noc_queues.h"
#include "shm/protocol.h"

namespace sluice::monitor {

using shm::DomainId;

struct OutPacket {
  shm::Packet header;
  std::string text;
  std::vector<Descriptor> fds;
  uint32_t from = 0;  // serial of the client whose wish it is; 0: nobody's
};

enum class Stage {
  kStranger,  // has not said who it is; perhaps only wants a text
  kReserved,  // the future channel of a child that is being forked
  kWelcomed,  // a registered domain
};

struct Client {
  uint32_t serial = 0;
  Stage stage = Stage::kStranger;
  bool doomed = false;   // to be buried at the end of this round
  bool lives = false;    // doomed for want of something of ours, and to come back
  bool leaving = false;  // to be doomed once its packets are out
  Descriptor socket;
  uint32_t uid = 0;  // of the peer at connect
  int32_t pid = 0;   // likewise; of the child once a reserved one has said hello
  std::string program;  // its executable when it registered; a child's is its parent's. Empty: not known
  bool paused = false;  // its user has asked too much: nothing is received from it
  std::optional<std::vector<uint32_t>> groups;  // of a forked child's parent; else the socket tells

  DomainId domain = shm::kNobody;
  Descriptor bell;     // rings the client
  Descriptor summons;  // the client rings us
  Descriptor process;  // pidfd
  Mapping<const shm::ClientRegion> region;
  Mapping<shm::ReplyRegion> reply_region;
  shm::MessageConsumer requests;
  shm::MessageProducer replies;
  std::unique_ptr<shm::NocServer> noc;  // in the place of these two, with kNocQueue
  uint64_t served_divided = 0, served_shared = 0, served_noc = 0;  // requests, by the way on which they came
  bool has_staged = false;                // replies that are not published yet
  std::deque<shm::Message> late_replies;  // did not fit the reply ring
  std::deque<OutPacket> outbox;           // did not fit the socket
  std::vector<OutPacket> kept;            // for when it says hello
  std::size_t outbox_bytes = 0;
  std::size_t outbox_fds = 0;
  std::size_t fds_elsewhere = 0;  // that wait in others' outboxes and `kept`, because of this one

  void keep(const shm::Packet& packet, int fd, uint32_t from);
  bool try_stage(const shm::Message& reply) { return noc ? noc->try_stage(reply) : replies.try_stage(reply); }
  void publish() { return noc ? noc->publish() : replies.publish(); }
  // A number of open ends as the client tells it: it may lie, or be between two steps.
  uint64_t open_ends(shm::Counter counter) const;
};

// The groups that it came with.
std::vector<uint32_t> groups_of(const Client& client);

class Clients {
 public:
  Client& add(Descriptor socket, uint32_t uid, int32_t pid);
  void remove(Client& client);

  std::size_t size() const { return by_serial_.size(); }
  // Null when there is none.
  Client* by_serial(uint32_t serial);
  Client* by_domain(DomainId domain);
  void enter_domain(Client& client, DomainId domain);

  // The client misbehaved or ended. It is buried later: callers may still hold it.
  void doom(Client& client);
  // The same of one that has done nothing wrong: there is not what it takes to go on with it. It will register again under
  // its id, and nobody is told that it is dead, which it is not.
  void drop(Client& client);
  Client* next_doomed();
  bool has_doomed() const { return !doomed_.empty(); }

  // Whether this user may have another connection.
  bool has_room_for(uint32_t uid) const;
  // Descriptors that waited on somebody's behalf do no longer.
  void forget_waiting(const OutPacket& packet);
  template <class Visit>
  void for_each(Visit visit) {
    for (auto& [serial, client] : by_serial_) visit(*client);
  }

 private:
  uint32_t next_serial_ = 1;
  std::unordered_map<uint32_t, std::unique_ptr<Client>> by_serial_;
  std::vector<Client*> by_domain_ = std::vector<Client*>(shm::kMaxDomains);
  std::unordered_map<uint32_t, uint32_t> connections_of_;
  std::vector<uint32_t> doomed_;
};

}  // namespace sluice::monitor
