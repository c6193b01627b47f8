// lying_records LENGTH: a client of SOCK_SEQPACKET that says, in its own shared memory, that its second record has
// LENGTH bytes, and the server that reads it. The server prints what it reads, and what becomes of the connection.
#include <errno.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace {

constexpr char kRecord[] = "This one is a lie.";
constexpr size_t kLooked = 16 << 20;  // of each region: rings come after the slots

sem_t* lied;
sem_t* read_all;

void die(const char* what) {
  perror(what);
  exit(1);
}

// The place of the record's length in a region that we write, or null.
char* find_length() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  while (maps != nullptr && fgets(line, sizeof line, maps) != nullptr) {
    uintptr_t begin, end;
    char rights[8];
    bool ours = sscanf(line, "%lx-%lx %7s", &begin, &end, rights) == 3 && rights[1] == 'w' && strstr(line, "memfd") != nullptr;
    size_t size = ours ? (end - begin < kLooked ? end - begin : kLooked) : 0;
    char* found = ours ? static_cast<char*>(memmem(reinterpret_cast<char*>(begin), size, kRecord, sizeof kRecord)) : nullptr;
    if (found != nullptr) return found - 4;
  }
  return nullptr;
}

void lie(const sockaddr_un& name, socklen_t size, uint32_t length) {
  int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&name), size) != 0) die("connect");
  send(fd, "first", 5, 0);
  send(fd, kRecord, sizeof kRecord, 0);
  char* place = find_length();
  if (place == nullptr) die("there is no such record");
  memcpy(place, &length, sizeof length);
  sem_post(lied);
  sem_wait(read_all);
  exit(0);
}

void tell(ssize_t n, const char* bytes) {
  if (n < 0) puts(strerrorname_np(errno));
  else printf("%zd %.*s\n", n, int(n < 5 ? n : 5), bytes);
}

}  // namespace

int main(int, char** argv) {
  auto* shared = static_cast<sem_t*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  lied = shared;
  read_all = shared + 1;
  sem_init(lied, 1, 0);
  sem_init(read_all, 1, 0);
  sockaddr_un name{AF_UNIX, {}};
  int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  socklen_t size = sizeof(sa_family_t);
  if (bind(listener, reinterpret_cast<sockaddr*>(&name), size) != 0 || listen(listener, 1) != 0) die("listen");
  size = sizeof name;
  getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size);
  pid_t client = fork();
  if (client == 0) lie(name, size, uint32_t(strtoul(argv[1], nullptr, 0)));
  int fd = accept(listener, nullptr, nullptr);
  sem_wait(lied);
  char bytes[100];
  int resets = 0;
  for (int i = 0; i < 2; ++i) {
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    tell(n, bytes);
    if (n < 0) ++resets;
  }
  for (int i = 0; i < 3; ++i) {  // a reset is told once; whatever follows, it is the end
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n > 0) puts("more");
    if (n < 0 && ++resets > 1) puts("again");
  }
  if (send(fd, "x", 1, 0) >= 0) puts("sent");
  sem_post(read_all);
  int status;
  waitpid(client, &status, 0);
  return WEXITSTATUS(status);
}
