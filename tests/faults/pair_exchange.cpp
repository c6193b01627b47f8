// pair_exchange ROUNDS SEED asks|streams|polls: two processes exchange messages of known bytes over a socket pair, in turn or
// both ways at once, until one of them is killed. The other must have got, whole and in order, every message that the dead has
// finished writing, and then the end or a reset. Prints how many messages came.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Frame {
  uint32_t bytes, number, from;  // a piece of what both sides know
};

// What outlives whoever is killed.
struct Account {
  std::atomic<uint32_t> sent[2];
  std::atomic<uint32_t> received[2];
};

bool asks = false, polls = false;

[[noreturn]] void fail(const std::string& what) {
  fprintf(stderr, "pair_exchange: %s\n", what.c_str());
  _exit(1);
}

// Cheap to take from and to compare with: the two should meet more often than they compute.
constexpr uint32_t kLongest = 100'000;
std::vector<char> known(3 * kLongest);

// False once nobody is there to read it.
bool write_message(int fd, std::atomic<uint32_t>& sent, std::mt19937& random) {
  Frame f{uint32_t(random() % (random() % 8 == 0 ? kLongest : 64)), sent, uint32_t(random() % kLongest)};
  std::vector<char> all(sizeof f + f.bytes);
  memcpy(all.data(), &f, sizeof f);
  memcpy(all.data() + sizeof f, known.data() + f.from, f.bytes);
  for (size_t done = 0; done < all.size();) {
    ssize_t n = send(fd, all.data() + done, all.size() - done, MSG_NOSIGNAL);
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
    if (n <= 0) fail(std::string("send: ") + strerror(errno));
    done += size_t(n);
  }
  ++sent;
  return true;
}

// False at the end, which may come within a message.
bool take(int fd, void* to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    pollfd p{fd, POLLIN, 0};
    if (polls && poll(&p, 1, -1) != 1) fail("poll");
    ssize_t n = read(fd, static_cast<char*>(to) + done, bytes - done);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return false;
    if (n < 0) fail(std::string("read: ") + strerror(errno));
    done += size_t(n);
  }
  return true;
}

bool read_message(int fd, std::atomic<uint32_t>& received) {
  Frame f;
  if (!take(fd, &f, sizeof f)) return false;
  if (f.number != received) fail("message " + std::to_string(f.number) + " instead of " + std::to_string(received));
  if (f.bytes > kLongest || f.from > kLongest) fail("a length that nobody has sent");
  std::vector<char> data(f.bytes);
  if (!take(fd, data.data(), data.size())) return false;
  if (memcmp(data.data(), known.data() + f.from, f.bytes) != 0) fail("message " + std::to_string(f.number) + " has other bytes");
  ++received;
  return true;
}

pid_t start(int ends[2], int side, Account& account, uint32_t seed) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  alarm(60);
  close(ends[1 - side]);
  int fd = ends[side];
  std::mt19937 random(seed);
  auto write = [&] { return write_message(fd, account.sent[side], random); };
  auto read = [&] { return read_message(fd, account.received[side]); };
  if (asks) {
    if (side == 0) (void)write();
    while (read() && write()) {
    }
    while (read()) {
    }
    _exit(0);
  }
  std::thread writer([&] {
    while (write()) {
    }
  });
  while (read()) {
  }
  writer.join();
  _exit(0);
}

void run_round(Account& account, std::mt19937& random) {
  for (int side : {0, 1}) {
    account.sent[side] = 0;
    account.received[side] = 0;
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) fail("socketpair");
  pid_t pids[2];
  for (int side : {0, 1}) pids[side] = start(ends, side, account, random());
  for (int end : ends) close(end);
  int victim = int(random() % 2), survivor = 1 - victim;
  timespec a_while{0, long(random() % 12'000'000)};  // any moment will do
  nanosleep(&a_while, nullptr);
  kill(pids[victim], SIGKILL);
  int status;
  if (waitpid(pids[victim], &status, 0) < 0 || !WIFSIGNALED(status)) fail("the victim ended by itself");
  if (waitpid(pids[survivor], &status, 0) < 0 || status != 0) fail("the survivor failed with " + std::to_string(status));
  if (account.received[survivor] < account.sent[victim])
    fail(std::to_string(account.sent[victim]) + " sent, " + std::to_string(account.received[survivor]) + " received");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  asks = strcmp(argv[3], "asks") == 0;
  polls = strcmp(argv[3], "polls") == 0;
  std::mt19937 random(uint32_t(atoi(argv[2])));
  for (char& c : known) c = char(random());
  void* memory = mmap(nullptr, sizeof(Account), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto& account = *static_cast<Account*>(memory);
  uint64_t messages = 0;
  for (int round = atoi(argv[1]); round > 0; round--) {
    run_round(account, random);
    messages += account.received[0] + account.received[1];
  }
  printf("%llu\n", static_cast<unsigned long long>(messages));
}
