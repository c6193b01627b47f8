// A program that does what --protect=keys is against; see protect_keys.py.
//   key_breaker write PORT   connects, is answered once, and then writes to memory of the library's by mistake
//   key_breaker code PORT    connects; for each line "map", "place", "write+map", "change", "hidden", "by number" makes memory
//                            executable that has an instruction which changes rights, and says what came of it; "confirm" says of all
//                            code that there is once more what it is
// Built with KEY_INSTRUCTION it has such an instruction itself.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

namespace {

constexpr size_t kPage = 4096;
constexpr char kWrpkru[] = "\x0f\x01\xef";

#ifdef KEY_INSTRUCTION
[[gnu::used, gnu::noinline]] void change_rights() { __asm__ volatile("wrpkru" : : "a"(0), "c"(0), "d"(0)); }
#endif

[[noreturn]] void die(const char* what) {
  perror(what);
  exit(1);
}

int connect_to(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(uint16_t(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) die("connect");
  return fd;
}

// Where this process has the bytes that it sends.
char* find_region() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  unsigned long begin, end;
  while (fgets(line, sizeof line, maps) != nullptr)
    if (strstr(line, "sluice-pair") != nullptr && sscanf(line, "%lx-%lx rw", &begin, &end) == 2 && strstr(line, " rw") != nullptr)
      return reinterpret_cast<char*>(begin);
  fprintf(stderr, "no region\n");
  exit(1);
}

void write_by_mistake() {
  char* region = find_region();
  puts("writing");
  fflush(stdout);
  for (size_t i = 0; i < kPage; ++i) static_cast<volatile char*>(region)[i] = char(0xff);
  puts("written");
}

char* prepared_memory(int access) {
  auto* p = static_cast<char*>(mmap(nullptr, kPage, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (p == MAP_FAILED) return nullptr;
  memcpy(p + 100, kWrpkru, sizeof kWrpkru - 1);
  return p;
}

int file_with_code() {
  FILE* f = tmpfile();
  char page[kPage] = {};
  memcpy(page + 100, kWrpkru, sizeof kWrpkru - 1);
  if (fwrite(page, sizeof page, 1, f) != 1 || fflush(f) != 0) die("a file");
  return fileno(f);
}

// As some programs do with all that they have mapped.
int confirm_all() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  unsigned long begin, end;
  int error = ENOENT;
  while (fgets(line, sizeof line, maps) != nullptr)
    if (strstr(line, " r-xp ") != nullptr && strchr(line, '/') != nullptr && sscanf(line, "%lx-%lx", &begin, &end) == 2)
      if (error = mprotect(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_EXEC) == 0 ? 0 : errno; error != 0) break;
  fclose(maps);
  return error;
}

// 0 or an error.
int make_executable(const std::string& how) {
  if (how == "write+map") return prepared_memory(PROT_READ | PROT_WRITE | PROT_EXEC) != nullptr ? 0 : errno;
  if (how == "map") return mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, file_with_code(), 0) != MAP_FAILED ? 0 : errno;
  if (how == "place") {
    auto* before = static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    *before = 'b';
    if (mmap(before, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file_with_code(), 0) != MAP_FAILED) return 0;
    int error = errno;
    return *before == 'b' ? error : EFAULT;
  }
  if (how == "confirm") return confirm_all();
  char* p = prepared_memory(PROT_READ | PROT_WRITE);
  if (p == nullptr) die("mmap");
  if (how == "by number") return syscall(SYS_mprotect, p, kPage, PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
  return mprotect(p, kPage, how == "hidden" ? PROT_EXEC : PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  int fd = connect_to(atoi(argv[2]));
  char answer[4];
  if (write(fd, "ping", 4) != 4 || recv(fd, answer, 4, MSG_WAITALL) != 4) die("an answer");
  if (strcmp(argv[1], "write") == 0) return write_by_mistake(), 0;
  char line[64];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    line[strcspn(line, "\n")] = 0;
    puts(strerrorname_np(make_executable(line)));
    fflush(stdout);
  }
}
