// Pointers that lead nowhere, or end too early: EFAULT, nothing lost, and signals as ever.
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "epoll_set.h"
#include "harness.h"
#include "peer.h"
#include "sockets.h"
#include "unix_sockets.h"

using namespace conformance;

namespace {

constexpr size_t kPage = 4096;

// Memory of which the last page is not there. A pointer to `bytes` bytes that end before it.
char* before_the_end(size_t bytes) {
  size_t pages = bytes / kPage + 2;
  auto* memory = static_cast<char*>(mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK_TRUE(memory != MAP_FAILED);
  CHECK_OK(mprotect(memory + (pages - 1) * kPage, kPage, PROT_NONE));
  return memory + (pages - 1) * kPage - bytes;
}

template <class T>
T* nowhere() {
  return reinterpret_cast<T*>(before_the_end(0));
}

std::string pattern(size_t bytes) {
  std::string s(bytes, 0);
  fill_pattern(s.data(), bytes, 0);
  return s;
}

}  // namespace

TEST_EVERYWHERE("bytes of every length arrive whole") {
  auto [fd, peer] = connect_peer(where);
  for (size_t n = 1; n <= 300; ++n) {
    std::string bytes = pattern(n);
    peer.send(bytes);
    eventually([fd = fd, n] { return unread(fd) == int(n); });
    char* room = before_the_end(n);  // one byte more would fault
    CHECK_EQ(read(fd, room, n), ssize_t(n));
    CHECK_TRUE(std::equal(room, room + n, bytes.data()));
    CHECK_EQ(munmap(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(room) & ~(kPage - 1)), kPage), 0);
  }
}

TEST("a buffer that ends too early takes nothing away") {
  auto [client, server] = make_pair();
  for (size_t n : {2, 5, 12, 24, 48, 100, 200, 3000, 20000}) {
    std::string bytes = pattern(n);
    write_all(client, bytes);
    eventually([fd = server, n] { return unread(fd) == int(n); });
    char* room = before_the_end(n / 2);
    CHECK_ERRNO(read(server, room, n), EFAULT);
    CHECK_EQ(unread(server), int(n));
    CHECK_TRUE(read_exactly(server, n) == bytes);
  }
}

TEST("what is written from a buffer that ends too early does not arrive in part") {
  auto [client, server] = make_pair();
  for (size_t n : {2, 5, 12, 24, 48, 100, 200, 3000}) {
    char* bytes = before_the_end(n / 2);
    CHECK_ERRNO(write(client, bytes, n), EFAULT);
    CHECK_ERRNO(send(client, bytes, n, MSG_DONTWAIT), EFAULT);
  }
  write_all(client, "whole");
  CHECK_EQ(read_exactly(server, 5), "whole");
}

TEST("vectors: one bad piece, a bad array") {
  auto [client, server] = make_pair();
  char good[4] = {'g', 'o', 'o', 'd'};
  iovec bad[2] = {{nowhere<char>(), 4}, {good, 4}};
  CHECK_ERRNO(writev(client, bad, 2), EFAULT);
  CHECK_ERRNO(writev(client, nowhere<iovec>(), 1), EFAULT);
  CHECK_ERRNO(readv(server, nowhere<iovec>(), 1), EFAULT);
  for (volatile int count : {-1, 1025}) CHECK_ERRNO(writev(client, bad, count), EINVAL);
  write_all(client, "12345678");
  eventually([fd = server] { return unread(fd) == 8; });
  CHECK_ERRNO(readv(server, bad, 2), EFAULT);
  CHECK_EQ(read_exactly(server, 8), "12345678");
}

TEST("messages: a bad header, bad vectors") {
  auto [client, server] = make_pair();
  msghdr m{};
  m.msg_iov = nowhere<iovec>();
  m.msg_iovlen = 1;
  CHECK_ERRNO(sendmsg(client, &m, 0), EFAULT);
  CHECK_ERRNO(recvmsg(server, &m, MSG_DONTWAIT), EFAULT);
  CHECK_ERRNO(sendmsg(client, nowhere<msghdr>(), 0), EFAULT);
  CHECK_ERRNO(recvmsg(server, nowhere<msghdr>(), MSG_DONTWAIT), EFAULT);
  m.msg_iovlen = 1025;
  CHECK_ERRNO(sendmsg(client, &m, 0), EMSGSIZE);
}

TEST("descriptors do not travel with bytes that cannot be read, nor into memory that is not there") {
  auto [client, server] = unix_pair(abstract_name());
  int extra = CHECK_OK(open("/dev/null", O_RDONLY));
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof extra)] = {};
  char good = 'g', byte = 0;
  auto message = [&](void* bytes) {
    static iovec iov;
    iov = {bytes, 1};
    msghdr m{};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    return m;
  };
  msghdr bad = message(nowhere<char>());
  cmsghdr* c = CMSG_FIRSTHDR(&bad);
  *c = {CMSG_LEN(sizeof extra), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(c), &extra, sizeof extra);
  CHECK_ERRNO(sendmsg(client, &bad, 0), EFAULT);
  CHECK_EQ(write(client, &good, 1), 1);
  msghdr in = message(&byte);
  CHECK_EQ(recvmsg(server, &in, 0), 1);
  CHECK_EQ(in.msg_controllen, 0u);
  memcpy(CMSG_DATA(c), &extra, sizeof extra);
  c->cmsg_len = CMSG_LEN(sizeof extra);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  msghdr out = message(&good);
  CHECK_EQ(sendmsg(client, &out, 0), 1);
  in = message(&byte);
  CHECK_EQ(recvmsg(server, &in, 0), 1);
  CHECK_EQ(in.msg_controllen, sizeof control);
}

TEST("options and names") {
  auto [client, server] = make_pair();
  int value = 1;
  socklen_t length = sizeof value;
  CHECK_ERRNO(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, nowhere<int>(), sizeof value), EFAULT);
  CHECK_ERRNO(getsockopt(client, SOL_SOCKET, SO_KEEPALIVE, nowhere<int>(), &length), EFAULT);
  CHECK_ERRNO(getsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &value, nowhere<socklen_t>()), EFAULT);
  sockaddr_in name;
  length = sizeof name;
  CHECK_ERRNO(getsockname(client, nowhere<sockaddr>(), &length), EFAULT);
  CHECK_ERRNO(getpeername(client, reinterpret_cast<sockaddr*>(&name), nowhere<socklen_t>()), EFAULT);
  length = socklen_t(-1);
  CHECK_ERRNO(getpeername(client, reinterpret_cast<sockaddr*>(&name), &length), EINVAL);
  CHECK_ERRNO(ioctl(client, FIONREAD, nowhere<int>()), EFAULT);
  CHECK_ERRNO(ioctl(client, FIONBIO, nowhere<int>()), EFAULT);
}

TEST("waits") {
  auto [client, server] = make_pair();
  EpollSet set;
  CHECK_ERRNO(epoll_ctl(set.fd, EPOLL_CTL_ADD, server, nowhere<epoll_event>()), EFAULT);
  set.add(server, EPOLLIN);
  write_all(client, "x");
  await(server, POLLIN);
  CHECK_ERRNO(epoll_wait(set.fd, nowhere<epoll_event>(), 1, 0), EFAULT);
  CHECK_ERRNO(poll(nowhere<pollfd>(), 1, 0), EFAULT);
  timeval none{};
  CHECK_ERRNO(select(server + 1, nowhere<fd_set>(), nullptr, nullptr, &none), EFAULT);
  epoll_event event;
  CHECK_EQ(epoll_wait(set.fd, &event, 1, 0), 1);
}

TEST("a pipe between processes") {
  int there[2], back[2];
  CHECK_OK(pipe(there));
  CHECK_OK(pipe(back));
  pid_t child = in_child([&] {
    close(there[1]);
    for (char byte; read(there[0], &byte, 1) == 1;) CHECK_EQ(write(back[1], &byte, 1), 1);
  });
  close(there[0]);
  close(back[1]);
  for (int i = 0; i < 2000; ++i) {  // long enough for it to be in memory
    char byte = char(i), echo;
    CHECK_EQ(write(there[1], &byte, 1), 1);
    CHECK_EQ(read(back[0], &echo, 1), 1);
    CHECK_EQ(echo, byte);
    if (i % 100 != 0) continue;
    CHECK_ERRNO(write(there[1], nowhere<char>(), 3), EFAULT);
    CHECK_EQ(write(there[1], &byte, 1), 1);
    await(back[0], POLLIN);
    CHECK_ERRNO(read(back[0], nowhere<char>(), 1), EFAULT);
    CHECK_EQ(read(back[0], &echo, 1), 1);
    CHECK_EQ(echo, byte);
  }
  close(there[1]);
  CHECK_EQ(wait_exit(child), 0);
}

// ---- signals --------------------------------------------------------------------------------

namespace {
sigjmp_buf out;
void* volatile faulted_at;
void jump_out(int, siginfo_t* info, void*) {
  faulted_at = info->si_addr;
  siglongjmp(out, 1);
}
}  // namespace

TEST("a program's own faults are its own") {
  auto [client, server] = make_pair();
  struct sigaction action {}, old;
  CHECK_OK(sigaction(SIGSEGV, nullptr, &old));
  CHECK_TRUE(old.sa_handler == SIG_DFL);
  action.sa_sigaction = jump_out;
  action.sa_flags = SA_SIGINFO;
  CHECK_OK(sigaction(SIGSEGV, &action, &old));
  CHECK_TRUE(old.sa_handler == SIG_DFL);
  auto* bad = nowhere<char>();
  CHECK_ERRNO(write(client, bad, 1), EFAULT);  // and no call of the handler
  CHECK_TRUE(faulted_at == nullptr);
  if (sigsetjmp(out, 1) == 0) {
    *bad = 1;
    fail(__FILE__, __LINE__, "no fault");
  }
  CHECK_TRUE(faulted_at == bad);
  CHECK_OK(sigaction(SIGSEGV, &old, &action));
  CHECK_TRUE(action.sa_sigaction == jump_out);
  CHECK_ERRNO(write(client, bad, 1), EFAULT);
  CHECK_TRUE(signal(SIGSEGV, SIG_DFL) == SIG_DFL);
}

TEST("a handler that was taken back before there was a socket stays away") {
  struct sigaction action {}, old;
  action.sa_sigaction = jump_out;
  action.sa_flags = SA_SIGINFO;
  CHECK_OK(sigaction(SIGSEGV, &action, &old));
  CHECK_OK(sigaction(SIGSEGV, &old, nullptr));
  [[maybe_unused]] Pair connected = make_pair();
  CHECK_OK(sigaction(SIGSEGV, nullptr, &old));
  CHECK_TRUE(old.sa_handler == SIG_DFL);
  pid_t child = in_child([] { *nowhere<char>() = 1; });
  CHECK_EQ(wait_exit(child), 128 + SIGSEGV);
}

TEST("a fault without a handler ends the process") {
  [[maybe_unused]] Pair connected = make_pair();
  pid_t child = in_child([] { *nowhere<char>() = 1; });
  CHECK_EQ(wait_exit(child), 128 + SIGSEGV);
  child = in_child([] { raise(SIGSEGV); });
  CHECK_EQ(wait_exit(child), 128 + SIGSEGV);
  child = in_child([] {
    kill(getpid(), SIGBUS);
    pause();
  });
  CHECK_EQ(wait_exit(child), 128 + SIGBUS);
  child = in_child([] {
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);
  });
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a mapping beyond the end of its file gives EFAULT too") {
  auto [client, server] = make_pair();
  int file = CHECK_OK(memfd_create("short", 0));
  CHECK_OK(ftruncate(file, kPage));
  auto* memory = static_cast<char*>(mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  CHECK_ERRNO(write(client, memory + kPage, 100), EFAULT);
  CHECK_ERRNO(write(client, memory + kPage, kPage), EFAULT);
  write_all(client, "x");
  CHECK_EQ(read_exactly(server, 1), "x");
}
