// Moving bytes over one connection, through every call that can.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <random>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

constexpr uint64_t kMiB = 1 << 20;

iovec piece(void* data, size_t size) { return {data, size}; }
iovec piece(std::string& bytes) { return {bytes.data(), bytes.size()}; }

void* bad_address() { return mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

void await_unread(int fd, int count) {
  eventually([=] { return unread(fd) >= count; });
}

}  // namespace

TEST_EVERYWHERE("read takes what the peer wrote") {
  auto [fd, peer] = connect_peer(where);
  peer.send("hello");
  CHECK_EQ(read_exactly(fd, 5), "hello");
}

TEST_EVERYWHERE("write reaches the peer") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(write(fd, "hello", 5), 5);
  CHECK_EQ(peer.receive(5), "hello");
}

TEST_EVERYWHERE("IPv6 carries bytes both ways") {
  auto [fd, peer] = connect_peer(where, AF_INET6);
  CHECK_EQ(write(fd, "hello", 5), 5);
  CHECK_EQ(peer.receive(5), "hello");
  peer.send("world");
  CHECK_EQ(read_exactly(fd, 5), "world");
}

TEST("one thread writes and reads both ends") {
  auto [client, server] = make_pair();
  for (int i = 0; i < 1000; i++) {
    std::string ping = "ping " + std::to_string(i), pong = "pong " + std::to_string(i);
    write_all(client, ping);
    CHECK_EQ(read_exactly(server, ping.size()), ping);
    write_all(server, pong);
    CHECK_EQ(read_exactly(client, pong.size()), pong);
  }
}

TEST_EVERYWHERE("a blocked read wakes when bytes arrive") {
  auto [fd, peer] = connect_peer(where);
  std::string got;
  Worker reader([&, fd = fd] { got = read_once(fd); });
  reader.await_sleep();
  peer.send("x");
  reader.join();
  CHECK_EQ(got, "x");
}

TEST_EVERYWHERE("a short read leaves the rest readable") {
  auto [fd, peer] = connect_peer(where);
  peer.send("abcdefgh");
  CHECK_EQ(read_once(fd, 3), "abc");
  CHECK_EQ(ready(fd, POLLIN), POLLIN);
  CHECK_EQ(read_once(fd, 1), "d");
  CHECK_EQ(read_exactly(fd, 4), "efgh");
  CHECK_EQ(ready(fd, POLLIN), 0);
}

TEST_EVERYWHERE("one read collects several writes") {
  auto [fd, peer] = connect_peer(where);
  for (const char* word : {"one", "two", "three"}) peer.send(word);
  await_unread(fd, 11);
  CHECK_EQ(read_once(fd), "onetwothree");
}

TEST_EVERYWHERE("ten thousand small writes arrive in order") {
  auto [fd, peer] = connect_peer(where);
  peer.start_receiving(70'000, 65536);
  CHECK_EQ(send_pattern(fd, 70'000, 7), 0);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("two thousand round trips keep their order") {
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  for (int i = 0; i < 2000; i++) {
    std::string number = std::to_string(i);
    write_all(fd, number);
    CHECK_EQ(read_exactly(fd, number.size()), number);
  }
}

TEST_EVERYWHERE("64 MiB arrive whole in odd chunks") {
  auto [fd, peer] = connect_peer(where);
  peer.start_sending(64 * kMiB, 13'331);
  CHECK_EQ(receive_pattern(fd, 64 * kMiB, 9'973), 0);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("64 MiB leave whole in large writes") {
  auto [fd, peer] = connect_peer(where);
  peer.start_receiving(64 * kMiB, 100'003);
  CHECK_EQ(send_pattern(fd, 64 * kMiB, 3 * kMiB + 1), 0);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("both directions carry 16 MiB at once") {
  auto [fd, peer] = connect_peer(where);
  Worker writer([fd = fd] { CHECK_EQ(send_pattern(fd, 16 * kMiB, 40'009), 0); });
  peer.start_echo();
  CHECK_EQ(receive_pattern(fd, 16 * kMiB, 30'011), 0);
}

TEST_EVERYWHERE("random sizes in both directions stay in order") {
  auto [fd, peer] = connect_peer(where);
  peer.start_echo();
  std::minstd_rand random(7);
  for (int round = 0; round < 500; round++) {
    std::string sent(1 + random() % 20'000, 0);
    fill_pattern(sent.data(), sent.size(), random());
    write_all(fd, sent);
    std::string got;
    while (got.size() < sent.size()) got += read_once(fd, 1 + random() % 8'000);
    CHECK_TRUE(got == sent);
  }
}

TEST_EVERYWHERE("a blocking write larger than all buffers completes") {
  auto [fd, peer] = connect_peer(where);
  std::string bytes(24 * kMiB, 0);
  fill_pattern(bytes.data(), bytes.size(), 0);
  peer.start_receiving(bytes.size(), 50'021);
  CHECK_EQ(write(fd, bytes.data(), bytes.size()), bytes.size());
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("a non-blocking writer fills the buffers, then goes on where it stopped") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  size_t sent = fill(fd, 10'007);
  CHECK_TRUE(sent > 0);
  CHECK_EQ(ready(fd, POLLOUT), 0);
  peer.start_receiving(sent + 8 * kMiB, 65'536);
  std::string rest(8 * kMiB, 0);
  fill_pattern(rest.data(), rest.size(), sent);
  for (size_t done = 0; done < rest.size();) {
    await(fd, POLLOUT);
    ssize_t n = write(fd, rest.data() + done, rest.size() - done);
    if (n < 0) CHECK_EQ(errno, EAGAIN);
    if (n > 0) done += n;
  }
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("a non-blocking write larger than the space is partial") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  std::string bytes(64 * kMiB, 0);
  fill_pattern(bytes.data(), bytes.size(), 0);
  ssize_t n = CHECK_OK(write(fd, bytes.data(), bytes.size()));
  CHECK_TRUE(n > 0 && n < static_cast<ssize_t>(bytes.size()));
  peer.start_receiving(n, 65'536);
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("readv scatters and writev gathers") {
  auto [fd, peer] = connect_peer(where);
  std::string one = "ab", two = "cde", three = "f";
  iovec out[] = {piece(one), piece(nullptr, 0), piece(two), piece(three)};
  CHECK_EQ(writev(fd, out, 4), 6);
  CHECK_EQ(peer.receive(6), "abcdef");
  peer.send("uvwxyz");
  iovec in[] = {piece(three), piece(nullptr, 0), piece(two), piece(one)};
  CHECK_EQ(readv(fd, in, 4), 6);
  CHECK_EQ(three + two + one, "uvwxyz");
}

TEST_EVERYWHERE("readv stops where the bytes end") {
  auto [fd, peer] = connect_peer(where);
  std::string one(4, '-'), two(4, '-');
  iovec in[] = {piece(one), piece(two)};
  peer.send("abcdef");
  CHECK_EQ(readv(fd, in, 2), 6);
  CHECK_EQ(one + two, "abcdef--");
}

TEST_EVERYWHERE("1024 iovecs work and 1025 are too many") {
  auto [fd, peer] = connect_peer(where);
  char out[1025], in[1025];
  fill_pattern(out, sizeof out, 0);
  std::vector<iovec> from, to;
  for (int i = 0; i < 1025; i++) {
    from.push_back(piece(&out[i], 1));
    to.push_back(piece(&in[i], 1));
  }
  CHECK_ERRNO(writev(fd, from.data(), 1025), EINVAL);
  CHECK_ERRNO(readv(fd, to.data(), 1025), EINVAL);
  peer.start_echo();
  CHECK_EQ(writev(fd, from.data(), 1024), 1024);
  await_unread(fd, 1024);
  CHECK_EQ(readv(fd, to.data(), 1024), 1024);
  CHECK_TRUE(matches_pattern(in, 1024, 0));
  CHECK_EQ(writev(fd, from.data(), 0), 0);
  CHECK_EQ(readv(fd, to.data(), 0), 0);
}

TEST_EVERYWHERE("preadv2 and pwritev2 work without an offset only") {
  auto [fd, peer] = connect_peer(where);
  std::string bytes = "hello";
  iovec all = piece(bytes);
  CHECK_ERRNO(pwritev2(fd, &all, 1, 0, 0), ESPIPE);
  CHECK_ERRNO(preadv2(fd, &all, 1, 0, 0), ESPIPE);
  CHECK_EQ(pwritev2(fd, &all, 1, -1, 0), 5);
  CHECK_EQ(peer.receive(5), "hello");
  peer.send("world");
  await(fd, POLLIN);
  CHECK_EQ(preadv2(fd, &all, 1, -1, 0), 5);
  CHECK_EQ(bytes, "world");
}

TEST_EVERYWHERE("preadv2 with RWF_NOWAIT does not block") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  iovec all = piece(&byte, 1);
  CHECK_ERRNO(preadv2(fd, &all, 1, -1, RWF_NOWAIT), EAGAIN);
  peer.send("x");
  await(fd, POLLIN);
  CHECK_EQ(preadv2(fd, &all, 1, -1, RWF_NOWAIT), 1);
}

TEST_EVERYWHERE("positioned reads and writes are refused") {
  auto [fd, peer] = connect_peer(where);
  char byte = 0;
  iovec all = piece(&byte, 1);
  peer.send("x");
  CHECK_ERRNO(pread(fd, &byte, 1, 0), ESPIPE);
  CHECK_ERRNO(pread64(fd, &byte, 1, 0), ESPIPE);
  CHECK_ERRNO(pwrite(fd, &byte, 1, 0), ESPIPE);
  CHECK_ERRNO(pwrite64(fd, &byte, 1, 0), ESPIPE);
  CHECK_ERRNO(preadv(fd, &all, 1, 0), ESPIPE);
  CHECK_ERRNO(pwritev(fd, &all, 1, 0), ESPIPE);
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("recv and send move bytes") {
  auto [fd, peer] = connect_peer(where);
  char buffer[16];
  CHECK_EQ(send(fd, "hello", 5, 0), 5);
  CHECK_EQ(peer.receive(5), "hello");
  peer.send("world");
  CHECK_EQ(recv(fd, buffer, 5, MSG_WAITALL), 5);
  CHECK_TRUE(memcmp(buffer, "world", 5) == 0);
}

TEST_EVERYWHERE("recvfrom on a connection yields no address") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  char buffer[16];
  Address from;
  CHECK_EQ(recvfrom(fd, buffer, sizeof buffer, 0, from.get(), &from.size), 1);
  CHECK_EQ(from.size, 0);
}

TEST_EVERYWHERE("sendto on a connection ignores the address") {
  auto [fd, peer] = connect_peer(where);
  Address to = address_of("127.0.0.1", 1);
  CHECK_EQ(sendto(fd, "hello", 5, 0, to.get(), to.size), 5);
  CHECK_EQ(peer.receive(5), "hello");
}

TEST_EVERYWHERE("sendmsg and recvmsg move bytes and clear what they do not use") {
  auto [fd, peer] = connect_peer(where);
  std::string one = "abc", two = "de";
  iovec pieces[] = {piece(one), piece(two)};
  Address name;
  char control[64];
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  CHECK_EQ(sendmsg(fd, &message, 0), 5);
  CHECK_EQ(peer.receive(5), "abcde");
  peer.send("vwxyz");
  await_unread(fd, 5);
  message.msg_name = name.get();
  message.msg_namelen = name.size;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  message.msg_flags = 0x7fff;
  CHECK_EQ(recvmsg(fd, &message, 0), 5);
  CHECK_EQ(one + two, "vwxyz");
  CHECK_EQ(message.msg_namelen, 0);
  CHECK_EQ(message.msg_controllen, 0);
  CHECK_EQ(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB | MSG_EOR), 0);
}

TEST_EVERYWHERE("sendmsg with too many iovecs gives EMSGSIZE") {
  auto [fd, peer] = connect_peer(where);
  std::vector<iovec> pieces(1025);
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  CHECK_ERRNO(sendmsg(fd, &message, 0), EMSGSIZE);
  CHECK_ERRNO(recvmsg(fd, &message, MSG_DONTWAIT), EMSGSIZE);
}

TEST_EVERYWHERE("sendmmsg sends each message and says how long each was") {
  auto [fd, peer] = connect_peer(where);
  std::string words[] = {"one", "three", "seven"};
  iovec pieces[3];
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; i++) {
    pieces[i] = piece(words[i]);
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK_EQ(sendmmsg(fd, messages, 3, 0), 3);
  CHECK_EQ(messages[1].msg_len, 5);
  CHECK_EQ(peer.receive(13), "onethreeseven");
}

TEST_EVERYWHERE("recvmmsg fills buffer after buffer and stops when nothing is left") {
  auto [fd, peer] = connect_peer(where);
  std::string buffers[3] = {std::string(4, '-'), std::string(4, '-'), std::string(4, '-')};
  iovec pieces[3];
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; i++) {
    pieces[i] = piece(buffers[i]);
    messages[i].msg_hdr.msg_iov = &pieces[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK_ERRNO(recvmmsg(fd, messages, 3, MSG_DONTWAIT, nullptr), EAGAIN);
  peer.send("abcdef");
  await_unread(fd, 6);
  CHECK_EQ(recvmmsg(fd, messages, 3, MSG_WAITFORONE, nullptr), 2);
  CHECK_EQ(messages[0].msg_len, 4);
  CHECK_EQ(messages[1].msg_len, 2);
  CHECK_EQ(buffers[0] + buffers[1], "abcdef--");
}

TEST_EVERYWHERE("MSG_PEEK leaves the bytes") {
  auto [fd, peer] = connect_peer(where);
  peer.send("abcdef");
  char buffer[16];
  CHECK_EQ(recv(fd, buffer, 3, MSG_PEEK), 3);
  CHECK_EQ(recv(fd, buffer, 6, MSG_PEEK | MSG_WAITALL), 6);
  CHECK_EQ(unread(fd), 6);
  CHECK_EQ(ready(fd, POLLIN), POLLIN);
  CHECK_EQ(read_exactly(fd, 6), "abcdef");
}

TEST_EVERYWHERE("MSG_PEEK blocks until there is something") {
  auto [fd, peer] = connect_peer(where);
  char byte = 0;
  Worker reader([&, fd = fd] { CHECK_EQ(recv(fd, &byte, 1, MSG_PEEK), 1); });
  reader.await_sleep();
  peer.send("x");
  reader.join();
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("MSG_WAITALL waits for every byte") {
  auto [fd, peer] = connect_peer(where);
  std::string bytes(4 * kMiB, 0);
  peer.start_sending(bytes.size(), 9'973);
  CHECK_EQ(recv(fd, bytes.data(), bytes.size(), MSG_WAITALL), bytes.size());
  CHECK_TRUE(matches_pattern(bytes.data(), bytes.size(), 0));
}

TEST_EVERYWHERE("MSG_WAITALL ends early at the end of the stream") {
  auto [fd, peer] = connect_peer(where);
  char buffer[100];
  Worker reader([&, fd = fd] { CHECK_EQ(recv(fd, buffer, 100, MSG_WAITALL), 8); });
  peer.send("abc");
  peer.send("defgh");
  peer.shutdown(SHUT_WR);
  reader.join();
  CHECK_EQ(recv(fd, buffer, 100, MSG_WAITALL), 0);
}

TEST_EVERYWHERE("MSG_WAITALL on a non-blocking socket takes what is there") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  peer.send("abc");
  await(fd, POLLIN);
  char buffer[16];
  CHECK_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 3);
  CHECK_ERRNO(recv(fd, buffer, sizeof buffer, MSG_WAITALL), EAGAIN);
}

TEST_EVERYWHERE("MSG_DONTWAIT does not block, and does not outlast the call") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  CHECK_ERRNO(recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN);
  CHECK_EQ(CHECK_OK(fcntl(fd, F_GETFL)) & O_NONBLOCK, 0);
  ssize_t n;
  std::string chunk(65536, 'x');
  while ((n = send(fd, chunk.data(), chunk.size(), MSG_DONTWAIT)) > 0) {
  }
  CHECK_ERRNO(n, EAGAIN);
}

TEST_EVERYWHERE("a non-blocking socket answers EAGAIN however it was made so") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  iovec one = piece(&byte, 1);
  msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  int on = 1, off = 0;
  CHECK_OK(ioctl(fd, FIONBIO, &on));
  CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
  CHECK_OK(ioctl(fd, FIONBIO, &off));
  set_nonblocking(fd);
  CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
  CHECK_ERRNO(readv(fd, &one, 1), EAGAIN);
  CHECK_ERRNO(recv(fd, &byte, 1, 0), EAGAIN);
  CHECK_ERRNO(recv(fd, &byte, 1, MSG_PEEK), EAGAIN);
  CHECK_ERRNO(recvfrom(fd, &byte, 1, 0, nullptr, nullptr), EAGAIN);
  CHECK_ERRNO(recvmsg(fd, &message, 0), EAGAIN);
  CHECK_ERRNO(preadv2(fd, &one, 1, -1, 0), EAGAIN);
  set_nonblocking(fd, false);
  peer.send("x");
  CHECK_EQ(read(fd, &byte, 1), 1);
}

TEST_EVERYWHERE("MSG_TRUNC throws bytes away without a buffer") {
  auto [fd, peer] = connect_peer(where);
  peer.send("abcdef");
  await_unread(fd, 6);
  CHECK_EQ(recv(fd, nullptr, 4, MSG_TRUNC), 4);
  CHECK_EQ(read_once(fd), "ef");
}

TEST_EVERYWHERE("MSG_MORE delays bytes but loses none") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(send(fd, "ab", 2, MSG_MORE), 2);
  CHECK_EQ(send(fd, "cd", 2, MSG_MORE), 2);
  CHECK_EQ(send(fd, "ef", 2, 0), 2);
  CHECK_EQ(peer.receive(6), "abcdef");
  CHECK_EQ(send(fd, "last", 4, MSG_MORE), 4);
  CHECK_EQ(peer.receive(4), "last");
}

TEST_EVERYWHERE("empty reads and writes return at once") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  iovec none = piece(&byte, 0);
  CHECK_EQ(read(fd, &byte, 0), 0);
  CHECK_EQ(readv(fd, &none, 1), 0);
  CHECK_EQ(write(fd, &byte, 0), 0);
  CHECK_EQ(writev(fd, &none, 1), 0);
  CHECK_EQ(send(fd, &byte, 0, 0), 0);
  peer.send("x");
  await(fd, POLLIN);
  CHECK_EQ(read(fd, &byte, 0), 0);
  CHECK_EQ(recv(fd, &byte, 0, 0), 0);
  CHECK_EQ(read_once(fd), "x");
}

TEST_EVERYWHERE("an empty recv waits for bytes, unlike an empty read") {
  auto [fd, peer] = connect_peer(where);
  char byte;
  CHECK_ERRNO(recv(fd, &byte, 0, MSG_DONTWAIT), EAGAIN);
}

TEST_EVERYWHERE("a bad buffer gives EFAULT and loses nothing") {
  auto [fd, peer] = connect_peer(where);
  void* bad = bad_address();
  iovec nowhere = piece(bad, 5);
  CHECK_ERRNO(write(fd, bad, 5), EFAULT);
  CHECK_ERRNO(writev(fd, &nowhere, 1), EFAULT);
  CHECK_ERRNO(send(fd, bad, 5, 0), EFAULT);
  peer.send("hello");
  await_unread(fd, 5);
  CHECK_ERRNO(read(fd, bad, 5), EFAULT);
  CHECK_ERRNO(readv(fd, &nowhere, 1), EFAULT);
  CHECK_ERRNO(recv(fd, bad, 5, 0), EFAULT);
  CHECK_EQ(read_once(fd), "hello");
}

TEST_EVERYWHERE("a bad message header gives EFAULT") {
  auto [fd, peer] = connect_peer(where);
  auto* bad = static_cast<msghdr*>(bad_address());
  CHECK_ERRNO(sendmsg(fd, bad, 0), EFAULT);
  CHECK_ERRNO(recvmsg(fd, bad, MSG_DONTWAIT), EFAULT);
}

TEST_EVERYWHERE("an urgent byte travels beside the stream") {
  auto [fd, peer] = connect_peer(where);
  peer.start_receiving(5, 5);
  std::string bytes(5, 0);
  fill_pattern(bytes.data(), 5, 0);
  CHECK_EQ(send(fd, "!", 1, MSG_OOB), 1);
  CHECK_EQ(send(fd, bytes.data(), 5, 0), 5);
  CHECK_EQ(peer.finish(), 0);
}

TEST("MSG_OOB reads the urgent byte once, POLLPRI announces it") {
  auto [client, server] = make_pair();
  char byte = 0;
  CHECK_ERRNO(recv(server, &byte, 1, MSG_OOB), EINVAL);
  CHECK_EQ(send(client, "ab!", 3, MSG_OOB), 3);
  await(server, POLLPRI);
  CHECK_EQ(recv(server, &byte, 1, MSG_OOB), 1);
  CHECK_EQ(byte, '!');
  CHECK_ERRNO(recv(server, &byte, 1, MSG_OOB), EINVAL);
  CHECK_EQ(read_once(server), "ab");
  int at_mark = 0;
  CHECK_OK(ioctl(server, SIOCATMARK, &at_mark));
  CHECK_EQ(at_mark, 1);
}

TEST("POLLPRI announces an urgent byte that is read with the others, too") {
  auto [client, server] = make_pair();
  int on = 1;
  CHECK_OK(setsockopt(server, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
  CHECK_EQ(send(client, "ab!", 3, MSG_OOB), 3);
  await(server, POLLPRI);
  CHECK_EQ(read_once(server), "ab");
  CHECK_EQ(ready(server, POLLPRI), POLLPRI);
  CHECK_EQ(read_once(server), "!");
  CHECK_EQ(ready(server, POLLPRI), 0);
}

TEST("a read stops at the urgent byte, the next one leaves it out") {
  auto [client, server] = make_pair();
  CHECK_EQ(send(client, "ab!", 3, MSG_OOB), 3);
  write_all(client, "cd");
  eventually([fd = server] { return unread(fd) == 2; });
  char peeked[8];
  CHECK_EQ(recv(server, peeked, sizeof peeked, MSG_PEEK), 2);
  CHECK_EQ(read_once(server), "ab");
  CHECK_EQ(read_exactly(server, 2), "cd");
  char byte;
  CHECK_ERRNO(recv(server, &byte, 1, MSG_OOB), EINVAL);
}

TEST("MSG_WAITALL stops at the urgent byte too") {
  auto [client, server] = make_pair();
  CHECK_EQ(send(client, "ab!", 3, MSG_OOB), 3);
  write_all(client, "cd");
  await(server, POLLPRI);
  char bytes[8];
  CHECK_EQ(recv(server, bytes, 4, MSG_WAITALL), 2);
  CHECK_EQ(recv(server, bytes, 2, MSG_WAITALL), 2);
}

TEST("an urgent byte alone does not make a socket readable") {
  auto [client, server] = make_pair();
  CHECK_EQ(send(client, "!", 1, MSG_OOB), 1);
  CHECK_EQ(await(server, POLLIN | POLLPRI), POLLPRI);
  CHECK_EQ(unread(server), 0);
  char byte;
  CHECK_ERRNO(recv(server, &byte, 1, MSG_DONTWAIT), EAGAIN);
  CHECK_EQ(close(client), 0);
  CHECK_EQ(read_to_end(server), "");
}

TEST("SO_OOBINLINE keeps the urgent byte in the stream, and the mark before it") {
  auto [client, server] = make_pair();
  int on = 1;
  CHECK_OK(setsockopt(server, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
  CHECK_EQ(send(client, "ab!", 3, MSG_OOB), 3);
  write_all(client, "cd");
  eventually([fd = server] { return unread(fd) == 5; });
  char byte;
  CHECK_ERRNO(recv(server, &byte, 1, MSG_OOB), EINVAL);
  CHECK_EQ(read_once(server), "ab");
  int at_mark = 0;
  CHECK_OK(ioctl(server, SIOCATMARK, &at_mark));
  CHECK_EQ(at_mark, 1);
  CHECK_EQ(read_exactly(server, 3), "!cd");
}

TEST("only the last of several urgent bytes is one") {
  auto [client, server] = make_pair();
  CHECK_EQ(send(client, "xa", 2, MSG_OOB), 2);
  CHECK_EQ(send(client, "b", 1, MSG_OOB), 1);
  eventually([fd = server] { return unread(fd) == 2; });
  char byte = 0;
  CHECK_EQ(recv(server, &byte, 1, MSG_OOB), 1);
  CHECK_EQ(byte, 'b');
  CHECK_EQ(read_once(server), "xa");
}

TEST("the error queue is empty") {
  auto [client, server] = make_pair();
  char byte;
  CHECK_ERRNO(recv(client, &byte, 1, MSG_ERRQUEUE), EAGAIN);
}

// The compiler knows the size of the buffer but not the count, so that these become __read_chk,
// __recv_chk, __recvfrom_chk and __poll_chk when built with _FORTIFY_SOURCE.
TEST_EVERYWHERE("fortified calls move bytes") {
  auto [fd, peer] = connect_peer(where);
  volatile size_t count = 3;
  char buffer[8];
  pollfd entries[1] = {{fd, POLLIN, 0}};
  peer.send("abcdefghi");
  await_unread(fd, 9);
  CHECK_EQ(poll(entries, count - 2, -1), 1);
  CHECK_EQ(ppoll(entries, count - 2, nullptr, nullptr), 1);
  CHECK_EQ(read(fd, buffer, count), 3);
  CHECK_TRUE(memcmp(buffer, "abc", 3) == 0);
  CHECK_EQ(recv(fd, buffer, count, 0), 3);
  CHECK_TRUE(memcmp(buffer, "def", 3) == 0);
  CHECK_EQ(recvfrom(fd, buffer, count, 0, nullptr, nullptr), 3);
  CHECK_TRUE(memcmp(buffer, "ghi", 3) == 0);
  CHECK_ERRNO(pread(fd, buffer, count, 0), ESPIPE);
}

TEST_EVERYWHERE("stdio on a connection loses nothing") {
  auto [fd, peer] = connect_peer(where);
  FILE* stream = fdopen(fd, "r+");
  CHECK_TRUE(stream != nullptr);
  fprintf(stream, "GET %d\n", 7);
  CHECK_EQ(fflush(stream), 0);
  CHECK_EQ(peer.receive(6), "GET 7\n");
  peer.send("200 OK\n");
  char line[32];
  CHECK_TRUE(fgets(line, sizeof line, stream) != nullptr);
  CHECK_EQ(line, std::string("200 OK\n"));
  CHECK_EQ(fclose(stream), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("dprintf writes to a connection") {
  auto [fd, peer] = connect_peer(where);
  CHECK_EQ(dprintf(fd, "%s", "hello"), 5);
  CHECK_EQ(peer.receive(5), "hello");
}
