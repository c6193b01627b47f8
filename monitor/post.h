// Everything that goes out to clients: packets, replies, bells. Never blocks: what does not fit
// waits in a bounded queue, and a client that lets it overflow is dropped.
#pragma once

#include <initializer_list>
#include <string_view>

#include "monitor/clients.h"
#include "monitor/events.h"

namespace sluice::monitor {

class Post {
 public:
  Post(Events& events, Clients& clients) : events_(events), clients_(clients) {}

  // The descriptors stay the caller's.
  void send(Client& to, const shm::Packet& packet, std::initializer_list<int> fds = {},
            std::string_view text = {});
  // What `from` wants `to` to have. False: it is not sent, because too much of that waits already, so that nobody can
  // make us drop another client, or keep descriptors for it without bound.
  [[nodiscard]] bool pass_on(Client& from, Client& to, const shm::Packet& packet, std::initializer_list<int> fds);
  static bool may_wait(const Client& from, const Client& to, std::size_t fds);
  // What to wait for on its socket.
  void watch(const Client& client);
  // To a socket that is no client's; nothing if it takes nothing.
  static void send_once(int socket, const shm::Packet& packet, std::initializer_list<int> fds);
  // The socket takes packets again.
  void flush(Client& to);
  // Sends what is queued, then closes.
  void dismiss(Client& client);

  void reply(Client& to, const shm::Message& message);
  // Makes the replies since the last time readable, to one client or to all: a batch costs as much as one.
  void deliver(Client& to);
  void deliver_all();
  // Tries again to deliver replies, and doorbells, that did not fit.
  void deliver_late_replies();
  bool has_late_replies() const { return !late_.empty(); }

  // For threads that wait for something in its reply region.
  static void knock(Client& to);
  void ring(Client& client);
  uint64_t bells() const { return bells_; }

 private:
  enum class Sent { kYes, kFull, kBroken, kImpossible };  // the last: for want of something here
  static Sent try_send(int socket, const shm::Packet& packet, const int* fds,
                       std::size_t fd_count, std::string_view text);
  void send(Client& to, const shm::Packet& packet, std::initializer_list<int> fds, std::string_view text, uint32_t from);
  void queue(Client& to, const shm::Packet& packet, std::initializer_list<int> fds,
             std::string_view text, uint32_t from);
  void announce(Client& to, const shm::Packet& sent);
  void announce_over_noc(Client& to);
  void wake(Client& to);

  Events& events_;
  Clients& clients_;
  std::vector<uint32_t> staged_;  // serials of clients with replies that are not published
  std::vector<uint32_t> late_;  // serials of clients with late replies, or doorbells
  uint64_t bells_ = 0;
};

inline shm::Packet make_packet(shm::PacketType type, DomainId domain = 0, uint32_t value = 0,
                               uint32_t value2 = 0, int status = 0) {
  return {shm::kMagic, shm::kProtocolVersion, type, uint16_t(status), domain, value, value2, 0};
}

}  // namespace sluice::monitor
