#include "preload/socket_pairs.h"

#include <errno.h>
#include <sys/mman.h>

#include "preload/coordinator_link.h"
#include "preload/fork.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pool.h"
#include "preload/restrictions.h"
#include "preload/signals.h"
#include "preload/sleep.h"
#include "preload/stdio_tables.h"
#include "shm/region.h"

namespace sluice::preload {

using namespace shm;

constinit DescriptorTable pair_ends(kKnownPair, kKnownHandoff);
constinit bool any_pairs = false;

namespace {

constinit Pool<PairEnd> pair_end_pool;
constinit Pool<HandoffMapping> handoff_pool;

// Of a process with many pairs only so many get a channel at one fork: most are for its own use.
constexpr uint32_t kMostPairsAtOnce = 16;

bool is_socket(int fd, ino_t& inode) {
  struct stat st;
  if (libc.fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode)) return false;
  inode = st.st_ino;
  return true;
}

// Whether the kernel's descriptor is what the table says of it.
bool is_still(int fd, const PairEnd& p) {
  ino_t inode;
  return is_socket(fd, inode) && inode == p.inode;
}

// The namespace of process numbers, by which locks name their owners; 0: not to be known.
ino_t process_ids(const char* name) {
  struct stat st;
  return libc.fstatat(AT_FDCWD, name, &st, 0) == 0 ? st.st_ino : 0;
}
ino_t own_process_ids() { return process_ids("/proc/self/ns/pid"); }
bool shares_process_ids() {
  ino_t own = own_process_ids();
  return own != 0 && own == process_ids("/proc/self/ns/pid_for_children");
}

// The bytes of this descriptor no longer move in the kernel alone.
void note_handoff(int fd) { known_descriptors[fd].fetch_or(kKnownHandoff, std::memory_order_release); }

void set_end(int fd, PairEnd& p) {
  if (pair_ends.set(fd, &p) && p.has_channel()) note_handoff(fd);
}

PairEnd* create_end(int fd, ino_t inode, unsigned index) {
  PairEnd* p = pair_end_pool.create(inode, index);
  if (p == nullptr || pair_ends.set(fd, p)) return p;
  pair_end_pool.destroy(p);
  return nullptr;
}

HandoffMapping* map_handoff(int fd) {
  void* base = keyed(map_writable(fd, kHandoffBytes), kHandoffBytes);
  HandoffMapping* m = base != nullptr ? handoff_pool.create() : nullptr;
  if (m == nullptr) return nullptr;
  m->base = static_cast<std::byte*>(base);
  m->fd = fd;
  return m;
}

void unmap(HandoffMapping& m) {
  unmap_keyed(m.base, kHandoffBytes);
  close_own(m.fd);
  handoff_pool.destroy(&m);
}

void attach(PairEnd& p, HandoffMapping& m) {
  redirect_stdio();
  catch_faults();
  p.mapping = &m;
  ++m.ends;
  for (uint32_t fd = 0; fd < pair_ends.high_water(); ++fd)
    if (pair_ends.peek(int(fd)) == &p) note_handoff(int(fd));
}

HandoffHeader& header_of(HandoffMapping& m) { return *reinterpret_cast<HandoffHeader*>(m.base); }

void create_handoff(PairEnd& first, PairEnd& second) {
  RaisedLimit raised;
  int memory = create_region(kHandoffName, kHandoffBytes);
  if (memory < 0) return;
  memory = move_high(memory);
  HandoffMapping* m = seal_region(memory, Protect::kNone) == 0 ? map_handoff(memory) : nullptr;
  if (m == nullptr) return close_own(memory);
  HandoffHeader& h = header_of(*m);
  h.magic = kMagic;
  h.version = kHandoffVersion;
  h.process_ids = own_process_ids();
  for (PairEnd* p : {&first, &second}) {
    Direction& d = h.directions[p->index];
    h.inodes[p->index] = p->inode;
    // Nobody else has it yet.
    d.nonblocking.store(p->nonblocking, std::memory_order_relaxed);
    d.kernel_only.store(p->kernels, std::memory_order_relaxed);
    d.reader_cpu.store(Spinner::kAnyCpu, std::memory_order_relaxed);
    attach(*p, *m);
  }
}

// It gets no channel. Under control_lock.
void stay_with_kernel(PairEnd& p) {
  if (p.other != nullptr) p.other->other = nullptr;
  p.other = nullptr;
}

template <class F>
void each_pair_end(F&& f) {
  for (uint32_t fd = 0; any_pairs && fd < pair_ends.high_water(); ++fd)
    if (PairReference p{int(fd)}; p.get() != nullptr) f(int(fd), *p.get());
}

// That it stays with the kernel can be seen in the status, once for each pair.
void count_once(PairEnd& p) {
  if (p.counted || p.has_channel()) return;
  p.counted = true;
  if (p.other != nullptr) p.other->counted = true;
  coordinator.count_fallback(Fallback::kSocketPair);
}

bool is_for_kernel(const PairEnd& p) { return p.nonblocking || p.kernels; }

}  // namespace

void note_pair(const int ends[2], int type) {
  ino_t inodes[2];
  if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM) return coordinator.count_fallback(Fallback::kSocketPair);
  if (!coordinator.enabled() || in_vfork_child() || !is_socket(ends[0], inodes[0]) || !is_socket(ends[1], inodes[1])) return;
  for (int i = 0; i < 2; ++i) drop_pair_end(ends[i]);  // closed by a call that the shim did not see
  Guard guard(control_lock);
  if (!any_pairs && !pair_ends.create()) return;
  any_pairs = true;
  catch_faults();
  PairEnd* first = create_end(ends[0], inodes[0], 0);
  PairEnd* second = create_end(ends[1], inodes[1], 1);
  if (first == nullptr || second == nullptr) return;
  first->nonblocking = second->nonblocking = (type & SOCK_NONBLOCK) != 0;
  first->other = second;
  second->other = first;
}

void share_pair_end(int from, int copy) {
  PairReference p(from);
  if (p.get() == nullptr || in_vfork_child()) return;
  Guard guard(control_lock);
  set_end(copy, *p.get());
}

void drop_pair_end(int fd) {
  if (pair_at(fd) == nullptr || in_vfork_child()) return;
  Guard guard(control_lock);
  auto* p = static_cast<PairEnd*>(pair_ends.clear(fd));
  if (p == nullptr) return;
  if (p->remove_descriptor()) {
    p->leave_resting();
    stay_with_kernel(*p);
  }
  p->release_locked();
}

void drop_pair_ends(unsigned first, unsigned last) {
  for (unsigned fd = first; fd <= last && fd < pair_ends.high_water(); ++fd) drop_pair_end(int(fd));
}

void give_up_pair_end(PairEnd& p) {
  if (HandoffMapping* m = p.mapping; m != nullptr && --m->ends == 0) unmap(*m);
  pair_end_pool.destroy(&p);
}

void create_pair_channels() {
  if (!any_pairs || restricted || in_vfork_child()) return;
  uint32_t left = kMostPairsAtOnce;
  bool asked = false, shares_ids = false;
  for (uint32_t fd = pair_ends.high_water(); fd-- > 0;) {
    auto* p = static_cast<PairEnd*>(pair_ends.peek(int(fd)));
    if (p == nullptr || (p->other == nullptr && !p->has_channel())) continue;
    if (!asked) shares_ids = shares_process_ids();
    asked = true;
    if (p->has_channel()) {
      if (!shares_ids) p->leave_for_good(true, true);
      continue;
    }
    // One that neither end reads in a blocking call is not worth it.
    if (shares_ids && left > 0 && !(is_for_kernel(*p) && is_for_kernel(*p->other)) && is_still(int(fd), *p)) {
      create_handoff(*p, *p->other);
      --left;
    } else {
      count_once(*p);
    }
    // What two processes hold without a channel never gets one: each would make its own.
    stay_with_kernel(*p);
  }
}

void note_pair_polled(int fd, bool for_good) {
  PairReference p(fd);
  if (p.get() == nullptr) return;
  count_once(*p.get());
  if (for_good) p.get()->leave_for_good(true, false);
  else p.get()->note_polled();
}

void leave_pair_to_kernel(int fd, bool reads, bool writes) {
  PairReference p(fd);
  if (p.get() == nullptr) return;
  if (reads && writes) count_once(*p.get());
  p.get()->leave_for_good(reads, writes);
}

void leave_all_pairs() {
  each_pair_end([](int, PairEnd& p) { p.leave_for_good(true, true); });
}

// ---- exec ---------------------------------------------------------------------------------

PairDeparture::PairDeparture() {
  bool vforked = in_vfork_child();
  each_pair_end([&](int fd, PairEnd& p) {
    if (!p.has_channel()) return;
    any_ = true;
    // A vfork child may have the end at a number of its own.
    int flags = libc.fcntl(fd, F_GETFD);
    if (vforked || (flags >= 0 && (flags & FD_CLOEXEC) == 0)) libc.fcntl(p.mapping->fd, F_SETFD, 0);
  });
}

void PairDeparture::call_off() {
  if (!any_) return;
  int error = errno;
  each_pair_end([&](int, PairEnd& p) {
    if (p.has_channel()) libc.fcntl(p.mapping->fd, F_SETFD, FD_CLOEXEC);
  });
  errno = error;
}

namespace {

// Of the program's descriptors these are few; the shim's own lie high.
constexpr int kMostInheritedEnds = 256;

void attach_ends(HandoffMapping& m) {
  const HandoffHeader& h = header_of(m);
  uint64_t inodes[2] = {h.inodes[0], h.inodes[1]};
  PairEnd* ends[2] = {};
  for (int fd = 0; fd < kMostInheritedEnds; ++fd) {
    ino_t inode;
    if (!is_socket(fd, inode) || (inode != inodes[0] && inode != inodes[1]) || pair_ends.peek(fd) != nullptr) continue;
    unsigned index = inode == inodes[1];
    if (ends[index] != nullptr) {
      set_end(fd, *ends[index]);
    } else if ((ends[index] = create_end(fd, inode, index)) != nullptr) {
      attach(*ends[index], m);
    }
  }
}

}  // namespace

void inherit_handoff(int fd) {
  if (!is_region_called(fd, kHandoffName)) return;
  int memory = move_high(fd);
  if (verify_region(memory, kHandoffBytes, Protect::kNone) != 0) return close_own(memory);
  Guard guard(control_lock);
  if (!any_pairs && !pair_ends.create()) return close_own(memory);
  any_pairs = true;
  HandoffMapping* m = map_handoff(memory);
  if (m == nullptr) return close_own(memory);
  const HandoffHeader& h = header_of(*m);
  if (h.magic == kMagic && h.version == kHandoffVersion) {
    attach_ends(*m);
    if (h.process_ids != own_process_ids()) leave_all_pairs();
  }
  if (m->ends == 0) unmap(*m);
}

}  // namespace sluice::preload
