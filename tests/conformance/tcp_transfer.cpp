// Moving bytes between a connection and a file or pipe: sendfile and splice. Part of tcp_io.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

int pattern_file(size_t size) {
  int fd = CHECK_OK(memfd_create("pattern", MFD_CLOEXEC));
  std::string bytes(size, 0);
  fill_pattern(bytes.data(), size, 0);
  write_all(fd, bytes);
  CHECK_OK(lseek(fd, 0, SEEK_SET));
  return fd;
}

struct Pipe {
  int read_end, write_end;
};

Pipe make_pipe() {
  int ends[2];
  CHECK_OK(pipe(ends));
  return {ends[0], ends[1]};
}

}  // namespace

TEST_EVERYWHERE("sendfile carries a 10 MiB file") {
  auto [fd, peer] = connect_peer(where);
  constexpr size_t kSize = 10 << 20;
  int file = pattern_file(kSize);
  peer.start_receiving(kSize, 65'537);
  for (size_t sent = 0; sent < kSize;) sent += CHECK_OK(sendfile(fd, file, nullptr, kSize - sent));
  CHECK_EQ(peer.finish(), 0);
  CHECK_EQ(sendfile(fd, file, nullptr, 1), 0);
}

TEST_EVERYWHERE("sendfile without an offset moves the position of the file") {
  auto [fd, peer] = connect_peer(where);
  int file = CHECK_OK(memfd_create("file", 0));
  write_all(file, "abcdefgh");
  CHECK_OK(lseek(file, 2, SEEK_SET));
  CHECK_EQ(sendfile(fd, file, nullptr, 3), 3);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 5);
  CHECK_EQ(sendfile64(fd, file, nullptr, 100), 3);
  CHECK_EQ(peer.receive(6), "cdefgh");
}

TEST_EVERYWHERE("sendfile with an offset moves the offset only") {
  auto [fd, peer] = connect_peer(where);
  int file = CHECK_OK(memfd_create("file", 0));
  write_all(file, "abcdefgh");
  CHECK_OK(lseek(file, 1, SEEK_SET));
  off_t offset = 4;
  CHECK_EQ(sendfile(fd, file, &offset, 2), 2);
  CHECK_EQ(offset, 6);
  off64_t wide = 6;
  CHECK_EQ(sendfile64(fd, file, &wide, 100), 2);
  CHECK_EQ(wide, 8);
  CHECK_EQ(sendfile64(fd, file, &wide, 100), 0);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 1);
  CHECK_EQ(peer.receive(4), "efgh");
}

TEST_EVERYWHERE("sendfile on a full non-blocking socket is partial, then EAGAIN") {
  auto [fd, peer] = connect_peer(where);
  constexpr size_t kSize = 64 << 20;
  int file = pattern_file(kSize);
  set_nonblocking(fd);
  size_t sent = 0;
  for (ssize_t n; (n = sendfile(fd, file, nullptr, kSize)) > 0;) sent += n;
  CHECK_EQ(errno, EAGAIN);
  CHECK_TRUE(sent > 0 && sent < kSize);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), sent);
  peer.start_receiving(sent, 65'536);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("sendfile from a connection is refused") {
  auto [fd, peer] = connect_peer(where);
  int file = pattern_file(10);
  peer.send("x");
  await(fd, POLLIN);
  CHECK_ERRNO(sendfile(file, fd, nullptr, 1), EINVAL);
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("splice moves bytes from a pipe to a connection") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  write_all(pipe.write_end, "hello");
  CHECK_EQ(splice(pipe.read_end, nullptr, fd, nullptr, 100, 0), 5);
  CHECK_EQ(peer.receive(5), "hello");
}

TEST_EVERYWHERE("splice moves bytes from a connection to a pipe") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  set_nonblocking(fd);  // SPLICE_F_NONBLOCK concerns the pipe only
  CHECK_ERRNO(splice(fd, nullptr, pipe.write_end, nullptr, 100, 0), EAGAIN);
  set_nonblocking(fd, false);
  peer.send("hello");
  await(fd, POLLIN);
  CHECK_EQ(splice(fd, nullptr, pipe.write_end, nullptr, 3, 0), 3);
  CHECK_EQ(splice(fd, nullptr, pipe.write_end, nullptr, 100, 0), 2);
  CHECK_EQ(read_exactly(pipe.read_end, 5), "hello");
  peer.shutdown(SHUT_WR);
  CHECK_EQ(splice(fd, nullptr, pipe.write_end, nullptr, 100, 0), 0);
}

TEST_EVERYWHERE("splice with an offset on a connection is refused") {
  auto [fd, peer] = connect_peer(where);
  Pipe pipe = make_pipe();
  write_all(pipe.write_end, "hello");
  off64_t offset = 0;
  CHECK_ERRNO(splice(pipe.read_end, nullptr, fd, &offset, 5, 0), EINVAL);
  CHECK_ERRNO(splice(fd, &offset, pipe.write_end, nullptr, 5, 0), EINVAL);
}
