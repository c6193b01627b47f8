#include "monitor/post.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <utility>

#include "shm/bell.h"
#include "shm/death_point.h"
#include "shm/futex.h"
#include "shm/wake.h"

namespace sluice::monitor {
namespace {

// A stopped server whose clients come and go by the thousand must not be dropped for it.
constexpr std::size_t kMostPackets = 16384;
constexpr std::size_t kMostFds = 1024;
constexpr std::size_t kMostBytes = 32u << 20;
constexpr std::size_t kMostLateReplies = 1024;
// The rest is for what we have to say ourselves.
constexpr std::size_t kMostPacketsOfOthers = kMostPackets / 4 * 3;
constexpr std::size_t kMostFdsOfOthers = kMostFds / 4 * 3;
constexpr std::size_t kMostFdsElsewhere = 256;

}  // namespace

// ---- packets ----------------------------------------------------------------------------

void Post::send(Client& to, const shm::Packet& packet, std::initializer_list<int> fds,
                std::string_view text) {
  send(to, packet, fds, text, 0);
}

bool Post::may_wait(const Client& from, const Client& to, std::size_t fds) {
  return to.outbox.size() < kMostPacketsOfOthers && to.outbox_fds + fds <= kMostFdsOfOthers &&
         from.fds_elsewhere + fds <= kMostFdsElsewhere;
}

bool Post::pass_on(Client& from, Client& to, const shm::Packet& packet, std::initializer_list<int> fds) {
  if (!may_wait(from, to, fds.size())) return false;
  send(to, packet, fds, {}, from.serial);
  return true;
}

void Post::send(Client& to, const shm::Packet& packet, std::initializer_list<int> fds, std::string_view text, uint32_t from) {
  if (to.doomed) return;
  deliver(to);  // what was answered before comes before
  Sent sent = Sent::kFull;
  if (to.outbox.empty()) sent = try_send(to.socket.get(), packet, fds.begin(), fds.size(), text);
  if (sent == Sent::kYes) return announce(to, packet);
  if (sent == Sent::kBroken) return clients_.doom(to);
  if (sent == Sent::kImpossible) return clients_.drop(to);
  queue(to, packet, fds, text, from);
}

void Post::watch(const Client& client) {
  events_.change(client.socket.get(), Source::kSocket, client.serial,
                 (client.paused ? 0u : EPOLLIN) | (client.outbox.empty() ? 0u : EPOLLOUT));
}

void Post::send_once(int socket, const shm::Packet& packet, std::initializer_list<int> fds) {
  (void)try_send(socket, packet, fds.begin(), fds.size(), {});
}

Post::Sent Post::try_send(int socket, const shm::Packet& packet, const int* fds,
                          std::size_t fd_count, std::string_view text) {
  iovec parts[2] = {{const_cast<shm::Packet*>(&packet), sizeof packet},
                    {const_cast<char*>(text.data()), text.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(shm::kMaxPacketFds * sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = text.empty() ? 1 : 2;
  if (fd_count != 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    *c = {CMSG_LEN(fd_count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
  }
  shm::DeathPoint at_message("packet sent", packet.type);
  ssize_t n;
  do n = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n >= 0) return Sent::kYes;
  // ETOOMANYREFS: too many descriptors are under way to this uid; they will arrive.
  bool full = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS;
  if (full) return Sent::kFull;
  return errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN ? Sent::kBroken : Sent::kImpossible;
}

void Post::queue(Client& to, const shm::Packet& packet, std::initializer_list<int> fds,
                 std::string_view text, uint32_t from) {
  OutPacket out{packet, std::string(text), {}, from};
  for (int fd : fds) {
    out.fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!out.fds.back()) return clients_.drop(to);  // what cannot be kept is said again when it comes back
  }
  to.outbox_bytes += text.size();
  to.outbox_fds += fds.size();
  if (to.outbox.size() >= kMostPackets || to.outbox_bytes > kMostBytes || to.outbox_fds > kMostFds)
    return clients_.drop(to);
  if (Client* f = from != 0 ? clients_.by_serial(from) : nullptr) f->fds_elsewhere += fds.size();
  to.outbox.push_back(std::move(out));
  if (to.outbox.size() == 1) watch(to);
}

void Post::flush(Client& to) {
  while (!to.outbox.empty() && !to.doomed) {
    OutPacket& out = to.outbox.front();
    int fds[shm::kMaxPacketFds];
    for (std::size_t i = 0; i < out.fds.size(); ++i) fds[i] = out.fds[i].get();
    Sent sent = try_send(to.socket.get(), out.header, fds, out.fds.size(), out.text);
    if (sent == Sent::kFull) return;
    if (sent == Sent::kBroken) return clients_.doom(to);
    if (sent == Sent::kImpossible) return clients_.drop(to);
    to.outbox_bytes -= out.text.size();
    to.outbox_fds -= out.fds.size();
    clients_.forget_waiting(out);
    shm::Packet sent_header = out.header;
    to.outbox.pop_front();
    announce(to, sent_header);
  }
  if (to.doomed) return;
  watch(to);
  if (to.leaving) clients_.doom(to);
}

void Post::dismiss(Client& client) {
  client.leaving = true;
  if (client.outbox.empty()) clients_.doom(client);
}

void Post::announce(Client& to, const shm::Packet& sent) {
  // Counted from the packet on that brings the counter.
  if (!to.reply_region || sent.type == shm::kWelcome) return;
  if (to.noc) return announce_over_noc(to);
  to.reply_region->packets.fetch_add(1, std::memory_order_release);
  wake(to);
}

void Post::announce_over_noc(Client& to) {
  bool had_owed = to.noc->owes_doorbells();
  to.noc->owe_doorbell();
  if (to.noc->ring_doorbells()) wake(to);
  if (!had_owed && to.noc->owes_doorbells()) late_.push_back(to.serial);
}

// For something else than a reply.
void Post::wake(Client& to) {
  knock(to);
  shm::sleep_wake_fence();
  bool sleeps = to.region->sleeping.load(std::memory_order_acquire) & 1;
  if (sleeps) ring(to);
}

// Threads that wait for a reply or a packet wait on the doorbell, and say so before.
void Post::knock(Client& to) {
  to.reply_region->doorbell.fetch_add(1, std::memory_order_release);
  shm::sleep_wake_fence();
  if (to.region->waiters.load(std::memory_order_relaxed) != 0)  // ordered by the fence
    shm::futex_wake(to.reply_region->doorbell);
}

// ---- replies ----------------------------------------------------------------------------

void Post::reply(Client& to, const shm::Message& message) {
  if (to.doomed || !to.reply_region) return;
  shm::DeathPoint at_message("reply", message.type);
  if (to.noc) to.noc->count_reply();
  if (to.late_replies.empty() && to.try_stage(message)) {
    if (!std::exchange(to.has_staged, true)) staged_.push_back(to.serial);
    return;
  }
  if (to.late_replies.empty()) late_.push_back(to.serial);
  if (to.late_replies.size() >= kMostLateReplies) return clients_.drop(to);
  to.late_replies.push_back(message);
}

void Post::deliver(Client& to) {
  if (!std::exchange(to.has_staged, false)) return;
  to.publish();
  knock(to);
}

void Post::deliver_all() {
  for (uint32_t serial : staged_)
    if (Client* to = clients_.by_serial(serial)) deliver(*to);
  staged_.clear();
}

void Post::deliver_late_replies() {
  std::erase_if(late_, [this](uint32_t serial) {
    Client* to = clients_.by_serial(serial);
    if (to == nullptr) return true;
    while (!to->late_replies.empty() && to->try_stage(to->late_replies.front())) {
      to->late_replies.pop_front();
      to->has_staged = true;
    }
    deliver(*to);
    if (to->noc && to->noc->ring_doorbells()) wake(*to);
    return to->late_replies.empty() && !(to->noc && to->noc->owes_doorbells());
  });
}

// ---- bells ------------------------------------------------------------------------------

void Post::ring(Client& client) {
  if (!client.bell) return;
  shm::ring_bell(client.bell.get());
  ++bells_;
}

}  // namespace sluice::monitor
