// splice(2), tee(2), vmsplice(2), copy_file_range(2) and sendfile(2) with connections, beyond the plain
// cases of tcp_transfer.cpp.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

struct Pipe {
  int in;   // to read
  int out;  // to write
};

Pipe make_pipe(int flags = 0) {
  int ends[2];
  CHECK_OK(pipe2(ends, flags));
  return {ends[0], ends[1]};
}

}  // namespace

TEST_EVERYWHERE("splice from an empty pipe waits, or gives EAGAIN where asked") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 10, SPLICE_F_NONBLOCK), EAGAIN);
  set_nonblocking(pipe.in);
  CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 10, 0), EAGAIN);
  set_nonblocking(pipe.in, false);
  Worker worker([&] { CHECK_EQ(splice(pipe.in, nullptr, fd, nullptr, 10, 0), 4); });
  worker.await_sleep();
  write_all(pipe.out, "four");
  worker.join();
  CHECK_EQ(peer.receive(4), "four");
  close(pipe.out);
  CHECK_EQ(splice(pipe.in, nullptr, fd, nullptr, 10, 0), 0);
}

TEST_EVERYWHERE("splice to a full pipe waits, or gives EAGAIN where asked, and loses nothing") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  CHECK_EQ(fcntl(pipe.out, F_SETPIPE_SZ, 4096), 4096);
  peer.send(std::string(4096, 'a') + "bcd");
  size_t moved = 0;
  while (moved < 4096) moved += CHECK_OK(splice(fd, nullptr, pipe.out, nullptr, 4096 - moved, 0));
  await(fd, POLLIN);
  CHECK_ERRNO(splice(fd, nullptr, pipe.out, nullptr, 10, SPLICE_F_NONBLOCK), EAGAIN);
  CHECK_EQ(unread(fd), 3);
  Worker worker([&] { CHECK_EQ(splice(fd, nullptr, pipe.out, nullptr, 10, 0), 3); });
  worker.await_sleep();
  CHECK_EQ(read_exactly(pipe.in, 4096), std::string(4096, 'a'));
  worker.join();
  CHECK_EQ(read_exactly(pipe.in, 3), "bcd");
}

TEST_EVERYWHERE("splice from a connection waits for its bytes") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  Worker worker([&] { CHECK_EQ(splice(fd, nullptr, pipe.out, nullptr, 10, SPLICE_F_NONBLOCK), 3); });
  worker.await_sleep();
  peer.send("xyz");
  worker.join();
  CHECK_EQ(read_exactly(pipe.in, 3), "xyz");
}

TEST_EVERYWHERE("a signal ends splice with EINTR") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGUSR1, count_signal);
  Pipe pipe = make_pipe();
  Worker receiver([&] { CHECK_ERRNO(splice(fd, nullptr, pipe.out, nullptr, 10, 0), EINTR); });
  receiver.await_sleep();
  receiver.signal_until_done(SIGUSR1);
  receiver.join();
  Worker sender([&] { CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 10, 0), EINTR); });
  sender.await_sleep();
  sender.signal_until_done(SIGUSR1);
}

TEST_EVERYWHERE("splice to a full connection is partial, then EAGAIN") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t filled = fill(fd);
  Pipe pipe = make_pipe();
  write_all(pipe.out, std::string(1000, 'p'));
  CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 1000, 0), EAGAIN);
  CHECK_EQ(unread(pipe.in), 1000);
  peer.start_receiving(filled, 65536);
  size_t moved = 0;
  while (moved < 1000) {
    await(fd, POLLOUT);
    ssize_t n = splice(pipe.in, nullptr, fd, nullptr, 1000 - moved, 0);
    if (n > 0) moved += size_t(n);
  }
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(peer.receive(1000), std::string(1000, 'p'));
}

TEST_EVERYWHERE("splice to a connection without reader gives EPIPE and SIGPIPE") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGPIPE, count_signal);
  Pipe pipe = make_pipe();
  write_all(pipe.out, "hello");
  shutdown(fd, SHUT_WR);
  CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 5, 0), EPIPE);
  CHECK_EQ(signals_seen, 1);
}

TEST_EVERYWHERE("splice to a pipe without reader gives EPIPE and SIGPIPE, and takes nothing") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGPIPE, count_signal);
  Pipe pipe = make_pipe();
  close(pipe.in);
  peer.send("hello");
  await(fd, POLLIN);
  CHECK_ERRNO(splice(fd, nullptr, pipe.out, nullptr, 5, 0), EPIPE);
  CHECK_EQ(signals_seen, 1);
  CHECK_EQ(unread(fd), 5);
}

TEST_EVERYWHERE("splice refuses what is no pipe, and bad flags") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  write_all(pipe.out, "x");
  int file = CHECK_OK(memfd_create("file", 0));
  off64_t offset = 0;
  CHECK_ERRNO(splice(fd, nullptr, file, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(splice(file, nullptr, fd, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(splice(fd, nullptr, fd, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(splice(pipe.in, &offset, fd, nullptr, 10, 0), ESPIPE);
  CHECK_ERRNO(splice(fd, nullptr, pipe.out, &offset, 10, 0), ESPIPE);
  CHECK_ERRNO(splice(pipe.out, nullptr, fd, nullptr, 10, 0), EBADF);
  CHECK_ERRNO(splice(fd, nullptr, pipe.in, nullptr, 10, 0), EBADF);
  CHECK_ERRNO(splice(fd, nullptr, 999, nullptr, 10, 0), EBADF);
  CHECK_ERRNO(splice(999, nullptr, fd, nullptr, 10, 0), EBADF);
  CHECK_ERRNO(splice(pipe.in, nullptr, fd, nullptr, 10, 0xf0), EINVAL);
  CHECK_EQ(splice(pipe.in, nullptr, fd, nullptr, 0, 0), 0);
}

TEST_EVERYWHERE("tee and vmsplice refuse a connection, copy_file_range too") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  write_all(pipe.out, "x");
  peer.send("y");
  await(fd, POLLIN);
  iovec iov{const_cast<char*>("z"), 1};
  int file = CHECK_OK(memfd_create("file", 0));
  write_all(file, "file");
  CHECK_ERRNO(tee(pipe.in, fd, 1, 0), EINVAL);
  CHECK_ERRNO(tee(fd, pipe.out, 1, 0), EINVAL);
  CHECK_ERRNO(vmsplice(fd, &iov, 1, 0), EBADF);
  CHECK_ERRNO(copy_file_range(file, nullptr, fd, nullptr, 1, 0), EINVAL);
  CHECK_ERRNO(copy_file_range(fd, nullptr, file, nullptr, 1, 0), EINVAL);
  CHECK_EQ(read_once(fd), "y");
  CHECK_EQ(unread(pipe.in), 1);
}

TEST_EVERYWHERE("sendfile takes what can be mapped or positioned, and refuses the rest") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  write_all(pipe.out, "x");
  off_t offset = 0;
  CHECK_EQ(sendfile(fd, CHECK_OK(open("/dev/zero", O_RDONLY)), nullptr, 5), 5);
  CHECK_EQ(peer.receive(5), std::string(5, 0));
  CHECK_ERRNO(sendfile(fd, pipe.in, nullptr, 5), EINVAL);
  CHECK_ERRNO(sendfile(fd, pipe.in, &offset, 5), ESPIPE);
  CHECK_ERRNO(sendfile(fd, 999, nullptr, 5), EBADF);
  int file = CHECK_OK(memfd_create("file", 0));
  write_all(file, "file");
  offset = -1;
  CHECK_ERRNO(sendfile(fd, file, &offset, 5), EINVAL);
  CHECK_EQ(unread(pipe.in), 1);
}

TEST_EVERYWHERE("a proxy moves 32 MiB through a pipe") {
  constexpr uint64_t kTotal = 32 << 20;
  auto [from, source] = connect_peer(where);
  auto [to, sink] = connect_peer(where);
  Pipe pipe = make_pipe();
  source.start_sending(kTotal, 20'000);
  sink.start_receiving(kTotal, 65'536);
  std::thread back([&, to = to] {
    for (uint64_t moved = 0; moved < kTotal;) moved += CHECK_OK(splice(pipe.in, nullptr, to, nullptr, 1 << 20, SPLICE_F_MORE));
  });
  for (uint64_t moved = 0; moved < kTotal;) moved += CHECK_OK(splice(from, nullptr, pipe.out, nullptr, 1 << 20, SPLICE_F_MOVE));
  back.join();
  CHECK_EQ(source.finish(), 0);
  CHECK_EQ(sink.finish(), 0);
}

TEST_EVERYWHERE("sendfile and splice to a closed peer succeed once, as send does") {
  for (bool from_pipe : {false, true}) {
    auto [fd, peer] = connect_peer(where);
    peer.close();
    CHECK_EQ(read_once(fd), "");
    int pipe[2], file = CHECK_OK(memfd_create("file", 0));
    CHECK_OK(::pipe(pipe));
    write_all(pipe[1], "from the pipe");
    write_all(file, "from the file");
    off_t at = 0;
    CHECK_EQ(from_pipe ? splice(pipe[0], nullptr, fd, nullptr, 4, 0) : sendfile(fd, file, &at, 4), 4);
    CHECK_EQ(at, from_pipe ? 0 : 4);
    ssize_t n;
    while ((n = send(fd, "x", 1, MSG_NOSIGNAL)) == 1) pause_ms(1);
    CHECK_ERRNO(n, EPIPE);
  }
}
