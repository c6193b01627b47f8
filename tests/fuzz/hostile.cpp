// A hostile process without the shim: speaks the protocol itself, and as it likes.
//
//   hostile DIRECTORY PORT --seed=N --rounds=N [--uid=N]
//   hostile DIRECTORY PORT --hold
//
// Each round is an act of a process of its own, which ends in one of several ways, at the latest when its time is up.
// The seed and the number of the round say what it does. The last line counts packets, requests and writes.
// --hold: takes locks of what it has given away, says "held", and keeps them until its input ends; or says "cannot".
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "shm/bell.h"
#include "shm/region.h"
#include "tests/fuzz/raw_client.h"
#include "tests/fuzz/scribbler.h"

namespace sluice::fuzz {
namespace {

using namespace shm;

constexpr unsigned kMostMs = 1500;

struct Counts {
  std::atomic<uint64_t> packets, requests, writes, connections;
};
Counts* counts;  // shared with the processes of the rounds
std::string directory;
uint16_t port;

class Act {
 public:
  explicit Act(uint64_t seed) : random_(seed), scribbler_(seed ^ 0x5eed) {}

  void run(uint32_t which) {
    using Scene = void (Act::*)();
    const Scene scenes[] = {&Act::flood, &Act::replay, &Act::other_ids, &Act::odd_descriptors, &Act::junk, &Act::liar, &Act::liar,
                            &Act::liar, &Act::never_reads, &Act::forks, &Act::holds_a_lock, &Act::any_packets, &Act::spoils_bells};
    if (!c_.connect(directory)) return;
    (this->*scenes[which % (sizeof scenes / sizeof *scenes)])();
    leave();
  }

  int hold() {
    bool held = c_.connect(directory) && hold_locks();
    puts(held ? "held" : "cannot");
    fflush(stdout);
    char byte;
    (void)!read(0, &byte, 1);
    _exit(0);
  }

 private:
  uint32_t below(uint32_t n) { return uint32_t(random_() % n); }
  bool flip() { return random_() & 1; }
  uint64_t wild() { return random_() >> below(64); }
  DomainId someone() { return below(3) ? 2 + below(64) + c_.self / 64 * 64 : DomainId(wild()); }

  void leave() {
    if (below(3) == 0) kill(getpid(), SIGKILL);
    if (below(3) == 0 && fork() == 0) usleep(20'000);  // a child has everything a little longer
    _exit(0);
  }

  bool send(const Packet& p, std::initializer_list<int> fds = {}, const void* body = nullptr, std::size_t n = 0) {
    ++counts->packets;
    return c_.send(p, fds, body, n);
  }

  // ---- requests
  Message some_request() {
    Message m{};
    m.type = uint16_t(below(10) ? 1 + below(kWho + 1) : wild());
    m.status = uint16_t(wild());
    m.id = uint32_t(wild());
    for (uint64_t& w : m.words) w = below(2) ? below(16) : wild();
    if (flip()) m.words[0] = 0, m.words[1] = 0x100007fffff0000;  // 127.0.0.1
    if (flip()) m.words[2] = port;
    return m;
  }
  void flood() {
    if (!c_.hello()) return;
    for (int i = 0; i < 3000; ++i) {
      counts->requests += c_.push(some_request());
      if (below(200) == 0) usleep(below(500));
    }
  }
  void replay() {
    if (!c_.hello()) return;
    Message m = some_request();
    Packet p = some_packet();
    for (int i = 0; i < 1000; ++i) {
      counts->requests += c_.push(m);
      if (i % 16 == 0 && !send(p)) break;
    }
    for (int i = 0; i < 20; ++i) send(RawClient::packet(kHello, c_.self));
  }

  // ---- who others are
  void other_ids() {
    if (!c_.hello(someone())) return;
    for (int i = 0; i < 60; ++i) {
      DomainId d = someone();
      switch (below(7)) {
        case 0: send(RawClient::packet(kAnnouncePair, d, below(4), below(100'000))); break;
        case 1: send(RawClient::packet(kSharersBell, d, below(4), someone())); break;
        case 2: send(RawClient::packet(kCarry, d, below(16))); break;
        case 3: {
          Message m{kWho, 0, 0, {d, wild()}};
          counts->requests += c_.push(m);
          break;
        }
        case 4: {
          int memory = region(kPairBytes, true, d, someone(), below(4));
          send(RawClient::packet(flip() ? kRegion : kPass, d, below(4), d), {memory});
          close(memory);
          break;
        }
        case 5: {  // as if from another, in its own queue, or in the one that all of its user share
          if (c_.uses_noc()) c_.push_framed(some_request(), d);
          if (c_.queue == nullptr) break;
          SharedQueueRegion& q = *c_.queue;
          uint64_t ticket = q.tail.fetch_add(1, std::memory_order_acq_rel);
          SharedEntry& e = q.entries[ticket % kSharedMessages];
          e.sender = d;
          e.message = some_request();
          e.sequence.store(ticket + 1, std::memory_order_release);
          break;
        }
        default: {
          RawClient again;
          if (again.connect(directory)) (void)again.hello(d);
        }
      }
    }
  }

  // ---- descriptors
  int region(std::size_t bytes, bool sealed, DomainId writer, DomainId reader, uint32_t generation) {
    int fd = create_region("hostile", bytes);
    PairHeader h{};
    h.magic = kMagic;
    h.version = kProtocolVersion;
    h.writer = writer;
    h.reader = reader;
    h.generation = generation;
    if (write(fd, static_cast<const void*>(&h), sizeof h) < 0) return fd;
    if (flip()) (void)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);  // writes on
    if (sealed) (void)seal_region(fd, flip() ? Protect::kRegions : Protect::kNone);
    return fd;
  }
  int odd_descriptor() {
    int ends[2] = {-1, -1};
    switch (below(16)) {
      case 0: return pipe2(ends, O_CLOEXEC) == 0 ? (close(ends[1]), ends[0]) : -1;
      case 1: return pipe2(ends, O_CLOEXEC) == 0 ? ends[1] : -1;
      case 2: return socketpair(AF_UNIX, flip() ? SOCK_STREAM : SOCK_DGRAM, 0, ends) == 0 ? ends[0] : -1;
      case 3: return ::socket(AF_INET, SOCK_STREAM, 0);
      case 4: return eventfd(0, 0);
      case 5: return open("/dev/zero", O_RDWR);
      case 6: return open("/proc/self/mem", O_RDONLY);
      case 7: return open("/", O_PATH);
      case 8: return region(kClientBytes, false, 0, 0, 0);
      case 9: return region(flip() ? kPairBytes : kClientBytes - 4096, true, c_.self, someone(), 0);
      case 10: return region(std::size_t{1} << 40, true, 0, 0, 0);
      case 11: {
        int fd = memfd_create("hostile-huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
        if (fd >= 0) (void)!ftruncate(fd, off_t(kPairBytes));
        if (fd >= 0) (void)seal_region(fd, Protect::kRegions);
        return fd;
      }
      case 12: return dup(c_.socket);
      case 13: return c_.bell[below(2)] >= 0 ? dup(c_.bell[below(2)]) : -1;
      case 14: return c_.summons >= 0 ? dup(c_.summons) : -1;
      default: return int(syscall(SYS_pidfd_open, getpid(), 0));
    }
  }
  Packet some_packet() {
    Packet p = RawClient::packet(uint16_t(below(10) ? 1 + below(kSharersBell) : wild()), someone(), below(4), below(8), below(4));
    if (below(8) == 0) (&p.domain)[below(4)] = uint32_t(wild());
    return p;
  }
  void odd_descriptors() {
    if (flip() && !c_.hello()) return;
    for (int i = 0; i < 30; ++i) {
      int a = odd_descriptor(), b = odd_descriptor(), d = odd_descriptor();
      if (a >= 0 && b >= 0 && d >= 0) {
        RawClient again;
        if (below(4) == 0 && again.connect(directory)) (void)again.hello(0, flip() ? a : -1, flip() ? b : -1);
        Packet p = some_packet();
        switch (below(4)) {
          case 0: send(p, {a}); break;
          case 1: send(p, {a, b}); break;
          case 2: send(p, {a, b, d}); break;
          default: send(p, {a, b, d, a, b, d, a, b}); break;
        }
      }
      for (int fd : {a, b, d})
        if (fd >= 0) close(fd);
      if (!c_.receive(answer_, nullptr, 1) && below(6) == 0) again();
    }
  }
  // Who broke the protocol is thrown out, and comes back.
  void again() {
    close(c_.socket);
    if (!c_.connect(directory)) _exit(0);
  }

  void junk() {
    if (flip()) (void)c_.hello();
    char bytes[4096];
    for (int i = 0; i < 200; ++i) {
      for (char& b : bytes) b = char(random_());
      Packet p = some_packet();
      if (flip()) memcpy(bytes, &p, sizeof p);
      ++counts->packets;
      if (::send(c_.socket, bytes, below(flip() ? 200 : 4096), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) again();
    }
  }
  void any_packets() {
    if (!c_.hello()) return;
    for (int i = 0; i < 200; ++i) {
      NameBody body{};
      for (std::size_t n = 0; n < sizeof body; ++n) reinterpret_cast<char*>(&body)[n] = char(below(4) ? 0 : random_());
      body.name_bytes = below(4) ? below(113) : uint32_t(wild());
      if (!send(some_packet(), {}, flip() ? &body : nullptr, sizeof body)) again(), (void)c_.hello();
    }
  }

  // ---- a connection
  bool meet() {
    if (!c_.hello()) return false;
    Message m{kConnect, 0, 0, {0, 0x100007fffff0000, port, flip()}};
    if (!c_.ask(m) || m.status != 0) return false;
    listener_ = uint32_t(m.words[0] >> 32);
    if (!c_.open_pair(DomainId(m.words[0]), below(4))) return false;
    int n = 1 + int(below(4));
    for (int i = 0; i < n; ++i) c_.begin_connection(below(8), listener_, port);
    counts->connections += uint64_t(n);
    if (flip()) (void)c_.receive(answer_, nullptr, 50);
    return true;
  }
  // Writes into all that it may write while the other side reads.
  void liar() {
    if (!meet()) return;
    uint64_t n = 1000 + below(100'000);
    for (uint64_t i = 0; i < n; ++i) {
      scribbler_.scribble(c_.out.base, kPairBytes);
      uint32_t what = below(256);
      if (what < 8) c_.push_ready(below(8));
      else if (what == 8) c_.begin_connection(below(8), listener_, port);
      else if (what == 9) usleep(below(200));
      else if (what == 10) scribbler_.scribble(reinterpret_cast<std::byte*>(c_.region), kClientBytes);
      else if (what == 11) c_.ring_peer();
      else if (what == 12 && below(50) == 0) send(some_packet());
    }
    counts->writes += n;
  }
  void never_reads() {
    if (!meet()) return;
    for (int i = 0; i < 2000; ++i) {
      counts->requests += c_.push(some_request());
      if (!send(RawClient::packet(flip() ? kSync : kSockets))) break;
    }
    usleep(below(1000) * 1000);
  }
  void forks() {
    if (flip() && !meet()) return;
    for (int i = 0; i < 12; ++i) {
      int ends[2];
      if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return;
      send(RawClient::packet(kReserve, c_.self), {ends[1]});
      if (flip()) close(ends[1]);  // else it has the coordinator's end as well
      if (flip() && fork() == 0) {
        int keep = c_.socket;
        c_.socket = ends[0];
        (void)c_.receive(answer_);
        if (flip()) (void)c_.hello(answer_.domain);
        if (flip()) send(some_packet());
        c_.socket = keep;
        if (flip()) kill(getpid(), SIGKILL);
        usleep(below(50'000));
        _exit(0);
      }
      if (flip()) close(ends[0]);
    }
  }

  // ---- what is shared with a descriptor
  // Reads from a socket that it has given away, into memory that never comes: who reads there as well waits for its lock.
  // False: userfaultfd(2) is not for us.
  bool hold_locks() {
    int faults = int(syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api{UFFD_API, 0, 0};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0) return false;
    void* never = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uffdio_register all{{reinterpret_cast<uint64_t>(never), kPageBytes}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (ioctl(faults, UFFDIO_REGISTER, &all) != 0 || !meet()) return false;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return false;
    send(RawClient::packet(kReserve, c_.self), {ends[1]});
    (void)c_.receive(answer_);
    Packet p = some_packet();
    for (int i = 0; i < 3; ++i) (void)::send(ends[0], &p, sizeof p, MSG_NOSIGNAL | MSG_DONTWAIT);
    std::thread([=] { (void)recv(ends[1], never, 16, 0); }).detach();
    // Likewise with the lock of a region that several write, and a ticket of which the coordinator lets go there.
    std::vector<int> passed;
    if (!send(RawClient::packet(kPass, c_.peer, c_.generation, c_.self), {c_.bell[1], c_.bell[0]})) return true;
    if (!c_.await(kPass, answer_, &passed) || passed.size() != 1) return true;
    uint32_t number = answer_.value;
    int memory = passed[0], ticket[2];
    std::thread([=] { (void)!pwrite(memory, never, 16, 4096); }).detach();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ticket) != 0) return true;
    send(RawClient::packet(kDeposit, 0, number, 0, 0), {ticket[0], ticket[1]});
    (void)c_.await(kDeposit, answer_);
    send(RawClient::packet(kPass, c_.peer, c_.generation, c_.self), {c_.bell[1], c_.bell[0]});
    usleep(10'000);  // so that both threads are in the kernel; one that is not yet there holds nothing
    close(ticket[0]);
    close(ticket[1]);
    for (int i = 0; i < 3; ++i) (void)::send(ends[0], &p, sizeof p, MSG_NOSIGNAL | MSG_DONTWAIT);
    return true;
  }
  void holds_a_lock() {
    if (!hold_locks()) return;
    usleep(200'000);
    kill(getpid(), SIGKILL);
  }
  void spoils_bells() {
    if (!meet()) return;
    for (int fd : {c_.peers_bell, c_.summons, c_.bell[0], c_.bell[1]}) {
      fcntl(fd, F_SETFL, 0);
      uint64_t full = UINT64_MAX - 1;
      if (fd != c_.bell[0]) (void)!::send(fd, &full, sizeof full, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (fd == c_.summons) (void)!write(fd, &full, sizeof full);
      if (flip()) shutdown(fd, SHUT_RDWR);
      if (flip()) fcntl(fd, F_SETOWN, getpid());
    }
    for (int i = 0; i < 2000; ++i) {
      c_.out.header().sleeping.fetch_add(1, std::memory_order_release);
      c_.push_ready(below(8));
      scribbler_.scribble(c_.out.base, kPairBytes);
    }
    counts->writes += 2000;
  }

  std::mt19937_64 random_;
  Scribbler scribbler_;
  RawClient c_;
  Packet answer_{};
  uint32_t listener_ = 0;
};

void play(uint64_t seed, uint64_t round) {
  pid_t actor = fork();
  if (actor == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Act(seed * 1'000'003 + round).run(uint32_t(round));
    _exit(0);
  }
  int pidfd = int(syscall(SYS_pidfd_open, actor, 0));
  pollfd p{pidfd, POLLIN, 0};
  if (poll(&p, 1, kMostMs) == 0) kill(actor, SIGKILL);
  int status;
  waitpid(actor, &status, 0);
  close(pidfd);
}

}  // namespace
}  // namespace sluice::fuzz

int main(int argc, char** argv) {
  using namespace sluice::fuzz;
  uint64_t seed = 1, rounds = 13;
  bool holds = false;
  uint32_t uid = 0;
  if (argc < 3) return 2;
  directory = argv[1];
  port = uint16_t(atoi(argv[2]));
  for (int i = 3; i < argc; ++i) {
    sscanf(argv[i], "--seed=%lu", &seed);
    sscanf(argv[i], "--rounds=%lu", &rounds);
    sscanf(argv[i], "--uid=%u", &uid);
    holds |= strcmp(argv[i], "--hold") == 0;
  }
  if (uid != 0 && (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0)) return 2;
  signal(SIGPIPE, SIG_IGN);
  counts = static_cast<Counts*>(mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (holds) return Act(seed).hold();
  for (uint64_t round = 0; round < rounds; ++round) play(seed, round);
  printf("{\"rounds\": %lu, \"packets\": %lu, \"requests\": %lu, \"writes\": %lu, \"connections\": %lu}\n", rounds,
         counts->packets.load(), counts->requests.load(), counts->writes.load(), counts->connections.load());
  return 0;
}
