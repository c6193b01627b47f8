#include "preload/sleep.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <atomic>

#include "preload/descriptor_table.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/peers.h"
#include "preload/signals.h"
#include "shm/bell.h"
#include "shm/wake.h"

namespace sluice::preload {
namespace {

timespec now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t;
}

constexpr int64_t kNsPerS = 1'000'000'000;

timespec plus(timespec t, int64_t s, int64_t ns) {
  t.tv_sec += s;
  t.tv_nsec += ns;
  if (t.tv_nsec >= kNsPerS) {
    t.tv_sec += 1;
    t.tv_nsec -= kNsPerS;
  }
  return t;
}

}  // namespace

uint64_t now_ns() {
  timespec t = now();
  return uint64_t(t.tv_sec) * kNsPerS + uint64_t(t.tv_nsec);
}

Deadline Deadline::in(const timespec* relative) {
  Deadline d;
  if (relative == nullptr || relative->tv_sec > INT32_MAX) return d;
  d.at_ = plus(now(), relative->tv_sec, relative->tv_nsec);
  d.never_ = false;
  return d;
}

Deadline Deadline::in_ms(int64_t ms) {
  timespec t{ms / 1000, ms % 1000 * 1'000'000};
  return ms < 0 ? never() : in(&t);
}

Deadline Deadline::in_some_us(int64_t us) {
  timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  return in(&t);
}

timespec Deadline::left() const {
  timespec t = now();
  timespec d{at_.tv_sec - t.tv_sec, at_.tv_nsec - t.tv_nsec};
  if (d.tv_nsec < 0) {
    d.tv_sec -= 1;
    d.tv_nsec += kNsPerS;
  }
  if (d.tv_sec < 0) d = {0, 0};
  return d;
}

Deadline Deadline::or_earlier(const Deadline& other) const {
  if (never_ || other.never_) return never_ ? other : *this;
  bool later = at_.tv_sec > other.at_.tv_sec || (at_.tv_sec == other.at_.tv_sec && at_.tv_nsec > other.at_.tv_nsec);
  return later ? other : *this;
}

bool Deadline::passed() const {
  if (never_) return false;
  timespec t = now();
  return t.tv_sec > at_.tv_sec || (t.tv_sec == at_.tv_sec && t.tv_nsec >= at_.tv_nsec);
}

// ---- the bell, and what each thread sleeps on ---------------------------------------------

namespace {

Bell own_bell;
int watched_fd = -1;    // the coordinator's socket
int inotify_fd = -1;    // its directory, while it is away
int inotify_seen = 0;   // bytes that were queued there when it was last looked at
constexpr int64_t kDeafMs = 10;  // see no_bell_to_hear
constexpr int kInheritedBells = 8;
Bell inherited_bells[kInheritedBells];
struct TakersBell {
  int fd = -1;
  shm::DomainId maker = shm::kNobody;
};
constexpr int kTakersBells = 64;
TakersBell takers_bells[kTakersBells];
std::atomic<uint32_t> epoch{1};  // grows when one of these changes

// An epoll set with the bell in it, edge-triggered: nobody has to reset the bell, so several
// threads can share it and each sees every ring.
struct Sleeper {
  int fd = -1;
  uint32_t epoch = 0;
};
thread_local Sleeper sleeper;
pthread_key_t sleeper_key;
pthread_once_t sleeper_once = PTHREAD_ONCE_INIT;

void close_sleeper(void* p) {
  Entrance entrance;
  Sleeper* s = static_cast<Sleeper*>(p);
  close_own(s->fd);
  s->fd = -1;
  s->epoch = 0;
}

bool add(int epfd, int fd, uint64_t cookie) {
  epoll_event e{};
  e.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  e.data.u64 = cookie;
  return fd < 0 || libc.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e) == 0 || errno == EEXIST;
}

int sleeper_fd() {
  uint32_t now = epoch.load(std::memory_order_acquire);
  if (sleeper.epoch == now) return sleeper.fd;
  uint32_t kept = 0;
  pthread_once(&sleeper_once, [] { pthread_key_create(&sleeper_key, close_sleeper); });
  close_own(sleeper.fd);
  sleeper.fd = move_high(libc.epoll_create1(EPOLL_CLOEXEC));
  if (sleeper.fd >= 0) (void)add_wakers(sleeper.fd, kept);
  sleeper.epoch = kept;
  pthread_setspecific(sleeper_key, &sleeper);
  return sleeper.fd;
}

void changed() { epoch.fetch_add(1, std::memory_order_acq_rel); }

}  // namespace

const uint64_t kWakerCookie = uint64_t(&kWakerCookie);
const uint64_t kLinkCookie = uint64_t(&kLinkCookie);
std::atomic<bool> link_changed{false};

bool is_waker(const epoll_event& e) {
  if (e.data.u64 == kLinkCookie) link_changed.store(true, std::memory_order_relaxed);  // looked at before each sleep
  return e.data.u64 == kWakerCookie || e.data.u64 == kLinkCookie;
}

int add_wakers(int epfd, uint32_t& seen) {
  uint32_t now = epoch.load(std::memory_order_acquire);
  if (seen == now) return 0;
  bool all = bell().hear >= 0 && add(epfd, bell().hear, kWakerCookie) && add(epfd, watched_fd, kLinkCookie) &&
             add(epfd, inotify_fd, kLinkCookie);
  for (const Bell& b : inherited_bells) all = all && add(epfd, b.hear, kWakerCookie);
  for (const TakersBell& b : takers_bells) all = all && add(epfd, b.fd, kWakerCookie);
  int error = all ? 0 : errno == ENOSPC ? -ENOSPC : -ENOMEM;
  seen = all && epoch.load(std::memory_order_acquire) == now ? now : 0;
  return error;
}

Deadline no_bell_to_hear(const Deadline& wanted) { return wanted.or_earlier(Deadline::in_ms(kDeafMs)); }

void remove_wakers(int epfd) {
  for (int fd : {own_bell.hear, watched_fd, inotify_fd}) libc.epoll_ctl(epfd, EPOLL_CTL_DEL, fd, nullptr);
  for (const Bell& b : inherited_bells) libc.epoll_ctl(epfd, EPOLL_CTL_DEL, b.hear, nullptr);
  for (const TakersBell& b : takers_bells)
    if (b.fd >= 0) libc.epoll_ctl(epfd, EPOLL_CTL_DEL, b.fd, nullptr);
}

Bell create_bell() {
  int ends[2] = {-1, -1};
  if (libc.socketpair(AF_UNIX, shm::kBellType | SOCK_CLOEXEC, 0, ends) != 0) return {};
  shm::init_bell(ends);
  return {move_high(ends[0]), move_high(ends[1])};
}

void destroy_bell(Bell& bell) {
  close_own(bell.hear);
  close_own(bell.ring);
  bell = {};
}

const Bell& bell() {
  if (own_bell.hear < 0) own_bell = create_bell();
  return own_bell;
}

void renew_bell() {
  // What the parent shared with us is announced on its bell: keep listening to that too.
  int kept = 0;
  while (kept < kInheritedBells - 1 && inherited_bells[kept].hear >= 0) ++kept;
  destroy_bell(inherited_bells[kept]);
  inherited_bells[kept] = own_bell;
  own_bell = {};
  changed();
}

bool hear_takers_bell(int fd, shm::DomainId maker) {
  TakersBell* free = nullptr;
  for (TakersBell& b : takers_bells) {
    if (b.fd >= 0 && b.maker == maker) return true;
    if (b.fd < 0 && free == nullptr) free = &b;
  }
  RaisedLimit raised;
  int own = free != nullptr ? move_high(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0)) : -1;
  if (own < 0) return false;
  *free = {own, maker};
  changed();
  return true;
}

void forget_takers_bells(bool (*still_used)(shm::DomainId maker)) {
  for (TakersBell& b : takers_bells) {
    if (b.fd < 0 || still_used(b.maker)) continue;
    close_own(b.fd);
    b = {};
  }
}

void ring_own_bell() {
  if (own_bell.ring >= 0) shm::ring_bell(own_bell.ring);
}

void ring_family_bells() {
  ring_own_bell();
  for (const Bell& b : inherited_bells)
    if (b.ring >= 0) shm::ring_bell(b.ring);
}

void watch_for(const char* directory) {
  if (inotify_fd >= 0) return;
  inotify_fd = move_high(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  inotify_seen = 0;
  if (inotify_fd >= 0) inotify_add_watch(inotify_fd, directory, IN_CREATE | IN_MOVED_TO | IN_ATTRIB);
  changed();
}

bool watch_has_news() {
  int bytes = 0;  // queued; nobody reads them
  if (inotify_fd < 0 || libc.ioctl(inotify_fd, FIONREAD, &bytes) != 0 || bytes == inotify_seen) return false;
  inotify_seen = bytes;
  return true;
}

void watch_socket(int fd) {
  watched_fd = fd;
  changed();
}

void stop_watching() {
  close_own(inotify_fd);
  inotify_fd = -1;
  changed();
}

long sleep_in_poll(pollfd* fds, nfds_t count, const Deadline& deadline, const sigset_t* mask,
                   uint32_t seen) {
  if (peers.is_unfinished()) return 0;
  fds[count] = {sleeper_fd(), POLLIN, 0};
  Deadline until = sleeper.epoch != 0 ? deadline : no_bell_to_hear(deadline);
  timespec left = until.is_never() ? timespec{} : until.left();
  long n = interruptible_syscall(seen, SYS_ppoll, long(fds), long(count + 1),
                                 until.is_never() ? 0 : long(&left), long(mask), _NSIG / 8);
  if (n > 0 && fds[count].revents != 0) {
    epoll_event events[4];
    int k = kernel::epoll_wait_now(sleeper.fd, events, 4);
    for (int i = 0; i < k; ++i) (void)is_waker(events[i]);
    --n;
  }
  return n;
}

// ---- spinning -----------------------------------------------------------------------------

namespace {

// How spinning has paid lately, per thread.
struct Experience {
  int score = 8;  // 0..16
  uint32_t skipped = 0;
  uint64_t crowded_until_ns = 0;
  uint64_t crowded_for_ns = 0;
};
thread_local Experience experience;

bool several_cpus() {
  static const bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;
  return several;
}

}  // namespace

uint32_t current_cpu() { return uint32_t(sched_getcpu()); }

bool Spinner::is_elsewhere(uint32_t peer_cpu) { return several_cpus() && peer_cpu != current_cpu(); }

bool Spinner::worthwhile(uint32_t peer_cpu) { return is_elsewhere(peer_cpu) && is_promising(); }

bool Spinner::is_promising() { return experience.score > 0 || ++experience.skipped % 16 == 0; }

bool Spinner::learn(bool success) {
  int score = experience.score + (success ? 2 : -1);
  experience.score = score > 16 ? 16 : score < 0 ? 0 : score;
  return success;
}

bool Spinner::is_crowded() {
  if (experience.crowded_until_ns == 0) return false;
  if (now_ns() < experience.crowded_until_ns) return true;
  experience.crowded_until_ns = 0;
  return false;
}

void Spinner::note_crowd(bool crowd) {
  constexpr uint64_t kFirst = 4'000'000, kMost = kNsPerS;
  uint64_t& span = experience.crowded_for_ns;
  if (!crowd) {
    if (span != 0) span = span < kFirst ? 0 : span - span / 64;
    return;
  }
  span = span < kFirst ? kFirst : span < kMost / 4 ? span * 4 : kMost;
  experience.crowded_until_ns = now_ns() + span;
}

uint32_t Spinner::signals() {
  return std::atomic_ref<uint32_t>(signal_counts.any).load(std::memory_order_relaxed);  // own thread's
}
void Spinner::relax() { shm::cpu_relax(); }
void Spinner::give_way() { sched_yield(); }

}  // namespace sluice::preload
