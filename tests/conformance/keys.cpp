// --protect=keys: outside the library nothing can be written that it has mapped, whichever way a call has left it. Needs the
// library and a processor with protection keys.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

constexpr uintptr_t kPage = 4096;

struct Mapping {
  uintptr_t begin, end;
  bool writable;
  std::string name;
  int key;
};

std::vector<Mapping> mappings() {
  std::vector<Mapping> all;
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream words(line);
    std::string range, access, skipped;
    words >> range >> access;
    if (size_t dash = range.find('-'); dash != std::string::npos && access.size() == 4) {
      words >> skipped >> skipped >> skipped >> std::ws;
      Mapping m{std::stoul(range.substr(0, dash), nullptr, 16), std::stoul(range.substr(dash + 1), nullptr, 16), access[1] == 'w', "", 0};
      std::getline(words, m.name);
      all.push_back(m);
    } else if (range == "ProtectionKey:") {
      all.back().key = std::stoi(access);
    }
  }
  return all;
}

bool is_regions(const Mapping& m) { return m.name.find("/memfd:sluice-") != std::string::npos; }
bool is_librarys(const Mapping& m) { return m.name.find("libsluice") != std::string::npos; }

std::vector<Mapping> keyed() {
  std::vector<Mapping> found;
  for (const Mapping& m : mappings())
    if (m.key != 0) found.push_back(m);
  return found;
}

// ---- attempts ---------------------------------------------------------------------------

thread_local sigjmp_buf back;
thread_local volatile int code = 0;

void on_fault(int, siginfo_t* info, void*) {
  code = info->si_code;
  siglongjmp(back, 1);
}

void catch_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  CHECK_OK(sigaction(SIGSEGV, &action, nullptr));
}

// The si_code of the SIGSEGV; 0: it could be written.
int write_to(uintptr_t address) {
  auto* byte = reinterpret_cast<volatile char*>(address);
  code = 0;
  if (sigsetjmp(back, 1) == 0) *byte = *byte;
  return code;
}

// A page of the library's that is written at every call.
uintptr_t state() {
  static uintptr_t found = 0;
  for (const Mapping& m : found == 0 ? keyed() : std::vector<Mapping>())
    if (m.writable && is_librarys(m)) found = m.begin;
  CHECK_TRUE(found != 0);
  return found;
}

int key_of_library() {
  for (const Mapping& m : keyed()) return m.key;
  return -1;
}

bool is_shut() { return write_to(state()) == SEGV_PKUERR; }

Pair prepared_pair() {
  catch_faults();
  Pair p = make_pair();
  CHECK_TRUE(is_shut());
  return p;
}

volatile bool was_shut;
volatile int calls;
sigjmp_buf out;

void look(int) {
  was_shut = is_shut();
  ++calls;
}
void look_and_leave(int) {
  was_shut = is_shut();
  siglongjmp(out, 1);
}

}  // namespace

TEST("no page that the library maps can be written") {
  catch_faults();
  auto [fd, peer] = connect_peer(Where::kPeerConnects);
  Pair own = make_pair();
  int pipe_ends[2], pair_ends[2];
  CHECK_OK(pipe(pipe_ends));
  CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair_ends));
  int epfd = CHECK_OK(epoll_create1(0));
  epoll_event event{EPOLLIN, {}};
  CHECK_OK(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
  pid_t child = in_child([&] {  // a fork gives them channels
    write_all(pipe_ends[1], "p");
    write_all(pair_ends[1], "s");
  });
  CHECK_EQ(read_exactly(pipe_ends[0], 1), "p");
  CHECK_EQ(read_exactly(pair_ends[0], 1), "s");
  CHECK_EQ(wait_exit(child), 0);

  size_t pages = 0, files = 0;
  for (const Mapping& m : mappings()) {
    if (is_regions(m)) CHECK_TRUE(m.key != 0);
    if (is_librarys(m) && m.writable) CHECK_TRUE(m.key != 0);
    if (!is_regions(m) && !is_librarys(m) && m.key == 0) continue;
    files += is_regions(m);
    for (uintptr_t page = m.begin; page < m.end; page += kPage, ++pages) {
      CHECK_TRUE(write_to(page) != 0);
      if (m.writable) CHECK_EQ(int(code), SEGV_PKUERR);
    }
  }
  CHECK_TRUE(files >= 8);       // two pairs of regions or more, the client's own, replies, directory, two channels
  CHECK_TRUE(pages > 100'000);  // regions are sparse and large

  write_all(fd, "ping");
  CHECK_EQ(peer.receive(4), "ping");
  write_all(own.client, "x");
  CHECK_EQ(read_exactly(own.server, 1), "x");
}

TEST("the kernel does not write there for the program") {
  Pair p = prepared_pair();
  int zeros = CHECK_OK(open("/dev/zero", O_RDONLY));
  CHECK_ERRNO(read(zeros, reinterpret_cast<void*>(state()), 1), EFAULT);
  int ends[2];
  CHECK_OK(pipe(ends));
  write_all(ends[1], "x");
  CHECK_ERRNO(read(ends[0], reinterpret_cast<void*>(state()), 1), EFAULT);
}

TEST("nor does it when a call tells of something that is not the library's") {
  Pair p = prepared_pair();
  auto* page = reinterpret_cast<void*>(state());
  CHECK_ERRNO(stat("/", static_cast<struct stat*>(page)), EFAULT);
  CHECK_ERRNO(fstatat(AT_FDCWD, "/", static_cast<struct stat*>(page), 0), EFAULT);
  CHECK_ERRNO(statx(AT_FDCWD, "/", 0, STATX_ALL, static_cast<struct statx*>(page)), EFAULT);
  CHECK_ERRNO(fstat(p.client, static_cast<struct stat*>(page)), EFAULT);
}

TEST("nor does a call on a connection that has something for it") {
  Pair p = prepared_pair();
  write_all(p.server, "xyz");
  int set = CHECK_OK(epoll_create1(0));
  epoll_event event{EPOLLIN, {}};
  CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, p.client, &event));
  int file = CHECK_OK(open("/proc/self/exe", O_RDONLY));
  size_t count = 0;
  for (const Mapping& m : mappings()) {
    if (!m.writable || m.key == 0) continue;
    ++count;
    auto* at = reinterpret_cast<void*>(m.begin + kPage / 2);
    CHECK_ERRNO(recv(p.client, at, 1, 0), EFAULT);
    CHECK_ERRNO(recv(p.client, at, 1, MSG_PEEK), EFAULT);
    char first;
    iovec both[] = {{&first, 1}, {at, 2}};
    CHECK_EQ(readv(p.client, both, 2) >= 0 ? 0 : errno, EFAULT);
    msghdr message{};
    message.msg_iov = &both[1];
    message.msg_iovlen = 1;
    CHECK_ERRNO(recvmsg(p.client, &message, 0), EFAULT);
    message.msg_iov = both;
    message.msg_control = at;
    message.msg_controllen = 64;
    CHECK_EQ(recvmsg(p.client, &message, MSG_PEEK), 1);  // TCP has nothing for it
    sockaddr_in from;
    CHECK_ERRNO(recvfrom(p.client, &first, 1, MSG_PEEK, reinterpret_cast<sockaddr*>(&from), static_cast<socklen_t*>(at)), EFAULT);
    CHECK_ERRNO(sendfile(p.client, file, static_cast<off_t*>(at), 1), EFAULT);
    CHECK_ERRNO(epoll_wait(set, static_cast<epoll_event*>(at), 1, 0), EFAULT);
    socklen_t length = sizeof(int);
    CHECK_ERRNO(getsockopt(p.client, SOL_SOCKET, SO_TYPE, at, &length), EFAULT);
    length = sizeof(sockaddr_in);
    CHECK_ERRNO(getpeername(p.client, static_cast<sockaddr*>(at), &length), EFAULT);
    CHECK_ERRNO(ioctl(p.client, FIONREAD, at), EFAULT);
    CHECK_TRUE(is_shut());
  }
  CHECK_TRUE(count >= 6);  // tables, variables, two regions of one's own
  CHECK_EQ(read_exactly(p.client, 3), "xyz");
}

TEST("memory behind the end of a file may become executable") {
  catch_faults();
  char path[] = "/tmp/sluice-keys.XXXXXX";
  int fd = CHECK_OK(mkstemp(path));
  CHECK_OK(unlink(path));
  CHECK_TRUE(mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
  CHECK_OK(ftruncate(fd, 3 * kPage));
  void* more = mmap(nullptr, 8 * kPage, PROT_READ, MAP_PRIVATE, fd, 0);
  CHECK_TRUE(more != MAP_FAILED);
  CHECK_OK(mprotect(more, 8 * kPage, PROT_READ | PROT_EXEC));
  CHECK_OK(mprotect(more, 8 * kPage, PROT_EXEC));
  CHECK_OK(mprotect(more, 8 * kPage, PROT_NONE));
}

TEST("other threads are outside as well") {
  Pair p = prepared_pair();
  Worker worker([&] {
    CHECK_TRUE(is_shut());
    CHECK_EQ(read_exactly(p.server, 1), "x");
    CHECK_TRUE(is_shut());
    write_all(p.server, "y");
    CHECK_TRUE(is_shut());
  });
  worker.await_sleep();
  write_all(p.client, "x");
  CHECK_EQ(read_exactly(p.client, 1), "y");
  worker.join();
}

TEST("calls that fail leave shut") {
  Pair p = prepared_pair();
  char byte;
  CHECK_ERRNO(recv(p.client, &byte, 1, MSG_DONTWAIT), EAGAIN);
  CHECK_TRUE(is_shut());
  write_all(p.server, "x");
  CHECK_ERRNO(recv(p.client, nullptr, 1, 0), EFAULT);
  CHECK_TRUE(is_shut());
  char* nowhere = static_cast<char*>(mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK_ERRNO(send(p.client, nowhere, kPage, 0), EFAULT);
  CHECK_TRUE(is_shut());
  CHECK_ERRNO(accept(p.client, nullptr, nullptr), EINVAL);
  CHECK_TRUE(is_shut());
  CHECK_ERRNO(execl("/", "/", nullptr), EACCES);
  CHECK_TRUE(is_shut());
}

TEST("a handler that interrupts a call inside runs outside") {
  Pair p = prepared_pair();
  on_signal(SIGUSR1, look);
  Worker worker([&] {
    char byte;
    CHECK_ERRNO(recv(p.server, &byte, 1, 0), EINTR);
    CHECK_TRUE(is_shut());
  });
  worker.await_sleep();
  worker.signal_until_done(SIGUSR1);
  worker.join();
  CHECK_TRUE(was_shut);
  CHECK_TRUE(calls > 0);
}

TEST("a handler with SA_RESTART runs outside and the call goes on") {
  Pair p = prepared_pair();
  on_signal(SIGUSR1, look, SA_RESTART);
  Worker worker([&] { CHECK_EQ(read_exactly(p.server, 1), "x"); });
  for (int i = 1; i <= 20; ++i) {
    worker.await_sleep();
    worker.signal(SIGUSR1);
    eventually([=] { return calls >= i; });
    CHECK_TRUE(was_shut);
  }
  write_all(p.client, "x");
  worker.join();
}

TEST("whoever leaves a handler by longjmp is outside") {
  Pair p = prepared_pair();
  on_signal(SIGUSR1, look_and_leave);
  Worker worker([&] {
    char byte;
    if (sigsetjmp(out, 1) == 0) {
      (void)!recv(p.server, &byte, 1, 0);
      CHECK_TRUE(false);
    }
    CHECK_TRUE(is_shut());
    CHECK_EQ(read_exactly(p.server, 1), "x");
    CHECK_TRUE(is_shut());
  });
  worker.await_sleep();
  worker.signal(SIGUSR1);
  eventually([&] { return was_shut; });
  write_all(p.client, "x");
  worker.join();
}

TEST("a handler in the middle of many calls, at any instruction") {
  Pair p = prepared_pair();
  on_signal(SIGUSR1, look, SA_RESTART);
  std::atomic<bool> over = false;
  Worker worker([&] {
    char bytes[64] = {};
    while (!over) {
      write_all(p.client, std::string_view(bytes, sizeof bytes));
      CHECK_EQ(recv(p.server, bytes, sizeof bytes, MSG_WAITALL), sizeof bytes);
    }
    CHECK_TRUE(is_shut());
  });
  for (int i = 1; i <= 5000; ++i) {
    worker.signal(SIGUSR1);
    eventually([=] { return calls >= i; });
    CHECK_TRUE(was_shut);
  }
  over = true;
  worker.join();
}

// ---- threads that end ---------------------------------------------------------------------

namespace {

std::atomic<int> shut_at_end{0};

void count_shut(void*) { shut_at_end += is_shut(); }

void* wait_for_byte(void* fd) {
  pthread_key_t key;
  CHECK_EQ(pthread_key_create(&key, count_shut), 0);
  CHECK_EQ(pthread_setspecific(key, &shut_at_end), 0);
  char byte;
  pthread_cleanup_push(count_shut, nullptr);
  (void)!recv(int(intptr_t(fd)), &byte, 1, 0);
  pthread_cleanup_pop(1);
  return nullptr;
}

void check_end(bool cancelled, bool asynchronous) {
  Pair p = prepared_pair();
  Listener udp{CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), 0};  // of the kernel's
  pthread_t thread;
  int fd = asynchronous ? udp.fd : p.server;
  CHECK_EQ(pthread_create(&thread, nullptr, wait_for_byte, reinterpret_cast<void*>(intptr_t(fd))), 0);
  if (cancelled) {
    pause_ms(20);
    CHECK_EQ(pthread_cancel(thread), 0);
  } else {
    write_all(p.client, "x");
  }
  void* result;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK_EQ(result == PTHREAD_CANCELED, cancelled);
  CHECK_EQ(int(shut_at_end), 2);
  write_all(p.client, "x");
  if (cancelled) CHECK_EQ(read_exactly(p.server, 1), "x");
}

}  // namespace

TEST("a thread that cancels itself, asynchronously, ends outside") {
  Pair p = prepared_pair();
  pthread_t thread;
  auto body = [](void* fd) -> void* {
    pthread_cleanup_push(count_shut, nullptr);
    write_all(int(intptr_t(fd)), "x");
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    pthread_cancel(pthread_self());
    pthread_cleanup_pop(0);
    return nullptr;
  };
  CHECK_EQ(pthread_create(&thread, nullptr, body, reinterpret_cast<void*>(intptr_t(p.client))), 0);
  void* result;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK_TRUE(result == PTHREAD_CANCELED);
  CHECK_EQ(int(shut_at_end), 1);
}

TEST("a thread that returns ends outside") { check_end(false, false); }
TEST("a thread that is cancelled inside ends outside") { check_end(true, false); }
TEST("a thread that is cancelled in the kernel's call ends outside") { check_end(true, true); }

// ---- processes ----------------------------------------------------------------------------

TEST("children are outside, and may use what they inherit") {
  Pair p = prepared_pair();
  pid_t child = in_child([&] {
    CHECK_TRUE(is_shut());
    write_all(p.client, "x");
    CHECK_TRUE(is_shut());
  });
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(read_exactly(p.server, 1), "x");
  pid_t copy = vfork();
  if (copy == 0) {
    was_shut = is_shut();
    close(p.client);
    was_shut = was_shut && is_shut();
    _exit(0);
  }
  CHECK_EQ(wait_exit(copy), 0);
  CHECK_TRUE(was_shut);
  CHECK_TRUE(is_shut());
  write_all(p.client, "y");
  CHECK_EQ(read_exactly(p.server, 1), "y");
}

TEST("what runs around a fork is outside") {
  Pair p = prepared_pair();
  static int key = key_of_library();
  // Without a fault: some run where all signals are blocked.
  static auto count = [] { shut_at_end += pkey_get(key) == PKEY_DISABLE_WRITE; };
  pthread_atfork([] { count(); }, [] { count(); }, [] { count(); });
  pid_t child = fork();
  if (child == 0) _exit(shut_at_end == 2 ? 0 : 1);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(int(shut_at_end), 2);
  // And around the one that an exec makes, for what stays open.
  fcntl(p.client, F_SETFD, 0);
  CHECK_ERRNO(execl("/proc/self/exe/nothing", "nothing", nullptr), ENOTDIR);
  child = fork();
  if (child == 0) execl("/bin/true", "true", nullptr);
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a program that exits runs its destructors") {
  pid_t child = fork();
  if (child == 0) {
    Pair p = prepared_pair();
    static int fd = p.client;
    atexit([] {
      CHECK_TRUE(is_shut());
      write_all(fd, "x");
    });
    exit(7);
  }
  CHECK_EQ(wait_exit(child), 7);
}

// ---- threads without any rights -----------------------------------------------------------

namespace {

int fd_of_handler = -1;
volatile int received = 0;

void receive_in_handler(int) {
  char byte;
  received = int(recv(fd_of_handler, &byte, 1, MSG_DONTWAIT));
  was_shut = is_shut();
}

}  // namespace

TEST("a thread without any rights may use connections") {
  Pair p = prepared_pair();
  CHECK_OK(pkey_set(key_of_library(), PKEY_DISABLE_ACCESS));
  write_all(p.client, "x");
  CHECK_TRUE(is_shut());
  CHECK_OK(pkey_set(key_of_library(), PKEY_DISABLE_ACCESS));
  CHECK_EQ(read_exactly(p.server, 1), "x");
  CHECK_TRUE(is_shut());
  CHECK_OK(pkey_set(key_of_library(), PKEY_DISABLE_ACCESS));
  CHECK_TRUE(is_shut());
}

TEST("a handler that the library did not see installed may use connections") {
  Pair p = prepared_pair();
  struct {
    void (*handler)(int);
    unsigned long flags;
    void* restorer;
    unsigned long mask;
  } action{}, old{};
  on_signal(SIGUSR1, look);  // which gives us libc's restorer
  // By the instruction itself: syscall(2) is the library's.
  auto install = [&](const void* to, void* from) {
    long result;
    register long size __asm__("r10") = 8;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_rt_sigaction), "D"(SIGUSR1), "S"(to), "d"(from), "r"(size) : "rcx", "r11", "memory");
    CHECK_EQ(result, 0);
  };
  install(nullptr, &old);
  action = old;
  action.handler = receive_in_handler;
  action.flags &= ~static_cast<unsigned long>(SA_SIGINFO);
  install(&action, nullptr);
  fd_of_handler = p.server;
  write_all(p.client, "x");
  raise(SIGUSR1);
  CHECK_EQ(int(received), 1);
  CHECK_TRUE(was_shut);
  CHECK_TRUE(is_shut());
}
