// A hostile application, to be run with the shim: uses sockets and pipes as programs do, while another of its threads writes
// anything into all memory that the shim has for writing. It may well destroy itself.
//
//   hostile_app PORT|PATH --seed=N
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/faults/meeting_place.h"
#include "tests/fuzz/mappings.h"
#include "tests/fuzz/scribbler.h"

namespace {

using sluice::fuzz::Scribbler;

std::mt19937_64 chance;
uint32_t below(uint32_t n) { return uint32_t(chance() % n); }

struct Memory {
  std::byte* base;
  std::size_t bytes;
};

// What is shared and writable in this process.
std::vector<Memory> find_memory() {
  std::vector<Memory> found;
  sluice::fuzz::each_mapping([&](const sluice::fuzz::Mapping& m) {
    if (m.writable && m.shared && m.is_of("memfd:sluice")) found.push_back({m.base, m.bytes});
  });
  return found;
}

[[noreturn]] void scribble(uint64_t seed) {
  Scribbler scribbler(seed);
  for (;;) {
    std::vector<Memory> memory = find_memory();
    for (int i = 0; i < 20'000 && !memory.empty(); ++i) {
      const Memory& m = memory[scribbler.below(uint32_t(memory.size()))];
      scribbler.scribble(m.base, m.bytes);
      if (scribbler.below(64) == 0) usleep(scribbler.below(100));
    }
    if (memory.empty()) usleep(500);
  }
}

// Sends a descriptor along, where that is possible.
void send_descriptor(int fd) {
  char byte = 'x';
  iovec iov{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  *c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  (void)!sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void use(int fd) {
  static char bytes[65536];
  switch (below(12)) {
    case 0:
    case 1:
    case 2:
    case 3: (void)!send(fd, bytes, below(sizeof bytes), MSG_NOSIGNAL | MSG_DONTWAIT); break;
    case 4:
    case 5:
    case 6: (void)!recv(fd, bytes, below(sizeof bytes), MSG_DONTWAIT); break;
    case 7: shutdown(fd, int(below(3))); break;
    case 8: send_descriptor(fd); break;
    case 9: (void)!send(fd, bytes, 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT); break;
    case 10: {
      pollfd p{fd, POLLIN | POLLOUT, 0};
      poll(&p, 1, int(below(3)));
      break;
    }
    default: usleep(below(300));
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = 1;
  if (argc < 2) return 2;
  for (int i = 2; i < argc; ++i) sscanf(argv[i], "--seed=%lu", &seed);
  chance.seed(seed);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  MeetingPlace place(argv[1]);
  std::vector<int> fds;
  bool lies = false;
  for (int i = 0; i < 4000; ++i) {
    uint32_t what = below(100);
    if (fds.size() < 8 && (fds.empty() || what < 6)) {
      int fd = place.make_socket();
      fcntl(fd, F_SETFL, O_NONBLOCK);
      if (place.connect(fd) == 0 || errno == EINPROGRESS) fds.push_back(fd);
      else close(fd);
    } else if (what < 8) {
      std::size_t n = below(uint32_t(fds.size()));
      close(fds[n]);
      fds.erase(fds.begin() + long(n));
    } else if (what == 8 && below(8) == 0) {
      if (fork() == 0) prctl(PR_SET_PDEATHSIG, SIGKILL), lies = false, chance.seed(seed + 1), i = 3500;
    } else if (what == 9 && below(40) == 0) {
      kill(getpid(), SIGKILL);
    } else if (!fds.empty()) {
      use(fds[below(uint32_t(fds.size()))]);
    }
    if (!lies && i > 50 && below(20) == 0) std::thread(scribble, seed).detach(), lies = true;
  }
  _exit(0);
}
