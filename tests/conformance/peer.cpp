#include "peer.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "sockets.h"

namespace conformance {

constexpr size_t kMailboxBytes = 65536;

enum class PeerOrder {
  kConnect,
  kAccept,
  kSend,
  kReceive,
  kReceiveError,
  kShutdown,
  kClose,
  kReset,
  kFill,
  kSendPattern,
  kReceivePattern,
  kEcho,
  kLocalAddress,
  kPeerAddress
};

struct Mailbox {
  sem_t order_posted;
  sem_t reply_posted;
  PeerOrder order;
  int64_t a, b;
  int64_t result;
  size_t size;
  char bytes[kMailboxBytes];
};

namespace {

int receive_up_to(Mailbox& mailbox, int fd, size_t count) {
  mailbox.size = 0;
  while (mailbox.size < count) {
    ssize_t n = recv(fd, mailbox.bytes + mailbox.size, count - mailbox.size, 0);
    if (n < 0) return -errno;
    if (n == 0) break;
    mailbox.size += n;
  }
  return 0;
}

int send_mail(Mailbox& mailbox, int fd) {
  for (size_t sent = 0; sent < mailbox.size;) {
    ssize_t n = send(fd, mailbox.bytes + sent, mailbox.size - sent, MSG_NOSIGNAL);
    if (n < 0) return -errno;
    sent += n;
  }
  return 0;
}

int echo(Mailbox& mailbox, int fd) {
  for (;;) {
    ssize_t n = recv(fd, mailbox.bytes, kMailboxBytes, 0);
    if (n <= 0) return n ? -errno : 0;
    mailbox.size = n;
    if (int error = send_mail(mailbox, fd)) return error;
  }
}

int one_receive_error(int fd) {
  char byte;
  return recv(fd, &byte, 1, 0) < 0 ? errno : 0;
}

void post(sem_t& semaphore) { CHECK_OK(sem_post(&semaphore)); }

void await(sem_t& semaphore) {
  while (sem_wait(&semaphore) < 0) CHECK_EQ(errno, EINTR);
}

int put_text(Mailbox& mailbox, const std::string& text) {
  mailbox.size = text.copy(mailbox.bytes, kMailboxBytes);
  return 0;
}

// The listener stays open. Answers twice: the port, then that a connection was accepted.
int accept_one(Mailbox& mailbox, int& fd) {
  Listener listener = make_listener(mailbox.a);
  mailbox.result = listener.port;
  post(mailbox.reply_posted);
  fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  return 0;
}

int64_t obey(Mailbox& mailbox, int& fd) {
  using Order = PeerOrder;
  switch (mailbox.order) {
    case Order::kConnect:
      fd = connect_to(mailbox.a, mailbox.b);
      return 0;
    case Order::kAccept:
      return accept_one(mailbox, fd);
    case Order::kSend:
      return send_mail(mailbox, fd);
    case Order::kReceive:
      return receive_up_to(mailbox, fd, mailbox.a);
    case Order::kReceiveError:
      return one_receive_error(fd);
    case Order::kShutdown:
      return ::shutdown(fd, mailbox.a) < 0 ? -errno : 0;
    case Order::kClose:
      return ::close(fd) < 0 ? -errno : 0;
    case Order::kReset:
      reset(fd);
      return 0;
    case Order::kFill: {
      set_nonblocking(fd);
      size_t filled = fill(fd);
      set_nonblocking(fd, false);
      return filled;
    }
    case Order::kSendPattern:
      return send_pattern(fd, mailbox.a, mailbox.b);
    case Order::kReceivePattern:
      return receive_pattern(fd, mailbox.a, mailbox.b);
    case Order::kEcho:
      return echo(mailbox, fd);
    case Order::kLocalAddress:
      return put_text(mailbox, local_address(fd).text());
    case Order::kPeerAddress:
      return put_text(mailbox, peer_address(fd).text());
  }
  return -ENOSYS;
}

[[noreturn]] void serve(Mailbox& mailbox) {
  for (int fd = -1;;) {
    await(mailbox.order_posted);
    mailbox.result = obey(mailbox, fd);
    post(mailbox.reply_posted);
  }
}

Mailbox* map_mailbox(int fd) {
  void* memory = mmap(nullptr, sizeof(Mailbox), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK_TRUE(memory != MAP_FAILED);
  return static_cast<Mailbox*>(memory);
}

}  // namespace

PROGRAM(peer) {
  Mailbox* mailbox = map_mailbox(std::stoi(args[0]));
  CHECK_OK(close(std::stoi(args[0])));
  serve(*mailbox);
}

static Peer create_peer(bool as_program) {
  int fd = CHECK_OK(memfd_create("mailbox", 0));
  CHECK_OK(ftruncate(fd, sizeof(Mailbox)));
  Mailbox* mailbox = map_mailbox(fd);
  CHECK_OK(sem_init(&mailbox->order_posted, 1, 0));
  CHECK_OK(sem_init(&mailbox->reply_posted, 1, 0));
  pid_t pid = as_program ? spawn_program("peer", {std::to_string(fd)}, {fd}) : 0;
  CHECK_OK(close(fd));
  if (!as_program) std::thread([mailbox] { serve(*mailbox); }).detach();
  return Peer(mailbox, pid);
}

static Connection accept_peer(Peer peer, int family) {
  Listener listener = make_listener(family);
  peer.post(PeerOrder::kConnect, listener.port, family);
  int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_OK(close(listener.fd));
  CHECK_EQ(peer.reply(), 0);
  return {fd, peer};
}

static Connection connect_to_peer(Peer peer, int family) {
  peer.post(PeerOrder::kAccept, family);
  uint16_t port = peer.reply();
  int fd = connect_to(port, family);
  CHECK_EQ(peer.reply(), 0);
  return {fd, peer};
}

Connection connect_peer(Where where, int family) {
  Peer peer = create_peer(where != Where::kSameProcess);
  return where == Where::kPeerAccepts ? connect_to_peer(peer, family) : accept_peer(peer, family);
}

Peer spawn_client(uint16_t port, int family) {
  Peer peer = create_peer(true);
  peer.post(PeerOrder::kConnect, port, family);
  return peer;
}

Peer spawn_peer() { return create_peer(true); }

void Peer::post(PeerOrder order, int64_t a, int64_t b) {
  mailbox_->order = order;
  mailbox_->a = a;
  mailbox_->b = b;
  conformance::post(mailbox_->order_posted);
}

int64_t Peer::reply() {
  for (;;) {
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (sem_timedwait(&mailbox_->reply_posted, &until) == 0) return mailbox_->result;
    siginfo_t info{};
    if (process_ && waitid(P_PID, process_, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
      fail(__FILE__, __LINE__, "the peer died, status " + std::to_string(info.si_status));
  }
}

int64_t Peer::call(PeerOrder order, int64_t a, int64_t b) {
  post(order, a, b);
  return reply();
}

void Peer::send(std::string_view bytes) {
  CHECK_TRUE(bytes.size() <= kMailboxBytes);
  memcpy(mailbox_->bytes, bytes.data(), bytes.size());
  mailbox_->size = bytes.size();
  CHECK_EQ(call(PeerOrder::kSend), 0);
}

std::string Peer::receive(size_t count) {
  CHECK_TRUE(count <= kMailboxBytes);
  CHECK_EQ(call(PeerOrder::kReceive, count), 0);
  return std::string(mailbox_->bytes, mailbox_->size);
}

int Peer::receive_error() { return call(PeerOrder::kReceiveError); }

void Peer::shutdown(int how) { CHECK_EQ(call(PeerOrder::kShutdown, how), 0); }
void Peer::close() { CHECK_EQ(call(PeerOrder::kClose), 0); }
void Peer::reset() { CHECK_EQ(call(PeerOrder::kReset), 0); }
size_t Peer::fill() { return call(PeerOrder::kFill); }

std::string Peer::local_address() {
  CHECK_EQ(call(PeerOrder::kLocalAddress), 0);
  return std::string(mailbox_->bytes, mailbox_->size);
}

std::string Peer::peer_address() {
  CHECK_EQ(call(PeerOrder::kPeerAddress), 0);
  return std::string(mailbox_->bytes, mailbox_->size);
}

uint16_t Peer::start_accepting() {
  post(PeerOrder::kAccept, AF_INET);
  return reply();
}

void Peer::start_sending(uint64_t total, size_t chunk) {
  post(PeerOrder::kSendPattern, total, chunk);
}
void Peer::start_receiving(uint64_t total, size_t chunk) {
  post(PeerOrder::kReceivePattern, total, chunk);
}
void Peer::start_echo() { post(PeerOrder::kEcho); }
int Peer::finish() { return reply(); }

void Peer::kill() {
  CHECK_OK(::kill(process_, SIGKILL));
  CHECK_EQ(wait_exit(process_), 128 + SIGKILL);
}

}  // namespace conformance
