// The names of AF_UNIX at which somebody listens: what the kernel says of each.
#pragma once

#include <map>
#include <string>
#include <sys/socket.h>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "monitor/core/actions.h"
#include "monitor/descriptor.h"

namespace sluice::monitor {

struct Name {
  shm::UnixKey key;
  uint64_t netns;
  int type;           // SOCK_STREAM or SOCK_SEQPACKET
  std::string bytes;  // of sun_path, as bound
  Descriptor file;    // O_PATH; empty for an abstract name
  ucred listener;     // who called listen(2)
};

class NameTable {
 public:
  // Null when there is none.
  const Name* by_listener(core::ListenerId id) const;
  // 0 when nobody listens there with a socket of that type.
  core::ListenerId by_file(const shm::UnixKey& key, uint64_t netns, int type) const;
  core::ListenerId by_bytes(const std::string& abstract, uint64_t netns, int type) const;
  // For `ss`: the name that has this key, or null.
  const Name* by_key(const shm::UnixKey& key) const;

  // The key under which an abstract name is or will be known.
  shm::UnixKey key_for(const std::string& abstract, uint64_t netns, int type);
  void put(core::ListenerId id, Name name);
  void forget(core::ListenerId id);

 private:
  std::unordered_map<core::ListenerId, Name> names_;
  // Each type has names of its own, as in the kernel.
  std::map<std::tuple<uint64_t, int, std::string>, core::ListenerId> abstract_;
  std::map<std::pair<uint64_t, uint64_t>, core::ListenerId> files_;  // by device and inode
  uint32_t next_serial_ = 1;
};

}  // namespace sluice::monitor
