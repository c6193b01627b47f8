// One side of a connection: does with it what programs do, as the bytes of a case say, and never waits. What calls return
// is checked for what holds whatever the other side does; what is read, too, as long as both are honest. And it is noted, so
// that it can be compared with what the kernel says to the same.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <source_location>
#include <vector>

#include "tests/fuzz/input.h"

namespace sluice::fuzz {

enum class Manner : uint32_t {
  kAny,       // everything, and the other side may lie
  kTame,      // neither lies or does what changes the order of bytes, so everything that is read is what was written
  kCompared,  // neither lies or does what the kernel is known to answer otherwise (docs/divergences.md), or at another time
};

// What the calls of an operation have returned.
struct Notes {
  static constexpr uint32_t kMost = 24;
  int64_t values[kMost] = {};
  uint32_t count = 0;
  void add(int64_t value) {
    if (count < kMost) values[count++] = value;
  }
  bool operator==(const Notes& other) const {
    return count == other.count && memcmp(values, other.values, count * sizeof *values) == 0;
  }
};

class Player {
 public:
  Player() {
    FUZZ_CHECK(pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) == 0);
    set_ = epoll_create1(EPOLL_CLOEXEC);
    file_ = memfd_create("what is sent", MFD_CLOEXEC);
    std::vector<uint8_t> bytes(kMostBytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(i);
    FUZZ_CHECK(set_ >= 0 && file_ >= 0 && write(file_, bytes.data(), bytes.size()) == ssize_t(bytes.size()));
  }
  Player(const Player&) = delete;
  Player& operator=(const Player&) = delete;

  // `is_lied_about`: its own memory is changed, and what it is told does not matter.
  void begin(int connection, Manner manner, bool is_lied_about = false) {
    fd_ = connection;
    sent_ = received_ = 0;
    is_tame_ = manner == Manner::kTame;
    is_compared_ = manner == Manner::kCompared;
    is_lied_about_ = is_lied_about;
    notes_ = {};
    shut_ = 0;
    int one = 1;
    is_tcp_ = setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0;  // Nagle's algorithm waits
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  }
  void end() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    forget_passed();
    drain_pipe();
  }

  const Notes& notes() const { return notes_; }
  // What this side has sent, and what of the other side's has arrived: bytes, and kEnd for the end.
  static constexpr uint64_t kEnd = uint64_t{1} << 40, kOver = ~uint64_t{0};
  uint64_t sent() const { return sent_ + ((shut_ & 2) != 0 ? kEnd : 0); }
  uint64_t arrived() const {
    int queued = 0;
    pollfd p{fd_, POLLRDHUP, 0};
    if (ioctl(fd_, FIONREAD, &queued) != 0 || poll(&p, 1, 0) < 0 || (p.revents & (POLLERR | POLLHUP)) != 0) return kOver;
    return received_ + uint64_t(queued) + ((p.revents & POLLRDHUP) != 0 ? kEnd : 0);
  }

  void act(Input& in) {
    notes_ = {};
    notes_.add(in.empty() ? 0 : *in.rest() % 23);
    switch (in.byte() % 23) {
      case 0:
      case 1: return receive(in);
      case 2: return receive_in_pieces(in);
      case 3:
      case 4: return receive_message(in);
      case 5:
      case 6: return send_bytes(in);
      case 7: return send_in_pieces(in);
      case 8:
      case 9: return send_message(in);
      case 10: return shut_down(in);
      case 11: return look(in);
      case 12: return wait_in_set(in);
      case 13: return ask(in);
      case 14: return get_option(in);
      case 15: return set_option(in);
      case 16: return names(in);
      case 17: return splice_out(in);
      case 18: return splice_in(in);
      case 19: return use_passed(in);
      case 20: return replace(in);
      case 21: return send_file(in);
      default: return share(in);
    }
  }

 private:
  static constexpr std::size_t kMostBytes = 1 << 16, kMostPassed = 16, kMostCompared = 24 * 1024;
  void check(bool condition, std::source_location place = std::source_location::current()) const {
    if (!condition && !is_lied_about_) failed(place.file_name(), int(place.line()), "what a call returned");
  }
  ssize_t note(ssize_t returned) {
    notes_.add(returned < 0 ? -errno : returned);
    return returned;
  }
  void note_bytes(const uint8_t* bytes, ssize_t n) {
    uint64_t hash = 0;
    for (ssize_t i = 0; i < n; ++i) hash = hash * 31 + bytes[i];
    notes_.add(int64_t(hash));
  }
  static uint8_t pattern(uint64_t position) { return uint8_t(position % 251); }

  // Few, a page, or as much as fills a ring.
  std::size_t some_bytes(Input& in) const {
    uint8_t way = in.byte();
    if (is_compared_) return way % 8 == 0 ? way * 8 : way / 4;
    return way % 4 == 0 ? in.word(2) : way % 4 == 1 ? 4096 : way / 4;
  }

  // ---- receiving
  void check_received(const uint8_t* bytes, ssize_t n, bool peeked) {
    if (n <= 0) return;
    note_bytes(bytes, n);
    for (ssize_t i = 0; is_tame_ && i < n; ++i) check(bytes[i] == pattern(received_ + uint64_t(i)));
    if (!peeked) received_ += uint64_t(n);
  }
  int receive_flags(Input& in) {
    static constexpr int kFlags[] = {0, MSG_WAITALL, MSG_PEEK, MSG_TRUNC, 0, MSG_OOB, MSG_PEEK | MSG_TRUNC, MSG_PEEK | MSG_OOB};
    return kFlags[in.byte() % (is_tame_ ? 3 : 8)] | MSG_DONTWAIT;
  }
  void receive(Input& in) {
    std::size_t size = some_bytes(in) + is_compared_;  // reading none throws descriptors away
    int flags = receive_flags(in);
    notes_.add(flags);
    std::unique_ptr<uint8_t[]> bytes(new uint8_t[size]());
    ssize_t n = note(recv(fd_, bytes.get(), size, flags));
    check(n <= ssize_t(size) || (flags & MSG_TRUNC) != 0);
    check(n >= 0 || errno != ECONNRESET || !is_tame_);
    if (n < 0 && errno == ECONNRESET) check(recv(fd_, bytes.get(), size, flags) >= 0 || errno != ECONNRESET);  // told once
    check_received(bytes.get(), n < ssize_t(size) ? n : ssize_t(size), (flags & MSG_PEEK) != 0);
  }
  void receive_in_pieces(Input& in) {
    std::size_t a = in.byte(), b = some_bytes(in);
    std::unique_ptr<uint8_t[]> first(new uint8_t[a]), second(new uint8_t[b]);
    iovec iov[3] = {{first.get(), a}, {nullptr, 0}, {second.get(), b}};
    ssize_t n = note(readv(fd_, iov, 3));
    check(n <= ssize_t(a + b));
    check_received(first.get(), n < ssize_t(a) ? n : ssize_t(a), false);
    if (n > ssize_t(a)) check_received(second.get(), n - ssize_t(a), false);
  }
  void receive_message(Input& in) {
    std::size_t size = some_bytes(in) + is_compared_, room = in.byte();
    int flags = receive_flags(in) | (in.flip() ? MSG_CMSG_CLOEXEC : 0);
    if (is_compared_) flags &= ~MSG_PEEK;  // the kernel shows descriptors of messages further behind, too
    notes_.add(flags);
    std::unique_ptr<uint8_t[]> bytes(new uint8_t[size]());
    std::unique_ptr<uint64_t[]> control(new uint64_t[room / 8 + 1]);
    sockaddr_storage name;
    iovec iov{bytes.get(), size};
    msghdr m{&name, sizeof name, &iov, 1, control.get(), room, 0};
    ssize_t n = note(recvmsg(fd_, &m, flags));
    check(n <= ssize_t(size) || (flags & MSG_TRUNC) != 0);
    check_received(bytes.get(), n < ssize_t(size) ? n : ssize_t(size), (flags & MSG_PEEK) != 0);
    if (n < 0) return;
    for (uint64_t value : {uint64_t(m.msg_flags), uint64_t(m.msg_controllen), uint64_t(m.msg_namelen)}) notes_.add(int64_t(value));
    check(m.msg_controllen <= room && m.msg_namelen <= sizeof name);
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      for (std::size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        check(fcntl(fd, F_GETFD) >= 0);
        passed_.push_back(fd);
      }
    }
    while (passed_.size() > kMostPassed) close(passed_.front()), passed_.erase(passed_.begin());
  }

  // ---- sending
  void note_sent(ssize_t n) {
    note(n);
    if (n > 0) sent_ += uint64_t(n);
  }
  std::unique_ptr<uint8_t[]> to_send(std::size_t size) const {
    std::unique_ptr<uint8_t[]> bytes(new uint8_t[size]);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = pattern(sent_ + i);
    return bytes;
  }
  // Of what is compared all fits into any buffer.
  bool is_enough(std::size_t size) const { return is_compared_ && sent_ + size > kMostCompared; }
  int send_flags(Input& in) const {
    static constexpr int kFlags[] = {0, 0, 0, 0, MSG_EOR, MSG_ZEROCOPY, MSG_MORE};
    return kFlags[in.byte() % (is_compared_ ? 6 : 7)] | MSG_DONTWAIT | MSG_NOSIGNAL;
  }
  void send_bytes(Input& in) {
    std::size_t size = some_bytes(in);
    int flags = send_flags(in);
    bool urgent = in.byte() % 8 == 0 && !is_tame_ && !is_compared_;
    if (is_enough(size)) return;
    ssize_t n = send(fd_, to_send(size).get(), size, flags | (urgent ? MSG_OOB : 0));
    check(n <= ssize_t(size));
    notes_.add(urgent);
    note_sent(n);
  }
  void send_in_pieces(Input& in) {
    std::size_t a = in.byte(), b = some_bytes(in);
    if (is_enough(a + b)) return;
    auto bytes = to_send(a + b);
    iovec iov[2] = {{bytes.get(), a}, {bytes.get() + a, b}};
    note_sent(writev(fd_, iov, 2));
  }
  void send_message(Input& in) {
    std::size_t size = some_bytes(in);
    int flags = send_flags(in);
    if (is_enough(size)) return;
    auto bytes = to_send(size);
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int)) + CMSG_SPACE(sizeof(ucred))] = {};
    iovec iov{bytes.get(), size};
    msghdr m{nullptr, 0, &iov, 1, control, 0, 0};
    uint32_t count = in.below(5);
    if (count > 0) {
      auto* c = reinterpret_cast<cmsghdr*>(control);
      *c = {CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
      for (uint32_t i = 0; i < count; ++i) {
        int fd = to_pass(in);
        memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
      }
      m.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    if (in.byte() % 4 == 0 && !is_compared_) {  // of an acceptor they end a read
      auto* c = reinterpret_cast<cmsghdr*>(control + m.msg_controllen);
      *c = {CMSG_LEN(sizeof(ucred)), SOL_SOCKET, SCM_CREDENTIALS};
      ucred own{getpid(), getuid(), getgid()};
      memcpy(CMSG_DATA(c), &own, sizeof own);
      m.msg_controllen += CMSG_SPACE(sizeof own);
    }
    notes_.add(count);
    notes_.add(int64_t(m.msg_controllen));
    note_sent(sendmsg(fd_, &m, flags));
  }
  int to_pass(Input& in) {
    switch (in.byte() % 4) {
      case 0: return pipe_[in.flip()];
      case 1: return is_tame_ || is_compared_ ? file_ : fd_;  // the connection itself: who serves it for whoever gets it reads, too
      case 2: return passed_.empty() ? file_ : passed_[in.below(uint32_t(passed_.size()))];
      default: return file_;
    }
  }

  void shut_down(Input& in) {
    int how = int(in.below(3));
    uint32_t shut = shut_ | (how == SHUT_RDWR ? 3u : 1u << how);
    // Whoever has shut down both ways and gets bytes then has, over TCP, no connection any more.
    if (is_compared_ && is_tcp_ && shut == 3) return;
    shut_ = shut;
    note(shutdown(fd_, how));
  }

  // ---- looking
  void look(Input& in) {
    pollfd p{fd_, short(in.word(2)), 0};
    check(note(poll(&p, 1, 0)) <= 1);
    notes_.add(p.revents);
  }
  void wait_in_set(Input& in) {
    uint32_t kinds[] = {EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT | EPOLLRDHUP, EPOLLIN | EPOLLET, EPOLLPRI | EPOLLIN, EPOLLIN | EPOLLONESHOT};
    epoll_event e{kinds[in.byte() % 6], {.u64 = 7}}, found[2];
    if (epoll_ctl(set_, EPOLL_CTL_ADD, fd_, &e) != 0) (void)epoll_ctl(set_, in.byte() % 4 == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, fd_, &e);
    int n = int(note(epoll_wait(set_, found, 2, 0)));
    check(n <= 2);
    int64_t all = 0;  // in any order
    for (int i = 0; i < n; ++i) check(found[i].data.u64 == 7), all += found[i].events;
    notes_.add(all);
  }
  void ask(Input& in) {
    static constexpr unsigned long kQuestions[] = {FIONREAD, SIOCATMARK, SIOCOUTQ, SIOCOUTQNSD};
    unsigned long question = kQuestions[in.byte() % (is_compared_ ? 2 : 4)];
    int n = 0;
    if (note(ioctl(fd_, question, &n)) == 0) check(n >= 0);
    notes_.add(n);
  }
  void get_option(Input& in) {
    std::unique_ptr<uint8_t[]> value(new uint8_t[256]());
    socklen_t size = in.byte();
    static constexpr int kOptions[] = {SO_ERROR, SO_TYPE, SO_DOMAIN, SO_RCVLOWAT, SO_ACCEPTCONN, SO_PROTOCOL, SO_OOBINLINE, SO_PASSCRED,
                                       SO_KEEPALIVE, SO_PEERCRED, SO_RCVBUF, SO_SNDBUF, SO_PEERNAME, SO_COOKIE, SO_PEERSEC};
    static constexpr int kTcpOptions[] = {TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_DEFER_ACCEPT};
    if (in.flip()) note(getsockopt(fd_, SOL_SOCKET, kOptions[in.byte() % (is_compared_ ? 9 : 15)], value.get(), &size));
    else note(getsockopt(fd_, IPPROTO_TCP, is_compared_ ? kTcpOptions[in.byte() % 6] : in.flip() ? TCP_INFO : int(in.byte()), value.get(), &size));
    check(size <= 256);
    notes_.add(size);
    note_bytes(value.get(), size);
  }
  void set_option(Input& in) {
    static constexpr int kOptions[] = {SO_OOBINLINE, SO_RCVLOWAT, SO_KEEPALIVE, SO_PASSCRED, SO_RCVBUF, SO_SNDBUF, SO_TIMESTAMP};
    int value = is_compared_ ? in.byte() % 64 : int(in.word(2));
    int option = kOptions[in.byte() % (is_compared_ ? 3 : 7)];
    notes_.add(option);
    notes_.add(value);
    if (is_compared_ || in.flip()) note(setsockopt(fd_, SOL_SOCKET, option, &value, sizeof value));
    else (void)setsockopt(fd_, IPPROTO_TCP, in.flip() ? TCP_CORK : TCP_NODELAY, &value, sizeof value);
  }
  void names(Input& in) {
    sockaddr_storage name;
    socklen_t size = in.byte() % (sizeof name + 1);
    auto* a = reinterpret_cast<sockaddr*>(&name);
    note(in.flip() ? getpeername(fd_, a, &size) : getsockname(fd_, a, &size));
  }

  // ---- without copies
  void drain_pipe() {
    uint8_t bytes[4096];
    while (read(pipe_[0], bytes, sizeof bytes) > 0) {}
  }
  void splice_out(Input& in) {
    std::size_t size = some_bytes(in);
    ssize_t n = note(splice(fd_, nullptr, pipe_[1], nullptr, size, SPLICE_F_NONBLOCK));
    check(n <= ssize_t(size));
    uint8_t bytes[4096];
    while (n > 0) {
      ssize_t k = read(pipe_[0], bytes, n < ssize_t(sizeof bytes) ? std::size_t(n) : sizeof bytes);
      check(k > 0);
      check_received(bytes, k, false);
      n -= k;
    }
  }
  void splice_in(Input& in) {
    auto bytes = to_send(4096);
    std::size_t size = 1 + in.word(2) % (is_compared_ ? 64 : 4096);
    if (is_enough(size)) return;
    ssize_t k = write(pipe_[1], bytes.get(), size);
    if (k > 0) note_sent(splice(pipe_[0], nullptr, fd_, nullptr, std::size_t(k), SPLICE_F_NONBLOCK));
    drain_pipe();
  }
  void send_file(Input& in) {
    off_t at = off_t(sent_ % 251);
    std::size_t size = some_bytes(in) % (kMostBytes - 251);
    if (!is_enough(size)) note_sent(sendfile(fd_, file_, &at, size));
  }

  // ---- descriptors
  void use_passed(Input& in) {
    if (passed_.empty() || is_tame_ || is_compared_) return;  // it may be this connection
    int fd = passed_[in.below(uint32_t(passed_.size()))];
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    uint8_t bytes[512] = {};
    if (in.flip()) (void)recv(fd, bytes, in.byte(), MSG_DONTWAIT);
    else (void)send(fd, bytes, in.byte(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  // With a child that does something with the connection, too, while we wait, and then ends or dies.
  void share(Input& in) {
    bool dies = in.flip();
    Input later = in;
    // Of what it reads we would not know, and errors, options and what is in a set are each process's own.
    pid_t child = is_child_ || is_tame_ || is_compared_ ? -1 : fork();
    if (child == 0) {
      is_child_ = true;
      for (int i = 0; i < 3; ++i) act(in);
      if (dies) kill(getpid(), SIGKILL);
      _exit(0);
    }
    if (child > 0) waitpid(child, nullptr, 0);
    in = later;
  }
  void forget_passed() {
    for (int fd : passed_) close(fd);
    passed_.clear();
  }
  void replace(Input& in) {
    if (in.byte() % 4 == 0) return forget_passed();
    // What was watched by a number that is closed then is watched on as long as there is another.
    if (is_compared_) (void)epoll_ctl(set_, EPOLL_CTL_DEL, fd_, nullptr);
    int copy = dup(fd_);
    check(copy >= 0);
    close(fd_);
    fd_ = copy;
  }

  int fd_ = -1, set_ = -1, file_ = -1;
  int pipe_[2] = {-1, -1};
  uint64_t sent_ = 0, received_ = 0;
  bool is_tame_ = false, is_compared_ = false, is_lied_about_ = false, is_tcp_ = false, is_child_ = false;
  uint32_t shut_ = 0;  // a bit for each direction
  Notes notes_;
  std::vector<int> passed_;
};

}  // namespace sluice::fuzz
