#include "monitor/bench/request_client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "monitor/run_directory.h"
#include "shm/bell.h"
#include "shm/protocol.h"
#include "shm/region.h"
#include "shm/wake.h"

namespace sluice::monitor::bench {
namespace {

struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(shm::kMaxPacketFds * sizeof(int))] = {};
};

msghdr message_of(iovec& bytes, Control& control, std::size_t control_bytes) {
  msghdr m{};
  m.msg_iov = &bytes;
  m.msg_iovlen = 1;
  m.msg_control = control.bytes;
  m.msg_controllen = control_bytes;
  return m;
}

std::string failed(const char* what) { return std::string(what) + ": " + strerror(errno); }

}  // namespace

std::string RequestClient::connect(const std::string& directory) {
  std::string problem = say_hello(directory);
  return problem.empty() ? take_welcome() : problem;
}

std::string RequestClient::say_hello(const std::string& directory) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::string path = socket_path(directory);
  if (path.size() >= sizeof a.sun_path) return path + ": too long";
  memcpy(a.sun_path, path.c_str(), path.size());
  socket_ = Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (::connect(socket_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) return failed(path.c_str());
  Descriptor memory(shm::create_region("sluice-client", shm::kClientBytes));
  void* base = shm::map_writable(memory.get(), shm::kClientBytes);
  if (base == nullptr || shm::seal_region(memory.get(), shm::Protect::kRegions) != 0) return failed("a client region");
  region_ = {base, shm::kClientBytes};
  region_->magic = shm::kMagic;
  region_->version = shm::kProtocolVersion;
  int bell[2];  // nobody has news for us
  if (socketpair(AF_UNIX, shm::kBellType | SOCK_CLOEXEC, 0, bell) != 0) return failed("a bell");
  shm::init_bell(bell);
  hearing_ = Descriptor(bell[0]);
  bell_ = Descriptor(bell[1]);

  shm::Packet hello{shm::kMagic, shm::kProtocolVersion, shm::kHello, 0, shm::kNobody, 0, 0, 0};
  int fds[2] = {memory.get(), bell_.get()};
  iovec iov{&hello, sizeof hello};
  Control control;
  msghdr m = message_of(iov, control, CMSG_SPACE(sizeof fds));
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  *c = {CMSG_LEN(sizeof fds), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(c), fds, sizeof fds);
  return sendmsg(socket_.get(), &m, MSG_NOSIGNAL) == sizeof hello ? "" : failed("hello");
}

std::string RequestClient::take_welcome() {
  shm::Packet welcome{};
  iovec iov{&welcome, sizeof welcome};
  Control control;
  msghdr m = message_of(iov, control, sizeof control.bytes);
  if (recvmsg(socket_.get(), &m, MSG_CMSG_CLOEXEC) != sizeof welcome) return failed("no welcome");
  Descriptor fds[shm::kMaxPacketFds];
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  std::size_t count = c != nullptr ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
  for (std::size_t i = 0; i < count; ++i) {
    int fd;
    memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
    fds[i] = Descriptor(fd);
  }
  if (welcome.status != 0 || count < 3) return "the coordinator refuses: " + std::string(strerror(welcome.status));
  auto map = [](auto& mapping, auto* base, std::size_t bytes) {
    mapping = {const_cast<void*>(static_cast<const void*>(base)), bytes};
    return base != nullptr;
  };
  bool mapped = map(reply_region_, shm::map_readable(fds[0].get(), shm::kReplyBytes), shm::kReplyBytes) &&
                map(directory_, shm::map_readable(fds[1].get(), shm::kDirectoryBytes), shm::kDirectoryBytes);
  coordinators_bell_ = std::move(fds[2]);
  if (mapped && shm::has_shared_queue(welcome.value))
    mapped = count > 3 && map(queue_, shm::map_writable(fds[3].get(), shm::kSharedQueueBytes), shm::kSharedQueueBytes);
  if (!mapped) return failed("the coordinator's regions");
  requests_ = {shm::RequestQueue(welcome.value), *region_, *reply_region_, queue_.get(), welcome.domain};
  return {};
}

void RequestClient::flush() {
  while (!requests_.publish()) shm::cpu_relax();
  shm::sleep_wake_fence();
  if ((directory_->sleeping.load(std::memory_order_relaxed) & 1) == 0) return;  // ordered by the fence
  uint64_t one = 1;
  (void)!write(coordinators_bell_.get(), &one, sizeof one);
}

}  // namespace sluice::monitor::bench
