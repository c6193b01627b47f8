#include "preload/unix_name.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>

#include "preload/coordinator_link.h"
#include "preload/kernel.h"
#include "preload/libc.h"
#include "preload/pool.h"
#include "preload/user_memory.h"

namespace sluice::preload {

using namespace shm;

// ---- bytes ----------------------------------------------------------------------------------

struct UnixTexts {
  Pool<UnixName::Text> pool;
};
constinit UnixTexts UnixName::texts_;

UnixName::UnixName(const char* path, size_t bytes) {
  if (bytes == 0 || bytes > sizeof text_->path) return;
  text_ = texts_.pool.create();
  if (text_ == nullptr) return;
  text_->users = 1;
  text_->bytes = uint32_t(bytes);
  memcpy(text_->path, path, bytes);
}

UnixName UnixName::of(const sockaddr* a, socklen_t length) {
  constexpr socklen_t kHead = offsetof(sockaddr_un, sun_path);
  if (a == nullptr || length <= kHead || length > sizeof(sockaddr_un) || a->sa_family != AF_UNIX) return {};
  const char* path = reinterpret_cast<const sockaddr_un*>(a)->sun_path;
  size_t bytes = length - kHead;
  return {path, path[0] == 0 ? bytes : strnlen(path, bytes)};
}

UnixName& UnixName::operator=(const UnixName& other) {
  other.share();
  drop();
  text_ = other.text_;
  return *this;
}

void UnixName::share() const {
  if (text_ != nullptr) ++text_->users;
}

void UnixName::drop() {
  if (text_ != nullptr && --text_->users == 0) texts_.pool.destroy(text_);
  text_ = nullptr;
}

bool UnixName::operator==(const UnixName& other) const {
  return text_ == other.text_ ||
         (bytes() == other.bytes() && bytes() != 0 && memcmp(path(), other.path(), bytes()) == 0);
}

int UnixName::format(sockaddr* out, socklen_t* length) const {
  if (out == nullptr || length == nullptr) return -EFAULT;
  union {
    sockaddr_un a;
    char room[sizeof(sockaddr_un) + 1];  // for the zero after a name that fills it
  } u = {};
  sockaddr_un& a = u.a;
  a.sun_family = AF_UNIX;
  socklen_t size = offsetof(sockaddr_un, sun_path) + socklen_t(bytes());
  if (text_ != nullptr) memcpy(a.sun_path, text_->path, bytes() < sizeof a.sun_path ? bytes() : sizeof a.sun_path);
  if (text_ != nullptr && !is_abstract()) ++size;  // with the zero at its end
  return put_sized(out, length, &u, size);
}

// ---- who listens there ----------------------------------------------------------------------

namespace {

constexpr uint32_t kKnown = 32;
alignas(KnownName) std::byte storage[kKnown][sizeof(KnownName)];  // zero is a free entry; nothing is to be destroyed
KnownName (&known)[kKnown] = *reinterpret_cast<KnownName (*)[kKnown]>(storage);
uint32_t next_victim = 0;

struct Self {
  uid_t uid;
  gid_t gid;
};

// Looked at each time: a program may become somebody else.
Self myself() { return {geteuid(), getegid()}; }

bool holds(const KnownName& k, int type, const Self& self) {
  return k.ticket != 0 && k.type == type && k.incarnation == coordinator.incarnation() && k.uid == self.uid && k.gid == self.gid;
}

Fallback reason(int error) {
  switch (error) {
    case -ENOENT: return Fallback::kNoListener;
    case -EACCES:
    case -EPERM: return Fallback::kRefused;
    case -EDQUOT: return Fallback::kLimit;
    case -ENOSPC: return Fallback::kNoMemory;
    default: return Fallback::kNoCoordinator;
  }
}

const KnownName* ask(int file, int type, const Self& self, NameBody& body, Fallback& why, bool& denied) {
  ucred who{getpid(), self.uid, self.gid};
  if (int error = coordinator.ask_name(file, type, who, body); error != 0) {
    why = reason(error);
    denied = error == -EPERM;
    return nullptr;
  }
  KnownName* entry = nullptr;
  for (KnownName& k : known)
    if (k.ticket != 0 && k.key == body.key) entry = &k;
  for (KnownName& k : known)
    if (entry == nullptr && !holds(k, k.type, self)) entry = &k;
  if (entry == nullptr) entry = &known[next_victim++ % kKnown];
  *entry = {body.key, type, body.ticket, {body.pid, body.uid, body.gid}, UnixName(body.name, body.name_bytes),
            coordinator.incarnation(), self.uid, self.gid};
  return entry;
}

// An address need not end with a zero.
struct Path {
  explicit Path(const UnixName& name) { memcpy(text, name.path(), name.bytes()); }
  char text[128] = {};
};

const KnownName* find_file(const UnixName& name, int type, bool anew, Fallback& why, bool& denied) {
  Path path(name);
  struct stat st;
  why = Fallback::kNoListener;
  if (::stat(path.text, &st) != 0 || !S_ISSOCK(st.st_mode)) return nullptr;
  UnixKey key{st.st_dev, st.st_ino};
  if (!coordinator.directory()->has_name(name_bit(key))) return nullptr;
  Self self = myself();
  why = Fallback::kRefused;
  bool plainly = self.uid == 0 || (self.uid == st.st_uid && (st.st_mode & S_IWUSR) != 0);
  if (!plainly && faccessat(AT_FDCWD, path.text, W_OK, AT_EACCESS) != 0) return nullptr;
  for (const KnownName& k : known)
    if (!anew && holds(k, type, self) && k.key == key) return &k;
  int file = kernel::open(path.text, O_PATH | O_CLOEXEC);
  if (file < 0) return nullptr;
  NameBody body{};
  const KnownName* found = ask(file, type, self, body, why, denied);
  kernel::close(file);
  return found;
}

const KnownName* find_abstract(const UnixName& name, int type, bool anew, Fallback& why, bool& denied) {
  why = Fallback::kNoListener;
  uint32_t bit = hash_of_name(name.path(), name.bytes()) % kNameBits;
  if (!coordinator.directory()->has_name(bit)) return nullptr;
  Self self = myself();
  for (const KnownName& k : known)
    if (!anew && holds(k, type, self) && k.key.device == kAbstractDevice && k.bound == name) return &k;
  NameBody body{};
  body.name_bytes = uint32_t(name.bytes());
  memcpy(body.name, name.path(), name.bytes());
  return ask(-1, type, self, body, why, denied);
}

}  // namespace

const KnownName* find_name(const UnixName& name, int type, bool anew, Fallback& why, bool& denied) {
  why = Fallback::kNoListener;
  if (name.empty() || !coordinator.directory()->has_names()) return nullptr;
  return name.is_abstract() ? find_abstract(name, type, anew, why, denied) : find_file(name, type, anew, why, denied);
}

void forget_names() {
  for (KnownName& k : known) k.ticket = 0;
}

}  // namespace sluice::preload
