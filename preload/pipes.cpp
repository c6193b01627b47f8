#include "preload/pipes.h"

#include <errno.h>
#include <sys/mman.h>

#include "preload/coordinator_link.h"
#include "preload/fork.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/pool.h"
#include "preload/signals.h"
#include "preload/stdio_tables.h"
#include "shm/region.h"

namespace sluice::preload {

using namespace shm;

constinit DescriptorTable pipe_ends(kKnownPipe, kKnownChannel);
constinit bool any_pipes = false;

namespace {

constinit Pool<PipeEnd> end_pool;
constinit Pool<ChannelMapping> mapping_pool;

// Of a process with many pipes only so many get a channel at one fork: most are for its own use.
constexpr uint32_t kMostAtOnce = 16;

bool is_pipe(int fd, ino_t& inode) {
  struct stat st;
  if (libc.fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode)) return false;
  inode = st.st_ino;
  return true;
}

// The bytes of this descriptor no longer move in the kernel alone.
void note_channel(int fd) { known_descriptors[fd].fetch_or(kKnownChannel, std::memory_order_release); }

void set_end(int fd, PipeEnd& p) {
  if (pipe_ends.set(fd, &p) && p.has_channel()) note_channel(fd);
}

PipeEnd* create_end(int fd, bool writes, ino_t inode) {
  PipeEnd* p = end_pool.create(writes, inode);
  if (p == nullptr || pipe_ends.set(fd, p)) return p;
  end_pool.destroy(p);
  return nullptr;
}

ChannelMapping* map_channel(int fd) {
  void* base = keyed(map_writable(fd, kChannelBytes), kChannelBytes);
  ChannelMapping* m = base != nullptr ? mapping_pool.create() : nullptr;
  if (m == nullptr) return nullptr;
  m->channel = Channel(static_cast<std::byte*>(base));
  m->fd = fd;
  return m;
}

void attach(PipeEnd& p, ChannelMapping& m) {
  redirect_stdio();
  catch_faults();
  p.mapping = &m;
  ++m.ends;
  for (uint32_t fd = 0; fd < pipe_ends.high_water(); ++fd)
    if (pipe_ends.peek(int(fd)) == &p) note_channel(int(fd));
}

void create_channel(PipeEnd& reader, int fd) {
  PipeEnd& writer = *reader.other;
  int room = libc.fcntl(fd, F_GETPIPE_SZ);
  if (!reader.blocking || !writer.blocking || room <= PIPE_BUF) return;
  RaisedLimit raised;
  int memory = create_region(kChannelName, kChannelBytes);
  if (memory < 0) return;
  memory = move_high(memory);
  ChannelMapping* m = seal_region(memory, Protect::kNone) == 0 ? map_channel(memory) : nullptr;
  if (m == nullptr) return close_own(memory);
  ChannelHeader& h = m->channel.header();
  h.magic = kMagic;
  h.version = kChannelVersion;
  h.inode = reader.inode;
  h.limit.store(uint32_t(room), std::memory_order_relaxed);  // nobody else has it yet, both
  h.reader_cpu.store(Spinner::kAnyCpu, std::memory_order_relaxed);
  attach(reader, *m);
  attach(writer, *m);
}

template <class F>
void each_end(F&& f) {
  for (uint32_t fd = 0; any_pipes && fd < pipe_ends.high_water(); ++fd)
    if (PipeReference p{int(fd)}; p.get() != nullptr) f(int(fd), *p.get());
}

// It gets no channel. Under control_lock.
void stay_with_kernel(PipeEnd& p) {
  if (p.other != nullptr) p.other->other = nullptr;
  p.other = nullptr;
}

// Whether the kernel's descriptor is what the table says of it.
bool is_still(int fd, const PipeEnd& p) {
  ino_t inode;
  return is_pipe(fd, inode) && inode == p.inode;
}

}  // namespace

void note_pipe(const int ends[2], int flags) {
  ino_t inode;
  if ((flags & O_DIRECT) != 0) return coordinator.count_fallback(Fallback::kType);
  if (!coordinator.enabled() || in_vfork_child() || !is_pipe(ends[0], inode)) return;
  for (int i = 0; i < 2; ++i) drop_pipe_end(ends[i]);  // closed by a call that the shim did not see
  Guard guard(control_lock);
  if (!any_pipes && !pipe_ends.create()) return;
  any_pipes = true;
  catch_faults();
  PipeEnd* reader = create_end(ends[0], false, inode);
  PipeEnd* writer = create_end(ends[1], true, inode);
  if (reader == nullptr || writer == nullptr) return;
  reader->blocking = writer->blocking = (flags & O_NONBLOCK) == 0;
  reader->other = writer;
  writer->other = reader;
}

void share_pipe_end(int from, int copy) {
  PipeReference p(from);
  if (p.get() == nullptr || in_vfork_child()) return;
  Guard guard(control_lock);
  set_end(copy, *p.get());
}

void drop_pipe_end(int fd) {
  if (pipe_at(fd) == nullptr || in_vfork_child()) return;
  Guard guard(control_lock);
  auto* p = static_cast<PipeEnd*>(pipe_ends.clear(fd));
  if (p == nullptr) return;
  if (p->remove_descriptor()) {
    // Whoever still writes is to hear from the kernel that this reader is gone.
    if (!p->writes && p->has_channel()) p->mapping->channel.leave();
    stay_with_kernel(*p);
  }
  p->release_locked();
}

void drop_pipe_ends(unsigned first, unsigned last) {
  for (unsigned fd = first; fd <= last && fd < pipe_ends.high_water(); ++fd) drop_pipe_end(int(fd));
}

void give_up_pipe_end(PipeEnd& p) {
  if (ChannelMapping* m = p.mapping; m != nullptr && --m->ends == 0) {
    unmap_keyed(m->channel.base(), kChannelBytes);
    close_own(m->fd);
    mapping_pool.destroy(m);
  }
  end_pool.destroy(&p);
}

void create_pipe_channels() {
  if (!any_pipes || in_vfork_child()) return;
  uint32_t left = kMostAtOnce;
  for (uint32_t fd = pipe_ends.high_water(); fd-- > 0 && left > 0;) {
    auto* p = static_cast<PipeEnd*>(pipe_ends.peek(int(fd)));
    if (p == nullptr || p->writes || p->has_channel() || p->other == nullptr || !is_still(int(fd), *p)) continue;
    create_channel(*p, int(fd));
    --left;
  }
  // What two processes hold without a channel never gets one: each would make its own.
  for (uint32_t fd = 0; fd < pipe_ends.high_water(); ++fd)
    if (auto* p = static_cast<PipeEnd*>(pipe_ends.peek(int(fd)))) stay_with_kernel(*p);
}

bool settle_polled(int fd) {
  PipeReference p(fd);
  if (p.get() == nullptr || p.get()->writes) return true;
  if (p.with_channel() != nullptr) return p.get()->settle_for_good(fd);
  if (p.get()->other == nullptr) return true;
  Guard guard(control_lock);
  stay_with_kernel(*p.get());  // it may be registered for good
  return true;
}

void pass_on_pipe(int fd) {
  PipeReference p(fd);
  if (p.get() == nullptr) return;
  if (p.with_channel() != nullptr) (void)p.get()->settle_for_good(fd);
  Guard guard(control_lock);
  stay_with_kernel(*p.get());
}

// ---- exec ---------------------------------------------------------------------------------

PipeDeparture::PipeDeparture() {
  bool vforked = in_vfork_child();
  each_end([&](int fd, PipeEnd& p) {
    if (!p.has_channel()) return;
    any_ = true;
    // A vfork child may have the end at a number of its own.
    int flags = libc.fcntl(fd, F_GETFD);
    bool stays = vforked || (flags >= 0 && (flags & FD_CLOEXEC) == 0);
    if (!stays || !is_still(fd, p)) return;
    (void)p.settle(fd);
    libc.fcntl(p.mapping->fd, F_SETFD, 0);
  });
}

void PipeDeparture::call_off() {
  if (!any_) return;
  int error = errno;
  each_end([&](int, PipeEnd& p) {
    if (p.has_channel()) libc.fcntl(p.mapping->fd, F_SETFD, FD_CLOEXEC);
  });
  errno = error;
}

namespace {

// Of the program's descriptors these are few; the shim's own lie high.
constexpr int kMostInherited = 256;

void attach_ends(ChannelMapping& m) {
  const ChannelHeader& h = m.channel.header();
  PipeEnd* ends[2] = {};
  for (int fd = 0; fd < kMostInherited; ++fd) {
    ino_t inode;
    if (!is_pipe(fd, inode) || inode != h.inode || pipe_ends.peek(fd) != nullptr) continue;
    int flags = libc.fcntl(fd, F_GETFL);
    bool writes = (flags & O_ACCMODE) == O_WRONLY;
    if ((flags & O_ACCMODE) == O_RDWR) continue;
    if (ends[writes] != nullptr) {
      set_end(fd, *ends[writes]);
    } else if ((ends[writes] = create_end(fd, writes, inode)) != nullptr) {
      attach(*ends[writes], m);
    }
  }
}

}  // namespace

void inherit_channel(int fd) {
  if (!is_region_called(fd, kChannelName)) return;
  int memory = move_high(fd);
  if (verify_region(memory, kChannelBytes, Protect::kNone) != 0) return close_own(memory);
  Guard guard(control_lock);
  if (!any_pipes && !pipe_ends.create()) return close_own(memory);
  any_pipes = true;
  ChannelMapping* m = map_channel(memory);
  if (m == nullptr) return close_own(memory);
  const ChannelHeader& h = m->channel.header();
  if (h.magic == kMagic && h.version == kChannelVersion) attach_ends(*m);
  if (m->ends != 0) return;
  unmap_keyed(m->channel.base(), kChannelBytes);
  close_own(memory);
  mapping_pool.destroy(m);
}

}  // namespace sluice::preload
