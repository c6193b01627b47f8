#include "preload/files/pair_end.h"

#include <alloca.h>
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include <utility>

#include "preload/coordinator_link.h"
#include "preload/files/tcp_socket.h"
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
constexpr size_t kHandedBytes = 32 * 1024;
// Counted as accelerated once so many bytes went through the ring.
constexpr uint64_t kCountedPairBytes = 4096;
// After so many reads in a row that found little things in the kernel the ring is wanted only now and then.
constexpr uint32_t kStreak = 8, kStreakLooks = 64;
// More than this is worth waiting for a reader that is somewhere else at the moment.
constexpr size_t kLittle = 4096;
// How often it is looked for, with a pause between two looks: about a microsecond, or 20.
constexpr int kFewLooks = 32, kManyLooks = 640;
// Whoever changes the word so often between two steps of ours is no peer that means well.
constexpr int kMostTurns = 1000;
// About 20 us: far less than a process needs to end and to be waited for.
constexpr uint64_t kCurrentTicks = 1u << 16;

uint32_t hint(const Shared<uint32_t>& word) { return word.load(std::memory_order_relaxed); }  // a hint

}  // namespace

ssize_t send_rest(int fd, const iovec* iov, int count, size_t done, int flags) {
  auto* rest = static_cast<iovec*>(alloca(size_t(count) * sizeof(iovec)));
  msghdr m{};
  m.msg_iov = rest;
  m.msg_iovlen = size_t(rest_of(rest, iov, count, done));
  return outside([&] { return libc.sendmsg(fd, &m, flags | MSG_NOSIGNAL); });
}

// ---- reading ------------------------------------------------------------------------------

// How often a call finds nobody to wait for is told by Spinner; a program that polls first never waits.
ssize_t PairEnd::receive(const iovec* iov, int count, const KernelCall& at_once) {
  Direction& d = in().direction();
  answers_.store(true, std::memory_order_relaxed);
  bool polled = polled_.exchange(false, std::memory_order_relaxed);
  if (hint(d.kernel_only) != 0 && in().readable(in().word()) == 0) return kNowTheKernels;
  if (hint(d.nonblocking) != 0 || polled || total_bytes(iov, count) == 0) return kNowTheKernels;
  // Who is never waited for says nothing, and so the words that both sides write stay where they are.
  uint32_t streak = in_kernel_.load(std::memory_order_relaxed);  // a hint, as below
  if (streak >= kStreak && in().readable(in().word()) == 0) {
    in_kernel_.store(streak + 1, std::memory_order_relaxed);
    if (streak % kStreakLooks != 0) return kNowTheKernels;
  }
  uint32_t unrestarted = signal_counts.unrestarted;
  ProcessLock lock(d.read_lock);
  if (lock.is_mine() || !lock.try_lock_or_take_over()) return kNowTheKernels;  // a handler's, or another reader is inside
  ssize_t n = meet(iov, count, at_once);
  lock.unlock();
  return n == kNowTheKernels && signal_counts.unrestarted != unrestarted ? -EINTR : n;
}

// Under the read lock, until this reader is outside again. In kernel mode if the kernel's turn is next.
ssize_t PairEnd::meet(const iovec* iov, int count, const KernelCall& at_once) {
  uint64_t word = in().word();
  if (Handoff::mode(word) == Handoff::kRing) {  // of a reader that died inside
    in().leave();
    word = in().word();
  }
  if (size_t n = in().readable(word); n > 0) return take_left(iov, count, n);
  if (!Spinner::is_promising()) {
    if (Handoff::mode(word) != Handoff::kKernel) in().leave();
    return kNowTheKernels;
  }
  size_t room = total_bytes(iov, count);
  if (probe_vectors(iov, count, room < kHandoffRingBytes ? room : kHandoffRingBytes, true) != 0) return kNowTheKernels;
  bool inside = Handoff::mode(word) == Handoff::kResting && come_in(word, room);
  ssize_t n = kNowTheKernels;
  if (!inside) inside = ask(at_once, word, room, n);
  if (n != kNowTheKernels) return n;
  if (inside) n = await_and_take(iov, count, word);
  if (!inside) in().leave();
  return n;
}

// Whether this reader is inside. Otherwise `n` says what the kernel had.
bool PairEnd::ask(const KernelCall& at_once, uint64_t& word, size_t room, ssize_t& n) {
  Direction& d = in().direction();
  for (bool again = false;; again = true) {
    word = in().word();
    if (Handoff::mode(word) != Handoff::kWanted && !in().want(word)) return false;
    word = in().word();
    if (Handoff::mode(word) != Handoff::kWanted) return false;
    sleep_wake_fence();  // against go_to_kernel(): one sees the other
    bool alone = d.writing.load(std::memory_order_acquire) == 0;
    n = at_once.make(0);
    if (n > 0) {
      uint32_t streak = size_t(n) <= kLittle ? in_kernel_.load(std::memory_order_relaxed) + 1 : 0;
      in_kernel_.store(streak, std::memory_order_relaxed);
      return false;  // and comes back
    }
    if (n != -EAGAIN) {
      in().leave();
      if (n == -ENOTSOCK || n == -EBADF) n = kNowTheKernels;  // closed by a call that the shim did not see
      return false;
    }
    n = kNowTheKernels;
    if (alone) return come_in(word, room);
    // A writer in the kernel, with much to write perhaps: it is worth asking it to come here.
    if (again || !Spinner::await([&] { return d.writing.load(std::memory_order_acquire) == 0; }, hint(d.writer_cpu), Spinner::never_much)) return false;
  }
}

bool PairEnd::come_in(uint64_t& word, size_t room) {
  if (!in().enter(word, room)) return false;
  in().direction().reader_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  in_kernel_.store(0, std::memory_order_relaxed);
  // leave_for_good() sets this, then leaves; both exchanges are full fences.
  if (in().direction().kernel_only.load(std::memory_order_acquire) != 0) in().leave();
  return true;
}

// What came for a reader that died before it took it, or could not.
ssize_t PairEnd::take_left(const iovec* iov, int count, size_t n) {
  size_t wanted = total_bytes(iov, count);
  if (n > wanted) n = wanted;
  if (copy_out(iov, count, 0, n) != 0) return -EFAULT;
  in().retire(n);
  return ssize_t(n);
}

int PairEnd::copy_out(const iovec* iov, int count, size_t done, size_t n) {
  IovCursor cursor(iov, count, done);
  Pieces<const std::byte> p = in().observe(n);
  if (cursor.scatter(p.first, p.first_bytes) != 0) return -EFAULT;
  return p.second_bytes > 0 ? cursor.scatter(p.second, p.second_bytes) : 0;
}

// Inside: `word` is what it was when this reader came in.
ssize_t PairEnd::await_and_take(const iovec* iov, int count, uint64_t word) {
  auto came = [&] { return in().word() != word; };
  (void)Spinner::await(came, hint(in().direction().writer_cpu), Spinner::never_much);
  size_t room = total_bytes(iov, count), done = 0;
  for (int turns = kMostTurns;; --turns) {
    word = in().word();
    if (size_t n = in().readable(word); n > 0) {
      if (n > room - done) n = room - done;  // else a lie
      if (copy_out(iov, count, done, n) != 0) {
        in().leave();  // the rest stays for the next call
        return done > 0 ? ssize_t(done) : -EFAULT;
      }
      in().retire(n);
      done += n;
      if (done < room) continue;
      word = in().word();
    }
    bool over = Handoff::mode(word) != Handoff::kRing;  // a writer goes to the kernel
    if (over || (done > 0 ? in().rest(word) : in().sleep(word))) break;
    if (done == room || turns <= 0) {  // more than was asked for: a lie
      in().leave();
      break;
    }
  }
  if (done > 0) note_taken(done);
  return done > 0 ? ssize_t(done) : kNowTheKernels;
}

void PairEnd::note_taken(size_t n) {
  uint64_t before = taken_.fetch_add(n, std::memory_order_relaxed);  // a total of this process
  if (((before + n) ^ before) < kCountedPairBytes) return;
  if (hint(header().counted) != 0 || header().counted.exchange(1, std::memory_order_acq_rel) != 0) return;
  Guard guard(control_lock);
  if (coordinator.ensure()) coordinator.count(kSocketPairs);
}

// ---- writing ------------------------------------------------------------------------------

bool PairEnd::is_reader_alive() {
  auto reader = pid_t(hint(out().direction().read_lock) & ~(1u << 31));
  return reader != 0 && !has_ended(uint32_t(reader));
}

// Now and then: whether there is a reader, bytes may be sent, and none are in the kernel's socket that came from a
// program without the shim. Else the ring is over.
bool PairEnd::is_current(int fd) {
  uint64_t now = clock_ticks();
  if (now - looked_at_.load(std::memory_order_relaxed) < kCurrentTicks) return true;  // of this process
  looked_at_.store(now, std::memory_order_relaxed);
  out().direction().writer_cpu.store(current_cpu(), std::memory_order_relaxed);  // a hint
  int unread = -1;
  // Nothing is sent, but for an error if nothing can be: unix_stream_sendmsg looks at both sides' shutdown first.
  if (kernel::send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) == 0 && libc.ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0 &&
      is_reader_alive())
    return true;
  out().leave();
  return false;
}

// A reader will be back, or takes what it has: whether it is worth waiting for, and then here.
bool PairEnd::await_reader(uint64_t word, size_t left, bool wait) {
  bool much = left > kLittle && wait;
  if (!much && !answers_.load(std::memory_order_relaxed)) return false;  // many little ones are the kernel's
  if (hint(out().direction().reader_cpu) == current_cpu()) return false;
  uint32_t misses = disappointments_.load(std::memory_order_relaxed);  // a hint, as below
  if (misses >= 4 && ++misses % 64 != 0) {
    disappointments_.store(misses, std::memory_order_relaxed);
    return false;
  }
  out().direction().writer_cpu.store(current_cpu(), std::memory_order_relaxed);
  for (int i = much ? kManyLooks : kFewLooks; i > 0; --i) {
    if (out().word() != word) {
      disappointments_.store(0, std::memory_order_relaxed);
      return true;
    }
    cpu_relax();
  }
  disappointments_.store(misses + 1, std::memory_order_relaxed);
  return false;
}

// Hands bytes over as long as a reader takes them; returns how many. What cannot be read is for the kernel to
// refuse. Under the write lock.
size_t PairEnd::put(int fd, const iovec* iov, int count, size_t total, bool wait) {
  size_t done = 0;
  for (int turns = kMostTurns; done < total && turns > 0; --turns) {
    uint64_t word = out().word();
    if (Handoff::mode(word) == Handoff::kKernel) break;
    size_t n = Handoff::mode(word) == Handoff::kRing ? Handoff::credit(word) : 0;
    if (n == 0) {
      if (!await_reader(word, total - done, wait)) break;
      continue;
    }
    if (!is_current(fd)) break;
    if (n > total - done) n = total - done;
    if (n > kHandedBytes) n = kHandedBytes;
    Pieces<std::byte> p = out().reserve(word, n);
    IovCursor cursor(iov, count, done);
    if (cursor.gather(p.first, p.first_bytes) != 0 || (p.second_bytes > 0 && cursor.gather(p.second, p.second_bytes) != 0)) break;
    if (!out().publish(word, n)) continue;
    done += n;
    turns = kMostTurns;
  }
  return done;
}

// What came for a reader that died inside goes first. Nobody is inside now.
void PairEnd::move_ring(int fd) {
  ProcessLock readers(out().direction().read_lock);
  if (readers.is_mine() || !readers.try_lock_or_take_over()) return;
  if (size_t n = out().readable(out().word()); n > 0) {
    Pieces<const std::byte> p = out().observe(n);
    iovec both[2] = {{const_cast<std::byte*>(p.first), p.first_bytes}, {const_cast<std::byte*>(p.second), p.second_bytes}};
    msghdr m{};
    m.msg_iov = both;
    m.msg_iovlen = 2;
    ssize_t k = kernel::sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (k > 0) out().retire(size_t(k));
  }
  readers.unlock();
}

// What this thread writes to the kernel next comes after what was handed over. Ends with --writing.
void PairEnd::go_to_kernel(int fd) {
  out().direction().writing.fetch_add(1, std::memory_order_acq_rel);
  sleep_wake_fence();
  if (Handoff::mode(out().word()) != Handoff::kKernel) out().leave();
  if (out().readable(out().word()) != 0) move_ring(fd);
}

ssize_t PairEnd::send(int fd, const iovec* iov, int count, bool wait, const KernelCall& rest) {
  Direction& d = out().direction();
  size_t total = total_bytes(iov, count), done = 0;
  if (total > 0 && hint(d.kernel_only) == 0 && Handoff::mode(out().word()) != Handoff::kKernel) {
    ProcessLock lock(d.write_lock);
    if (!lock.is_mine() && lock.lock([] { return true; })) {
      done = put(fd, iov, count, total, wait);
      lock.unlock();
    }
    answers_.store(false, std::memory_order_relaxed);  // a hint
    if (done == total) return ssize_t(done);
  }
  go_to_kernel(fd);
  ssize_t n = rest.make(done);
  d.writing.fetch_sub(1, std::memory_order_acq_rel);
  if (n >= 0) return ssize_t(done) + n;
  return done > 0 ? ssize_t(done) : n;
}

PairEnd::Bypass::Bypass(PairEnd& p, int fd) : end_(p.has_channel() ? &p : nullptr) {
  if (end_ != nullptr) p.go_to_kernel(fd);
}
PairEnd::Bypass::~Bypass() {
  if (end_ != nullptr) end_->out().direction().writing.fetch_sub(1, std::memory_order_acq_rel);
}

// ---- what else the program does with it ---------------------------------------------------

void PairEnd::note_polled() {
  if (!has_channel()) return;
  polled_.store(true, std::memory_order_relaxed);  // a hint
  leave_resting();
}

void PairEnd::leave_for_good(bool reads, bool writes) {
  kernels = true;
  if (!has_channel()) return;
  for (auto [concerned, way] : {std::pair{reads, in()}, {writes, out()}}) {
    if (!concerned) continue;
    way.direction().kernel_only.store(1, std::memory_order_release);
    way.leave();
  }
}

void PairEnd::note_nonblocking(bool on) {
  nonblocking = on;
  if (!has_channel()) return;
  in().direction().nonblocking.store(on, std::memory_order_relaxed);  // as the kernel's flag
  leave_resting();
}

void PairEnd::leave_resting() {
  if (!has_channel()) return;
  uint64_t word = in().word();
  bool awaited = Handoff::mode(word) == Handoff::kResting || Handoff::mode(word) == Handoff::kWanted;
  if (awaited) (void)!in().sleep(word);  // or another reader has come
}

}  // namespace sluice::preload
