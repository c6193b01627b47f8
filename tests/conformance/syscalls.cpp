// syscall(2): every call that the shim knows, made by its number.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/close_range.h>

#include <string>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

template <typename... Args>
long call(long number, Args... args) {
  return syscall(number, args...);
}

iovec vector_of(std::string& bytes) { return {bytes.data(), bytes.size()}; }

}  // namespace

TEST_EVERYWHERE("reads and writes by number") {
  auto [fd, peer] = connect_peer(where);
  std::string out = "hello", in(5, 0);
  iovec from = vector_of(out), to = vector_of(in);
  mmsghdr message{};
  message.msg_hdr.msg_iov = &from;
  message.msg_hdr.msg_iovlen = 1;
  CHECK_EQ(call(SYS_write, fd, out.data(), 5), 5);
  CHECK_EQ(call(SYS_writev, fd, &from, 1), 5);
  CHECK_EQ(call(SYS_pwritev2, fd, &from, 1, -1L, -1L, 0), 5);
  CHECK_EQ(call(SYS_sendto, fd, out.data(), 5, 0, nullptr, 0), 5);
  CHECK_EQ(call(SYS_sendmsg, fd, &message.msg_hdr, 0), 5);
  CHECK_EQ(call(SYS_sendmmsg, fd, &message, 1, 0), 1);
  CHECK_EQ(message.msg_len, 5);
  CHECK_EQ(peer.receive(30), "hellohellohellohellohellohello");
  peer.send("abcdefghijklmnopqrstuvwxyz1234");
  CHECK_EQ(call(SYS_read, fd, in.data(), 5), 5);
  CHECK_EQ(in, "abcde");
  CHECK_EQ(call(SYS_readv, fd, &to, 1), 5);
  CHECK_EQ(in, "fghij");
  CHECK_EQ(call(SYS_preadv2, fd, &to, 1, -1L, -1L, 0), 5);
  CHECK_EQ(in, "klmno");
  CHECK_EQ(call(SYS_recvfrom, fd, in.data(), 5, 0, nullptr, nullptr), 5);
  CHECK_EQ(in, "pqrst");
  message.msg_hdr.msg_iov = &to;
  CHECK_EQ(call(SYS_recvmsg, fd, &message.msg_hdr, 0), 5);
  CHECK_EQ(in, "uvwxy");
  CHECK_EQ(call(SYS_recvmmsg, fd, &message, 1, 0, nullptr), 1);
  CHECK_EQ(in, "z1234");
  CHECK_EQ(call(SYS_shutdown, fd, SHUT_WR), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("splice and sendfile by number") {
  auto [fd, peer] = connect_peer(where);
  int ends[2], file = CHECK_OK(memfd_create("file", 0));
  CHECK_OK(pipe(ends));
  write_all(ends[1], "piped");
  write_all(file, "filed");
  off_t offset = 0;
  CHECK_EQ(call(SYS_splice, ends[0], nullptr, fd, nullptr, 5, 0), 5);
  CHECK_EQ(call(SYS_sendfile, fd, file, &offset, 5), 5);
  CHECK_EQ(peer.receive(10), "pipedfiled");
  iovec iov{ends, 1};
  CHECK_ERRNO(call(SYS_tee, ends[0], fd, 1, 0), EINVAL);
  CHECK_ERRNO(call(SYS_vmsplice, fd, &iov, 1, 0), EBADF);
}

TEST_EVERYWHERE("waits by number") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  await(fd, POLLIN);
  pollfd p{fd, POLLIN, 0};
  timespec no_time{};
  timeval no_time_us{};
  CHECK_EQ(call(SYS_ppoll, &p, 1, &no_time, nullptr, 8), 1);
#ifdef SYS_poll
  CHECK_EQ(call(SYS_poll, &p, 1, 0), 1);
#endif
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
#ifdef SYS_select
  CHECK_EQ(call(SYS_select, fd + 1, &set, nullptr, nullptr, &no_time_us), 1);
#endif
  struct {
    const sigset_t* mask;
    size_t bytes;
  } mask{nullptr, 8};
  CHECK_EQ(call(SYS_pselect6, fd + 1, &set, nullptr, nullptr, &no_time, &mask), 1);
  CHECK_TRUE(FD_ISSET(fd, &set));
  int sets[] = {int(CHECK_OK(call(SYS_epoll_create1, EPOLL_CLOEXEC))),
#ifdef SYS_epoll_create
                int(CHECK_OK(call(SYS_epoll_create, 1))),
#endif
  };
  for (int epfd : sets) {
    epoll_event event{};
    event.events = EPOLLIN;
    CHECK_EQ(call(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &event), 0);
    CHECK_EQ(call(SYS_epoll_pwait, epfd, &event, 1, 0, nullptr, 8), 1);
    CHECK_EQ(call(SYS_epoll_pwait2, epfd, &event, 1, &no_time, nullptr, 8), 1);
#ifdef SYS_epoll_wait
    CHECK_EQ(call(SYS_epoll_wait, epfd, &event, 1, 0), 1);
#endif
    CHECK_EQ(call(SYS_close, epfd), 0);
  }
}

TEST_EVERYWHERE("names, options and settings by number") {
  auto [fd, peer] = connect_peer(where);
  Address name;
  CHECK_EQ(call(SYS_getpeername, fd, name.get(), &name.size), 0);
  CHECK_EQ(name.text(), peer_address(fd).text());
  CHECK_EQ(call(SYS_getsockname, fd, name.get(), &name.size), 0);
  CHECK_EQ(name.text(), local_address(fd).text());
  int on = 1, value = 0;
  socklen_t length = sizeof value;
  CHECK_EQ(call(SYS_setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), 0);
  CHECK_EQ(call(SYS_getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
  CHECK_EQ(value, 1);
  CHECK_EQ(call(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK), 0);
  CHECK_EQ(call(SYS_fcntl, fd, F_GETFL, 0) & O_NONBLOCK, O_NONBLOCK);
  peer.send("abc");
  await(fd, POLLIN);
  CHECK_EQ(call(SYS_ioctl, fd, FIONREAD, &value), 0);
  CHECK_EQ(value, 3);
}

TEST_EVERYWHERE("fstat in all its forms sees a socket of its own") {
  auto [fd, peer] = connect_peer(where);
  auto [other, other_peer] = connect_peer(where);
  struct stat st, other_st;
  struct statx stx;
  CHECK_EQ(call(SYS_fstat, fd, &st), 0);
  CHECK_TRUE(S_ISSOCK(st.st_mode));
  CHECK_EQ(call(SYS_newfstatat, other, "", &other_st, AT_EMPTY_PATH), 0);
  CHECK_TRUE(S_ISSOCK(other_st.st_mode));
  CHECK_TRUE(st.st_ino != other_st.st_ino);
  auto [third, third_peer] = connect_peer(where);
  CHECK_EQ(call(SYS_statx, third, "", AT_EMPTY_PATH, STATX_INO | STATX_TYPE, &stx), 0);
  CHECK_TRUE(S_ISSOCK(stx.stx_mode));
  CHECK_TRUE(stx.stx_ino != st.st_ino && stx.stx_ino != other_st.st_ino);
  CHECK_EQ(fstatat(third, "", &st, AT_EMPTY_PATH), 0);
  CHECK_EQ(st.st_ino, stx.stx_ino);
  CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_INO, &stx), 0);
  CHECK_TRUE(stx.stx_ino != st.st_ino);
}

TEST_EVERYWHERE("duplicates and closes by number") {
  auto [fd, peer] = connect_peer(where);
  int first = int(CHECK_OK(call(SYS_dup, fd)));
  CHECK_EQ(call(SYS_dup3, fd, 100, O_CLOEXEC), 100);
#ifdef SYS_dup2
  CHECK_EQ(call(SYS_dup2, fd, 101), 101);
#else
  CHECK_EQ(dup2(fd, 101), 101);
#endif
  CHECK_EQ(call(SYS_close, fd), 0);
  write_all(100, "a");
  CHECK_EQ(call(SYS_close_range, 100, 101, 0), 0);
  write_all(first, "b");
  CHECK_EQ(peer.receive(2), "ab");
  CHECK_EQ(call(SYS_close, first), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST("a connection begins and ends by number") {
  int listener = int(CHECK_OK(call(SYS_socket, AF_INET, SOCK_STREAM, 0)));
  Address name = loopback(AF_INET);
  CHECK_EQ(call(SYS_bind, listener, name.get(), name.size), 0);
  CHECK_EQ(call(SYS_listen, listener, 10), 0);
  CHECK_EQ(call(SYS_getsockname, listener, name.get(), &name.size), 0);
  for (bool flagged : {false, true}) {
    int client = int(CHECK_OK(call(SYS_socket, AF_INET, SOCK_STREAM, 0)));
    CHECK_EQ(call(SYS_connect, client, name.get(), name.size), 0);
#ifdef SYS_accept
    int server = int(CHECK_OK(flagged ? call(SYS_accept4, listener, nullptr, nullptr, SOCK_CLOEXEC)
                                      : call(SYS_accept, listener, nullptr, nullptr)));
#else
    int server = int(CHECK_OK(call(SYS_accept4, listener, nullptr, nullptr, flagged ? SOCK_CLOEXEC : 0)));
#endif
    CHECK_EQ(fcntl(server, F_GETFD), flagged ? FD_CLOEXEC : 0);
    CHECK_EQ(call(SYS_write, client, "x", 1), 1);
    CHECK_EQ(read_once(server), "x");
    CHECK_EQ(call(SYS_close, client), 0);
    CHECK_EQ(read_once(server), "");
  }
}

TEST_EVERYWHERE("a handler that rt_sigaction installs interrupts a wait") {
  auto [fd, peer] = connect_peer(where);
  struct sigaction action {}, now {};
  action.sa_handler = count_signal;
  struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
  } kernel{}, before{};
  CHECK_OK(sigaction(SIGUSR2, &action, nullptr));  // for libc's restorer
  CHECK_EQ(call(SYS_rt_sigaction, SIGUSR2, nullptr, &kernel, 8), 0);
  CHECK_TRUE(kernel.handler == count_signal);
  CHECK_EQ(call(SYS_rt_sigaction, SIGUSR1, &kernel, &before, 8), 0);
  CHECK_TRUE(before.handler == SIG_DFL);
  CHECK_OK(sigaction(SIGUSR1, nullptr, &now));
  CHECK_TRUE(now.sa_handler == count_signal);
  Worker reader([&] {
    char byte;
    CHECK_ERRNO(read(fd, &byte, 1), EINTR);
  });
  reader.await_sleep();
  reader.signal_until_done(SIGUSR1);
}
