#include "preload/files/pipe_end.h"

#include <alloca.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "preload/coordinator_link.h"
#include "preload/iov_cursor.h"
#include "preload/kernel.h"
#include "preload/keys.h"
#include "preload/libc.h"
#include "preload/signals.h"
#include "preload/sleep.h"

namespace sluice::preload {

using namespace shm;

namespace {

// Published in pieces of this size, so that both sides of a bulk transfer work at once.
constexpr size_t kPieceBytes = 32 * 1024;
// Counted as accelerated once so many bytes went through the ring.
constexpr uint64_t kCountedBytes = 4096;

// About 20 us: far less than a process needs to end and to be waited for.
constexpr uint64_t kLookTicks = 1u << 16;
constexpr size_t kMuchBytes = 1024;

int unread_in_kernel(int fd) {
  int n = 0;
  return libc.ioctl(fd, FIONREAD, &n) == 0 ? n : -1;
}

ssize_t read_kernel(int fd, const iovec* iov, int count) {
  ssize_t n = outside([&] { return count == 1 ? libc.read(fd, iov->iov_base, iov->iov_len) : libc.readv(fd, iov, count); });
  return n < 0 ? -errno : n;
}

}  // namespace

// One call's turn at one end, against whoever else holds it. Not had if a signal handler came to the
// end at which it interrupted its own thread, or if give_up() said so.
class PipeEnd::Turn {
 public:
  template <class GiveUp>
  Turn(PipeEnd& p, GiveUp&& give_up) : end_(p), nested_(ProcessLock(p.lock_word()).is_mine()) {
    had_ = !nested_ && ProcessLock(p.lock_word()).lock(give_up);
  }
  ~Turn() { end(); }
  void end() {
    if (!had_) return;
    had_ = false;
    ProcessLock(end_.lock_word()).unlock();
  }
  bool is_had() const { return had_; }
  bool is_nested() const { return nested_; }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  PipeEnd& end_;
  bool nested_;
  bool had_;
};

void PipeEnd::note_nonblocking(bool on) {
  blocking = !on;
  if (has_channel()) header().nonblocking[writes].store(on, std::memory_order_relaxed);  // as the kernel's flag
}

size_t PipeEnd::in_ring() { return has_channel() ? channel().readable(channel().word()) : 0; }

// ---- reading ------------------------------------------------------------------------------

// What the ring has. 0: nothing. -EFAULT: it stays there. Under the read lock.
ssize_t PipeEnd::take(const iovec* iov, int count) {
  size_t n = channel().readable(channel().word());
  size_t wanted = total_bytes(iov, count);
  if (n > 0) pace_.received(n);
  if (n > wanted) n = wanted;
  if (n == 0) return 0;
  IovCursor cursor(iov, count, 0);
  uint64_t before = header().head.load(std::memory_order_relaxed);  // ours, by the lock
  for (size_t done = 0; done < n;) {
    size_t k = n - done < kPieceBytes ? n - done : kPieceBytes;
    Pieces<const std::byte> p = channel().observe(k);
    if (cursor.scatter(p.first, p.first_bytes) != 0 || (p.second_bytes > 0 && cursor.scatter(p.second, p.second_bytes) != 0))
      return done > 0 ? ssize_t(done) : -EFAULT;
    channel().retire(k);
    done += k;
  }
  if (((before + n) ^ before) >= kCountedBytes) note_accelerated();
  return ssize_t(n);
}

void PipeEnd::note_accelerated() {
  if (header().counted.load(std::memory_order_relaxed) != 0 || header().counted.exchange(1, std::memory_order_acq_rel) != 0) return;
  Guard guard(control_lock);
  if (coordinator.ensure()) coordinator.count(kPipes);
}

bool PipeEnd::may_enter() const {
  return header().kernel_only.load(std::memory_order_relaxed) == 0 && header().sleepers.load(std::memory_order_relaxed) == 0;  // under the lock
}

// Asks writers to use the ring as soon as that is possible. Under the read lock.
void PipeEnd::want() {
  if (!may_enter() || !channel().want(channel().word())) return;
  header().reader_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  if (header().kernel_only.load(std::memory_order_acquire) != 0) channel().leave();  // as in enter()
}

// Tells writers to use the ring. Not while a writer is inside the kernel, or a reader asleep there.
bool PipeEnd::enter(int fd) {
  if (!may_enter()) return false;
  ProcessLock writers(header().write_lock);
  if (!writers.try_lock_or_take_over()) return false;
  uint64_t word = channel().word();
  struct stat st;
  // The number may have been closed and used again by a call that the shim does not see.
  bool entered = header().writing.load(std::memory_order_relaxed) == 0 &&  // changes under the lock
                 !Channel::is_ring(word) && unread_in_kernel(fd) == 0 && libc.fstat(fd, &st) == 0 &&
                 st.st_ino == inode && channel().enter(word);
  // settle_for_good() sets this, then leaves; the exchange was a full fence.
  if (entered && header().kernel_only.load(std::memory_order_acquire) != 0) channel().leave();
  writers.unlock();
  return entered;
}

// One that waits outside of the kernel, or is about to write.
bool PipeEnd::is_writer_awake() const {
  return header().write_lock.load(std::memory_order_relaxed) != 0 && header().writing.load(std::memory_order_relaxed) == 0;  // hints
}

// Whether it has begun ring mode.
bool PipeEnd::await_ring() {
  auto ready = [this] { return !Channel::is_wanted(channel().word()); };
  return Spinner::await(ready, header().writer_cpu.load(std::memory_order_relaxed), Spinner::never_much);  // a hint
}

bool PipeEnd::is_still_empty(uint64_t word) const { return channel().word() == word; }

bool PipeEnd::await_bytes() {
  header().reader_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  if (pace_.is_due() && Spinner::is_elsewhere(header().writer_cpu.load(std::memory_order_relaxed)))  // likewise
    pace_.look_away([this] { return uint64_t(in_ring()); });
  auto ready = [this] {
    uint64_t word = channel().word();
    return !Channel::is_ring(word) || channel().readable(word) != 0;
  };
  auto is_much = [this] { return in_ring() >= kMuchBytes; };
  return Spinner::await(ready, header().writer_cpu.load(std::memory_order_relaxed), is_much);  // likewise
}

ssize_t PipeEnd::receive(int fd, const iovec* iov, int count) {
  uint32_t unrestarted = signal_counts.unrestarted;
  auto interrupted = [&] { return signal_counts.unrestarted != unrestarted; };
  bool wait = header().nonblocking[0].load(std::memory_order_relaxed) == 0;  // as the kernel's flag
  for (bool met = false;;) {
    Turn turn(*this, interrupted);
    if (turn.is_nested()) return read_kernel(fd, iov, count);
    if (!turn.is_had()) return -EINTR;
    if (ssize_t n = take(iov, count); n != 0) return n;
    if (total_bytes(iov, count) == 0) return 0;
    uint64_t word = channel().word();
    if (Channel::is_ring(word) && wait) {
      turn.end();
      bool came = await_bytes();
      if (interrupted()) return -EINTR;
      if (came || !is_still_empty(word)) continue;
      Turn again(*this, interrupted);
      if (!again.is_had()) return -EINTR;
      if (!channel().sleep(word)) continue;
      if (ssize_t n; sleep_in_kernel(again, fd, iov, count, n)) return n;
      continue;
    }
    if (wait && !met && Spinner::is_promising()) {
      ssize_t n = outside([&] { return libc.syscall(SYS_preadv2, fd, iov, count, -1L, -1L, RWF_NOWAIT); });
      if (n > 0) return want(), n;
      bool empty = n < 0 && errno == EAGAIN;
      if (empty && enter(fd)) continue;
      if (empty && is_writer_awake()) {
        want();
        turn.end();
        met = true;
        (void)await_ring();
        if (interrupted()) return -EINTR;
        continue;
      }
    }
    word = channel().word();
    if (!Channel::is_kernel(word) && !channel().sleep(word)) continue;
    if (ssize_t n; sleep_in_kernel(turn, fd, iov, count, n)) return n;
  }
}

// Ends the turn, which no other reader could use to begin ring mode. False: look at the ring again.
bool PipeEnd::sleep_in_kernel(Turn& turn, int fd, const iovec* iov, int count, ssize_t& n) {
  header().sleepers.fetch_add(1, std::memory_order_acq_rel);
  header().reader_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  turn.end();
  n = read_kernel(fd, iov, count);
  header().sleepers.fetch_sub(1, std::memory_order_acq_rel);
  return n != 0 || in_ring() == 0;  // the end comes after what is in the ring
}

// ---- writing ------------------------------------------------------------------------------

// Now and then: whether there are readers, and nothing in the kernel's pipe that came from a program
// without the shim. Else ring mode is over.
bool PipeEnd::is_current(int fd) {
  uint64_t now = clock_ticks();
  if (now - looked_at_ < kLookTicks) return true;
  looked_at_ = now;
  header().writer_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  pollfd p{fd, 0, 0};
  if (kernel::poll_now(&p, 1) == 0 && unread_in_kernel(fd) == 0) return true;
  channel().leave();
  return false;
}

bool PipeEnd::await_space(size_t wanted) {
  auto ready = [&] {
    uint64_t word = channel().word();
    return !Channel::is_ring(word) || channel().space(word) >= wanted;
  };
  return Spinner::await(ready, header().reader_cpu.load(std::memory_order_relaxed), [] { return true; });  // a hint
}

// A reader wants the ring: whether it begins. Under the write lock.
bool PipeEnd::begin_ring(int fd, uint64_t word, size_t total) {
  if (header().writing.load(std::memory_order_relaxed) != 0) return false;  // changes under the lock
  auto ready = [&] { return unread_in_kernel(fd) == 0 || channel().word() != word; };
  // The reader is busy with what it has read. Worth waiting for if there is much to write.
  uint32_t reader_cpu = header().reader_cpu.load(std::memory_order_relaxed);  // a hint
  if (!ready() && (total <= PIPE_BUF || !Spinner::is_promising() || !Spinner::await(ready, reader_cpu, Spinner::never_much))) return false;
  if (channel().word() != word) return true;
  looked_at_ = 0;  // the reader may have died since it wished so
  return channel().enter(word);
}

// The kernel's pipe is full and would put this writer to sleep, which keeps readers from the ring. Waits
// a little for a reader that takes all there is and wants it. Under the write lock.
bool PipeEnd::await_wish(int fd, uint64_t word) {
  if (header().kernel_only.load(std::memory_order_relaxed) != 0 || !Spinner::is_promising()) return false;  // a hint
  if (unread_in_kernel(fd) + PIPE_BUF <= int(header().limit.load(std::memory_order_relaxed))) return false;  // likewise
  header().writer_cpu.store(current_cpu(), std::memory_order_relaxed);  // likewise
  auto ready = [&] { return channel().word() != word; };
  return Spinner::await(ready, header().reader_cpu.load(std::memory_order_relaxed), Spinner::never_much);  // likewise
}

// What this thread writes to the kernel next comes after what is in the ring. Ends with --writing.
void PipeEnd::go_to_kernel(int fd, const Turn& turn) {
  header().writing.fetch_add(1, std::memory_order_acq_rel);
  channel().leave();
  pollfd p{fd, 0, 0};
  if (!turn.is_had() || in_ring() == 0 || kernel::poll_now(&p, 1) != 0) return;  // or nobody is there to read it
  ProcessLock readers(header().read_lock);
  if (readers.is_mine() || !readers.lock([] { return false; })) return;
  (void)move_ring(fd, fd);
  readers.unlock();
}

// Puts bytes into the ring as long as that takes them; returns how many. What cannot be read is for the
// kernel to refuse. Under the write lock.
size_t PipeEnd::put(int fd, const iovec* iov, int count, size_t total, bool wait) {
  size_t done = 0;
  size_t least = total <= PIPE_BUF ? total : 1;  // pipe(7): such writes are not divided
  while (done < total) {
    uint64_t word = channel().word();
    if (Channel::is_wanted(word) && begin_ring(fd, word, total)) continue;
    if (Channel::is_kernel(word) && total > PIPE_BUF && wait && await_wish(fd, word)) continue;
    if (!Channel::is_ring(word) || !is_current(fd)) return done;
    size_t n = channel().space(word);
    if (n < least) {
      if (await_space(least)) continue;
      return done;
    }
    if (n > total - done) n = total - done;
    if (n > kPieceBytes) n = kPieceBytes;
    Pieces<std::byte> p = channel().reserve(word, n);
    IovCursor cursor(iov, count, done);
    if (cursor.gather(p.first, p.first_bytes) != 0 || (p.second_bytes > 0 && cursor.gather(p.second, p.second_bytes) != 0)) return done;
    if (!channel().publish(word, n)) return done;
    done += n;
  }
  return done;
}

namespace {

// The rest of a write goes to the kernel.
ssize_t write_rest(int fd, const iovec* iov, int count, size_t done) {
  Outside o;
  if (count == 1) return libc.write(fd, static_cast<const char*>(iov->iov_base) + done, iov->iov_len - done);
  auto* rest = static_cast<iovec*>(alloca(size_t(count) * sizeof(iovec)));
  return libc.writev(fd, rest, rest_of(rest, iov, count, done));
}

}  // namespace

ssize_t PipeEnd::send(int fd, const iovec* iov, int count) {
  uint32_t unrestarted = signal_counts.unrestarted;
  bool wait = header().nonblocking[1].load(std::memory_order_relaxed) == 0;  // as the kernel's flag
  uint32_t tries = 0;
  size_t total = total_bytes(iov, count);
  size_t done = 0;
  {
    Turn turn(*this, [&] { return signal_counts.unrestarted != unrestarted || (!wait && ++tries > 2); });
    if (!turn.is_had() && !turn.is_nested()) return wait ? -EINTR : -EAGAIN;
    if (turn.is_had()) done = put(fd, iov, count, total, wait);
    if (done == total && total > 0) return ssize_t(done);
    go_to_kernel(fd, turn);
  }
  ssize_t n = write_rest(fd, iov, count, done);
  int error = errno;
  header().writing.fetch_sub(1, std::memory_order_acq_rel);
  if (n >= 0) return ssize_t(done) + n;
  return done > 0 ? ssize_t(done) : -error;
}

// ---- the way back -------------------------------------------------------------------------

// Moves what the ring has into the kernel's pipe, all or nothing. Under both locks, in kernel mode.
bool PipeEnd::move_ring(int from, int to) {
  size_t n = in_ring();
  if (n == 0) return true;
  if (unread_in_kernel(from) != 0 || size_t(libc.fcntl(to, F_GETPIPE_SZ)) < n) return false;
  Pieces<const std::byte> p = channel().observe(n);
  iovec both[2] = {{const_cast<std::byte*>(p.first), p.first_bytes}, {const_cast<std::byte*>(p.second), p.second_bytes}};
  ssize_t k = libc.syscall(SYS_writev, to, both, 2);
  if (k > 0) channel().retire(size_t(k));
  return k == ssize_t(n);
}

// The same when a program without the shim has written there too: what is in the ring comes first.
bool PipeEnd::move_ring_in_front(int from, int to) {
  size_t behind = size_t(unread_in_kernel(from));
  if (behind == 0 || in_ring() == 0) return move_ring(from, to);
  size_t all = behind + in_ring();
  if (size_t(libc.fcntl(to, F_GETPIPE_SZ)) < 2 * all && libc.fcntl(to, F_SETPIPE_SZ, int(2 * all)) < 0) return false;
  void* memory = mmap(nullptr, behind, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  ssize_t k = kernel::read(from, memory, behind);
  bool moved = move_ring(from, to);
  if (k > 0) (void)!kernel::write(to, memory, size_t(k));
  munmap(memory, behind);
  return moved;
}

bool PipeEnd::flush(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int to = int(libc.syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));  // a reading end cannot be written to
  if (to < 0) return false;
  bool all = move_ring_in_front(fd, to);
  kernel::close(to);
  return all;
}

bool PipeEnd::settle(int fd) {
  if (!has_channel()) return true;
  channel().leave();
  if (writes || in_ring() == 0) return true;
  auto never = [] { return false; };
  ProcessLock writers(header().write_lock), readers(header().read_lock);
  if (writers.is_mine() || readers.is_mine()) return false;  // a handler, in the midst of its thread's own call
  (void)!writers.lock(never);
  (void)!readers.lock(never);
  channel().leave();
  bool all = flush(fd);
  readers.unlock();
  writers.unlock();
  return all;
}

bool PipeEnd::settle_for_good(int fd) {
  if (!has_channel()) return true;
  header().kernel_only.store(1, std::memory_order_release);
  return settle(fd);
}

// As send() does it.
PipeEnd::Bypass::Bypass(PipeEnd& p, int fd) : end_(p) {
  if (!p.has_channel()) return;
  Turn turn(p, [] { return false; });
  p.go_to_kernel(fd, turn);
}

PipeEnd::Bypass::~Bypass() {
  if (end_.has_channel()) end_.header().writing.fetch_sub(1, std::memory_order_acq_rel);
}

}  // namespace sluice::preload
