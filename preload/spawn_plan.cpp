#include "preload/spawn_plan.h"

#include <stdlib.h>
#include <string.h>

#include "preload/descriptor_table.h"
#include "preload/files/tcp_socket.h"
#include "preload/libc.h"
#include "preload/materialize.h"

namespace sluice::preload {

namespace {

enum Tag : int { kClose, kDup2, kOpen, kChdir, kFchdir, kCloseFrom };

// glibc's struct __spawn_action.
struct Action {
  int tag;
  union {
    struct {
      int fd, to;
    } dup2;  // the others that have a descriptor have it in the same place
    struct {
      int fd;
      char* path;
      int flags;
      mode_t mode;
    } open;
  };
};

Action* entries_of(const posix_spawn_file_actions_t* a) { return reinterpret_cast<Action*>(a->__actions); }

bool is_close(const Action& a, int fd) { return a.tag == kClose && a.dup2.fd == fd; }

// Whether libc writes its lists as we read them.
bool learn_layout() {
  posix_spawn_file_actions_t a;
  if (posix_spawn_file_actions_init(&a) != 0) return false;
  bool written = posix_spawn_file_actions_addclose(&a, 3) == 0 && posix_spawn_file_actions_adddup2(&a, 4, 5) == 0 &&
                 posix_spawn_file_actions_addopen(&a, 6, "/", O_RDONLY, 0) == 0 &&
                 posix_spawn_file_actions_addclosefrom_np(&a, 7) == 0 && posix_spawn_file_actions_addclose(&a, 8) == 0;
  const Action* e = entries_of(&a);
  bool known = written && a.__used == 5 && is_close(e[0], 3) && e[1].tag == kDup2 && e[1].dup2.fd == 4 &&
               e[1].dup2.to == 5 && e[2].tag == kOpen && e[2].open.fd == 6 && e[2].open.path != nullptr &&
               strcmp(e[2].open.path, "/") == 0 && e[3].tag == kCloseFrom && e[3].dup2.fd == 7 && is_close(e[4], 8);
  posix_spawn_file_actions_destroy(&a);
  return known;
}

bool layout_known() {
  enum { kUnasked, kYes, kNo };
  static std::atomic<int> known{kUnasked};
  int k = known.load(std::memory_order_relaxed);  // the answer is always the same
  if (k == kUnasked) known.store(k = learn_layout() ? kYes : kNo, std::memory_order_relaxed);
  return k == kYes;
}

}  // namespace

// A descriptor in the child and the socket behind it.
struct SpawnPlan::Open {
  int fd;
  TcpSocket* socket;
  bool inherited;  // as it is in this process, no action has touched it
  bool cloexec;
};

uint32_t SpawnPlan::find_open(Open* open) const {
  uint32_t n = 0;
  for (uint32_t fd = 0; fd < descriptors.high_water(); ++fd) {
    File* f = descriptors.peek(int(fd));
    if (f == nullptr || f->kind() != FileKind::kTcpSocket) continue;
    if (open != nullptr) open[n] = {int(fd), static_cast<TcpSocket*>(f), true, (libc.fcntl(int(fd), F_GETFD) & FD_CLOEXEC) != 0};
    ++n;
  }
  return n;
}

// What the program's actions make of it. There is room for one more entry per action.
void SpawnPlan::follow(Open* open, uint32_t& count) const {
  auto forget = [&](int first, int last) {
    for (uint32_t i = 0; i < count;)
      if (open[i].fd >= first && open[i].fd <= last) open[i] = open[--count];
      else ++i;
  };
  auto at = [&](int fd) -> Open* {
    for (uint32_t i = 0; i < count; ++i)
      if (open[i].fd == fd) return &open[i];
    return nullptr;
  };
  for (int i = 0; actions_ != nullptr && i < actions_->__used; ++i) {
    const Action& a = entries_of(actions_)[i];
    int fd = a.dup2.fd;
    if (a.tag == kClose || a.tag == kOpen) forget(fd, fd);
    if (a.tag == kCloseFrom) forget(fd, INT32_MAX);
    if (a.tag != kDup2) continue;
    Open* from = at(fd);
    TcpSocket* socket = from != nullptr ? from->socket : nullptr;
    forget(a.dup2.to, a.dup2.to);
    if (socket != nullptr) open[count++] = {a.dup2.to, socket, false, false};
  }
}

SpawnPlan::SpawnPlan(const posix_spawn_file_actions_t* actions) : actions_(actions) {
  uint32_t most = find_open(nullptr);
  if (most == 0 || !layout_known()) return;
  uint32_t added = actions != nullptr ? uint32_t(actions->__used) : 0;
  auto* open = static_cast<Open*>(malloc((most + added) * sizeof(Open)));
  if (open == nullptr) return;
  {
    Guard guard(control_lock);
    uint32_t count = find_open(nullptr) <= most ? find_open(open) : 0;
    follow(open, count);
    prepare(open, count);
  }
  free(open);
  carrier_.start(list_, count_);
  impossible_ = carrier_.has_failed(list_, count_);
  if (count_ > 0) write_actions();
}

// Of the sockets that the new program will have, every descriptor that the child begins with
// is replaced, as any of them can be what the actions duplicate. Under control_lock.
void SpawnPlan::prepare(const Open* open, uint32_t count) {
  uint32_t limit = descriptors.high_water();
  auto stays = [&](const TcpSocket* s) {
    for (uint32_t i = 0; i < count; ++i)
      if (open[i].socket == s && !open[i].cloexec) return true;
    return false;
  };
  auto is_meant = [&](const TcpSocket* s) {
    for (uint32_t i = 0; i < count; ++i)
      if (open[i].socket == s && !open[i].cloexec && open[i].fd <= STDERR_FILENO) return true;
    return false;
  };
  auto is_untouched = [&](int fd) {
    for (uint32_t i = 0; i < count; ++i)
      if (open[i].fd == fd) return open[i].inherited && open[i].cloexec;
    return false;
  };
  uint32_t room = find_open(nullptr);
  list_ = static_cast<Leaving*>(malloc(room * (sizeof(Leaving) + sizeof(bool))));
  if (list_ == nullptr) return void(impossible_ = true);
  closed_at_the_end_ = reinterpret_cast<bool*>(list_ + room);
  for (uint32_t fd = 0; fd < limit; ++fd) {
    File* f = descriptors.peek(int(fd));
    if (f == nullptr || f->kind() != FileKind::kTcpSocket) continue;
    auto* s = static_cast<TcpSocket*>(f);
    if (!stays(s)) continue;
    if (s->state == TcpState::kListening) s->no_longer_alone();
    if (s->state == TcpState::kUnconnected) (void)make_real(int(fd), *s);
    if (s->state != TcpState::kConnected) continue;
    closed_at_the_end_[count_] = is_untouched(int(fd));
    list_[count_++] = {int(fd), s, -1, -1, -1, is_meant(s), 0};
  }
}

void SpawnPlan::write_actions() {
  int theirs = actions_ != nullptr ? actions_->__used : 0;
  auto* all = static_cast<Action*>(calloc(2 * count_ + uint32_t(theirs), sizeof(Action)));
  if (all == nullptr) return;
  int n = 0;
  auto add = [&](int tag, int fd, int to) {
    all[n].tag = tag;
    all[n++].dup2 = {fd, to};
  };
  for (uint32_t i = 0; i < count_; ++i)
    if (list_[i].substitute >= 0) add(kDup2, list_[i].substitute, list_[i].fd);
  if (theirs > 0) memcpy(all + n, entries_of(actions_), uint32_t(theirs) * sizeof(Action));
  n += theirs;
  // What exec would have closed was opened for it by the dup2 above.
  for (uint32_t i = 0; i < count_; ++i)
    if (list_[i].substitute >= 0 && closed_at_the_end_[i]) add(kClose, list_[i].fd, 0);
  ours_.__allocated = ours_.__used = n;
  ours_.__actions = reinterpret_cast<struct __spawn_action*>(all);
}

void SpawnPlan::end(bool spawned) {
  if (spawned) carrier_.depart();
  else carrier_.call_off();
}

SpawnPlan::~SpawnPlan() {
  close_substitutes(list_, count_);
  free(list_);
  free(ours_.__actions);
}

}  // namespace sluice::preload
