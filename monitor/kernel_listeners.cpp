#include "monitor/kernel_listeners.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <stdexcept>
#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor {
namespace {

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 query;
};

bool ask_for(int netlink, uint8_t family, uint16_t port) {
  Request r{};
  r.header = {sizeof r, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0};
  r.query.sdiag_family = family;
  r.query.sdiag_protocol = IPPROTO_TCP;
  r.query.idiag_states = 1u << TCP_LISTEN;
  r.query.id.idiag_sport = htons(port);
  return send(netlink, &r, sizeof r, 0) == sizeof r;
}

core::Address address_of(const inet_diag_msg& m) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(m.id.idiag_src);
  if (m.idiag_family == AF_INET) return core::v4(bytes[0], bytes[1], bytes[2], bytes[3]);
  core::Address a;
  memcpy(a.bytes, bytes, sizeof a.bytes);
  return a;
}

std::optional<bool> is_listening(int netlink, uint8_t family, uint32_t uid,
                                 const core::Address& address, uint16_t port) {
  if (!ask_for(netlink, family, port)) return std::nullopt;
  alignas(nlmsghdr) char buffer[16384];
  bool found = false;
  for (;;) {
    ssize_t n = recv(netlink, buffer, sizeof buffer, 0);
    if (n <= 0) return std::nullopt;
    auto left = uint32_t(n);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(h, left);
         h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_DONE) return found;
      if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY) return std::nullopt;
      const auto& m = *static_cast<const inet_diag_msg*>(NLMSG_DATA(h));
      // Root may have been given another user's.
      found |= (uid == 0 || m.idiag_uid == uid) && ntohs(m.id.idiag_sport) == port && address_of(m) == address;
    }
  }
}

}  // namespace

namespace {

Descriptor netlink_socket() { return Descriptor(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)); }

// A socket stays in the namespace in which it was made: only that is done there.
Descriptor netlink_socket_in(uint64_t netns, int32_t pid) {
  std::string path = "/proc/" + std::to_string(pid) + "/ns/net";
  Descriptor theirs(open(path.c_str(), O_RDONLY | O_CLOEXEC)), ours(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  struct stat st;
  bool same = theirs && ours && fstat(theirs.get(), &st) == 0 && st.st_ino == netns;
  if (!same || setns(theirs.get(), CLONE_NEWNET) != 0) return {};
  Descriptor netlink = netlink_socket();
  // There is nothing sensible to do in a strange namespace.
  if (setns(ours.get(), CLONE_NEWNET) != 0) throw std::runtime_error("cannot return to the network namespace");
  return netlink;
}

std::optional<bool> is_listening_by(const Descriptor& netlink, uint32_t uid, const core::Address& address, uint16_t port) {
  if (!netlink) return std::nullopt;
  std::optional<bool> result;
  // A v4 address may be bound by a v6 socket too.
  for (uint8_t family : {uint8_t(AF_INET), uint8_t(AF_INET6)}) {
    if (family == AF_INET && !core::is_v4(address)) continue;
    auto here = is_listening(netlink.get(), family, uid, address, port);
    if (here.has_value()) result = result.value_or(false) || *here;
    if (result.value_or(false)) return true;
  }
  return result;
}

}  // namespace

std::optional<bool> is_listening(uint32_t uid, const core::Address& address, uint16_t port) {
  return is_listening_by(netlink_socket(), uid, address, port);
}

std::optional<bool> is_listening_in(uint64_t netns, int32_t pid, uint32_t uid, const core::Address& address, uint16_t port) {
  return is_listening_by(netlink_socket_in(netns, pid), uid, address, port);
}

}  // namespace sluice::monitor
