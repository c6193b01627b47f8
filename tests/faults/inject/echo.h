// A conversation over a stream or over records, both sides checked: nothing is lost, doubled or changed, and who sees
// the end early sees it because somebody was refused something.
#pragma once

#include <fcntl.h>
#include <sys/epoll.h>

#include <vector>

#include "tests/faults/inject/sides.h"

namespace sluice::tests {

inline constexpr size_t kSizes[] = {1, 700, 20'000, 300'000};
inline constexpr size_t kTotal = 320'701;
inline constexpr size_t kRecord = 10'000;

inline bool wait_until_ready(int fd, short events) {
  pollfd p{fd, events, 0};
  return done("poll", [&] { return poll(&p, 1, -1); }) >= 0;
}

// Between a refusal and a part of what should have come.
inline void check_end(const char* who, size_t came) {
  if (!mortal && came != kTotal && page->refusals.load() == refused_before && page->resets.load() == 0)
    wrong("%s sees the end after %zu of %zu bytes, and nobody was refused anything", who, came, kTotal);
}

// The serving side: gives back what comes. -1: it could not go on.
inline int serve(int in, int out) {
  std::vector<char> buffer(65536);
  size_t came = 0;
  for (;;) {
    long n = done("read", [&] {
      long k = read(in, buffer.data(), buffer.size());
      if (k < 0 && errno == EAGAIN && wait_until_ready(in, POLLIN)) errno = EINTR;
      return k;
    });
    if (n <= 0) {
      if (n == 0 && came != kTotal && !page->over.load()) check_end("the server", came);
      return n == 0 ? 0 : -1;
    }
    for (long i = 0; i < n; ++i)
      if (buffer[size_t(i)] != byte_at(came + size_t(i))) return wrong("byte %zu came wrong", came + size_t(i)), -1;
    came += size_t(n);
    for (long sent = 0; sent < n;) {
      long k = done("write", [&] {
        long w = write(out, buffer.data() + sent, size_t(n - sent));
        if (w < 0 && errno == EAGAIN && wait_until_ready(out, POLLOUT)) errno = EINTR;
        return w;
      });
      if (k < 0) return -1;
      sent += k;
    }
  }
}

// The asking side. True: all of it came back.
inline bool converse(int out, int in, bool records = false) {
  std::vector<char> text(kTotal), buffer(65536);
  for (size_t i = 0; i < kTotal; ++i) text[i] = byte_at(i);
  size_t sent = 0, back = 0;
  for (size_t size : kSizes) {
    for (size_t end = sent + size; back < end;) {
      short events = short((sent < end ? POLLOUT : 0));
      pollfd fds[2] = {{out, events, 0}, {in, POLLIN, 0}};
      if (done("poll", [&] { return poll(fds, 2, -1); }) < 0) return false;
      if (sent < end && (fds[0].revents & (POLLOUT | POLLERR | POLLHUP)) != 0) {
        size_t n = records && end - sent > kRecord ? kRecord : end - sent;
        if (!records && n > 50'000) n = 50'000;
        long k = done("write", [&] {
          long w = send(out, text.data() + sent, n, MSG_DONTWAIT | MSG_NOSIGNAL);
          if (w < 0 && errno == ENOTSOCK) w = write(out, text.data() + sent, n < 4096 ? n : 4096);
          return w < 0 && errno == EAGAIN ? 0 : w;
        });
        if (k < 0) return false;
        sent += size_t(k);
      }
      if ((fds[1].revents & ~POLLOUT) == 0) continue;
      long n = done("read", [&] { return read(in, buffer.data(), buffer.size()); });
      if (n < 0) return false;
      if (n == 0) return check_end("the client", back), false;
      for (long i = 0; i < n; ++i)
        if (buffer[size_t(i)] != byte_at(back + size_t(i))) return wrong("byte %zu came back wrong", back + size_t(i)), false;
      back += size_t(n);
    }
  }
  return true;
}

// Blocking all the way, one direction at a time.
inline bool converse_in_turns(int fd) {
  std::vector<char> text(kTotal), buffer(65536);
  for (size_t i = 0; i < kTotal; ++i) text[i] = byte_at(i);
  for (size_t at = 0; at < kTotal;) {
    size_t n = kTotal - at < 7'000 ? kTotal - at : 7'000;
    for (size_t sent = 0; sent < n;) {
      long k = done("write", [&] { return send(fd, text.data() + at + sent, n - sent, MSG_NOSIGNAL); });
      if (k < 0) return false;
      sent += size_t(k);
    }
    for (size_t back = 0; back < n;) {
      long k = done("read", [&] { return recv(fd, buffer.data(), n - back, 0); });
      if (k < 0) return false;
      if (k == 0) return check_end("the client", at + back), false;
      for (long i = 0; i < k; ++i)
        if (buffer[size_t(i)] != byte_at(at + back + size_t(i))) return wrong("byte %zu came back wrong", at + back), false;
      back += size_t(k);
    }
    at += n;
  }
  return true;
}

// After all has come back: says that nothing more comes, and expects the same.
inline bool part(int fd) {
  if (done("shutdown", [&] { return shutdown(fd, SHUT_WR); }) < 0) return false;
  char byte;
  int before = page->refusals.load();
  long n = done("read", [&] { return read(fd, &byte, 1); });
  if (n > 0) wrong("a byte too many");
  return n == 0 || page->refusals.load() != before;
}

}  // namespace sluice::tests
