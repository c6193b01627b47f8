#include "monitor/name_service.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <algorithm>

#include "monitor/process.h"

namespace sluice::monitor {
namespace {

constexpr unsigned long kOpenFile = 0x89e0;  // SIOCUNIXFILE of <linux/un.h>
constexpr std::size_t kMostKept = 64;
constexpr std::size_t kMostExpected = 16;  // domains for which something is kept: descriptors are few

int int_option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

bool is_listener(int fd) { return int_option(fd, SO_DOMAIN) == AF_UNIX && int_option(fd, SO_ACCEPTCONN) == 1; }

// Of sun_path, without the zero at the end of a path. Empty: not bound.
std::string bound_name(int fd) {
  sockaddr_un a{};
  socklen_t size = sizeof a;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0) return {};
  size = std::min<socklen_t>(size, sizeof a);
  if (size <= offsetof(sockaddr_un, sun_path)) return {};
  std::size_t n = size - offsetof(sockaddr_un, sun_path);
  return {a.sun_path, a.sun_path[0] == 0 ? n : strnlen(a.sun_path, n)};
}

bool is_in_group(const Client& client, uint32_t gid) {
  std::vector<uint32_t> groups = groups_of(client);
  return std::find(groups.begin(), groups.end(), gid) != groups.end();
}

// As fstat(2), without asking whoever serves the file system of a client's file (fuse(4)): he need not answer.
bool look_at(int file, struct stat& st) {
  struct statx x;
  if (statx(file, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &x) != 0) return false;
  st = {};
  st.st_dev = makedev(x.stx_dev_major, x.stx_dev_minor);
  st.st_ino = x.stx_ino;
  st.st_mode = x.stx_mode;
  st.st_uid = x.stx_uid;
  st.st_gid = x.stx_gid;
  return true;
}

// Beyond the mode there may be a list of rights: that is too fine for us.
bool has_access_list(int file) {
  std::string path = "/proc/self/fd/" + std::to_string(file);
  return getxattr(path.c_str(), "system.posix_acl_access", nullptr, 0) > 0;
}

// As the kernel has it for connect(2): the right to write. In doubt not, and the kernel decides.
bool may_write(const Client& client, const InPacket& packet, const struct stat& st) {
  if (packet.uid == 0 && has_capability(packet.pid, CAP_DAC_OVERRIDE)) return true;
  if (packet.uid == st.st_uid) return (st.st_mode & S_IWUSR) != 0;
  // The groups are those that it came with; of somebody that it became later they may not be.
  bool in_group = packet.gid == st.st_gid || (packet.uid == client.uid && is_in_group(client, st.st_gid));
  bool became = packet.uid != client.uid;
  if (became && (st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_IWGRP) == 0) return false;
  return (st.st_mode & (in_group ? S_IWGRP : S_IWOTH)) != 0;
}

shm::UnixKey key_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

}  // namespace

// ---- listening ----------------------------------------------------------------------------

void NameService::listen(Client& client, InPacket& packet) {
  core::ListenerId id = 0;
  int error = open_listener(client, packet, id);
  post_.send(client, make_packet(shm::kListening, shm::kCoordinator, id, 0, error));
}

int NameService::open_listener(const Client& client, InPacket& packet, core::ListenerId& id) {
  if (client.stage != Stage::kWelcomed) return EPERM;
  Name name;
  if (int error = identify(client, packet, name); error != 0) return error;
  if (int error = core_.may_listen_at(client.domain, name.bytes); error != 0) return error;
  shm::AcceptorRole role = packet.header.value2 == 1 ? shm::AcceptorRole::kOnly : shm::AcceptorRole::kHolder;
  id = core_.listen_name(client.domain, name.key, packet.header.value, role);
  if (id == 0) return ENOSPC;
  names_.put(id, std::move(name));
  return 0;
}

int NameService::identify(const Client& client, InPacket& packet, Name& name) {
  if (packet.fds.empty() || !is_listener(packet.fds[0].get())) return EINVAL;
  int fd = packet.fds[0].get();
  name.netns = netns_of(client);
  name.type = int_option(fd, SO_TYPE);
  name.bytes = bound_name(fd);
  socklen_t size = sizeof name.listener;
  if (name.bytes.empty() || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &name.listener, &size) != 0) return EINVAL;
  if (name.bytes[0] == 0) {
    name.key = names_.key_for(name.bytes, name.netns, name.type);
    return 0;
  }
  name.file = Descriptor(ioctl(fd, kOpenFile));
  // Where the kernel does not tell us: a user can only mislead himself, and root nobody.
  bool believed = client.uid == 0 || client.uid == geteuid();
  if (!name.file && packet.fds.size() > 1 && believed) name.file = std::move(packet.fds[1]);
  struct stat st;
  if (!name.file) return EACCES;
  if (!look_at(name.file.get(), st) || !S_ISSOCK(st.st_mode)) return EINVAL;
  name.key = key_of(st);
  return 0;
}

// ---- connecting ---------------------------------------------------------------------------

void NameService::name(Client& client, InPacket& packet) {
  shm::NameBody body{};
  core::ListenerId id = client.stage == Stage::kWelcomed ? find(client, packet) : 0;
  const Name* name = names_.by_listener(id);
  int error = name != nullptr ? 0 : ENOENT;
  struct stat st;
  bool file = name != nullptr && name->file;
  if (file && (!look_at(name->file.get(), st) || has_access_list(name->file.get()) || !may_write(client, packet, st)))
    error = EACCES;
  if (error == 0) error = core_.may_connect_to(client.domain, id);
  if (error == 0) {
    body.ticket = core_.admit_to(client.domain, id, packet.uid, packet.gid);
    if (body.ticket == 0) error = ENOSPC;
  }
  if (error == 0) {
    body.key = name->key;
    body.pid = name->listener.pid;
    body.uid = name->listener.uid;
    body.gid = name->listener.gid;
    body.name_bytes = uint32_t(std::min(name->bytes.size(), sizeof body.name));
    memcpy(body.name, name->bytes.data(), body.name_bytes);
  }
  post_.send(client, make_packet(shm::kNamed, shm::kCoordinator, id, 0, error), {},
             {reinterpret_cast<const char*>(&body), sizeof body});
}

core::ListenerId NameService::find(const Client& client, const InPacket& packet) {
  if (!packet.has_credentials) return 0;
  int type = int(packet.header.value);
  if (packet.fds.empty()) {
    const shm::NameBody& asked = packet.body;
    if (!packet.has_body || asked.name_bytes > sizeof asked.name) return 0;
    return names_.by_bytes(std::string(asked.name, asked.name_bytes), netns_of(client), type);
  }
  struct stat st;
  if (!look_at(packet.fds[0].get(), st) || !S_ISSOCK(st.st_mode)) return 0;
  return names_.by_file(key_of(st), netns_of(client), type);
}

// ---- ancillary data -----------------------------------------------------------------------

bool NameService::give(Client& from, Client& to, const shm::Packet& packet, int fd) {
  if (to.stage == Stage::kWelcomed) return post_.pass_on(from, to, packet, {fd});
  // A forked child that has not said hello.
  if (to.kept.size() >= kMostKept || !Post::may_wait(from, to, 1)) return false;
  to.keep(packet, fd, from.serial);
  ++from.fds_elsewhere;
  return true;
}

bool NameService::keep_for(shm::DomainId expected, const shm::Packet& packet, int fd) {
  if (!expected_.contains(expected) && expected_.size() >= kMostExpected) return false;
  std::vector<OutPacket>& kept = expected_[expected];
  Descriptor copy(kept.size() < kMostKept ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1);
  if (!copy) return false;
  kept.push_back({packet, {}, {}});
  kept.back().fds.push_back(std::move(copy));
  return true;
}

void NameService::forget_the_dead() {
  std::erase_if(expected_, [this](const auto& e) { return !core_.is_expected(e.first); });
}

void NameService::came_back(Client& client) {
  auto kept = expected_.find(client.domain);
  if (client.doomed || client.stage != Stage::kWelcomed || kept == expected_.end()) return;
  for (OutPacket& p : kept->second) post_.send(client, p.header, {p.fds[0].get()});
  expected_.erase(kept);
}

void NameService::channel(Client& client, InPacket& packet) {
  Client* peer = clients_.by_domain(packet.header.domain);
  bool sound = client.stage == Stage::kWelcomed && packet.fds.size() == 1 && is_channel(packet.fds[0].get());
  bool there = peer != nullptr && !peer->doomed && peer->stage != Stage::kStranger;
  bool expected = peer == nullptr && core_.is_expected(packet.header.domain);
  int error = !sound ? EBADF : !there && !expected ? ESRCH : 0;
  if (there && peer->stage == Stage::kWelcomed && error == 0) error = core_.pair(client.domain, packet.header.domain);
  if (error == 0) {
    shm::Packet p = packet.header;
    p.domain = client.domain;
    p.status = 0;
    if (peer == nullptr && !keep_for(packet.header.domain, p, packet.fds[0].get())) error = ESRCH;
    // Also to those that it has forked, who may have the connection without the sender having seen it.
    clients_.for_each([&](Client& c) {
      if (peer == nullptr || c.domain == shm::kNobody || c.doomed || !core_.descends(c.domain, peer->domain)) return;
      if (!give(client, c, p, packet.fds[0].get()) && &c == peer) error = ENOBUFS;
    });
  }
  post_.send(client, make_packet(shm::kChannelPassed, packet.header.domain, 0, 0, error));
}

}  // namespace sluice::monitor
