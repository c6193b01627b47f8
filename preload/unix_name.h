// Names of AF_UNIX: as the program passes them, and what the coordinator says of those that this
// process has connected to. All under control_lock.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>

#include "shm/layout.h"

namespace sluice::preload {

// The bytes of a sun_path. Sockets that have the same name share them; empty: unnamed.
class UnixName {
 public:
  UnixName() = default;
  UnixName(const char* path, size_t bytes);
  // From what the program, or the kernel, has; cut at the end of a path.
  static UnixName of(const sockaddr* a, socklen_t length);
  UnixName(const UnixName& other) : text_(other.text_) { share(); }
  UnixName& operator=(const UnixName& other);
  ~UnixName() { drop(); }

  bool empty() const { return text_ == nullptr; }
  bool is_abstract() const { return text_ != nullptr && text_->path[0] == 0; }
  const char* path() const { return text_->path; }
  size_t bytes() const { return text_ != nullptr ? text_->bytes : 0; }
  bool operator==(const UnixName& other) const;
  // As getsockname(2) and its relatives have it.
  int format(sockaddr* out, socklen_t* length) const;

 private:
  struct Text {
    void* pool_link = nullptr;
    uint32_t users = 0;
    uint32_t bytes = 0;
    char path[112] = {};
  };
  static struct UnixTexts texts_;
  friend struct UnixTexts;
  void share() const;
  void drop();
  Text* text_ = nullptr;
};

// Somebody with the shim listens there, and we may connect.
struct KnownName {
  shm::UnixKey key;
  int type;             // SOCK_STREAM or SOCK_SEQPACKET
  uint64_t ticket = 0;  // 0: free entry
  ucred listener;       // who called listen(2)
  UnixName bound;
  uint32_t incarnation;  // of the coordinator that said so
  uid_t uid;             // what we were then
  gid_t gid;
};

// What the kernel would do with this address has to be the kernel's if null is returned; `why` says
// the reason; if `denied` is set, nobody does it. `anew`: what was known turned out to be over. Costs a stat(2) for a path; the
// coordinator is asked once for each name and user.
const KnownName* find_name(const UnixName& name, int type, bool anew, shm::Fallback& why, bool& denied);
void forget_names();

}  // namespace sluice::preload
