#include "unix_messages.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

namespace conformance {

ssize_t try_send(int fd, const std::string& bytes, const std::vector<int>& fds, int flags,
                 const ucred* who) {
  alignas(cmsghdr) char control[CMSG_SPACE(300 * sizeof(int)) + CMSG_SPACE(sizeof(ucred))] = {};
  iovec iov{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  auto put = [&](int type, const void* data, size_t size) {
    auto* c = reinterpret_cast<cmsghdr*>(control + m.msg_controllen);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    m.msg_control = control;
    m.msg_controllen += CMSG_SPACE(size);
  };
  if (!fds.empty()) put(SCM_RIGHTS, fds.data(), fds.size() * sizeof(int));
  if (who != nullptr) put(SCM_CREDENTIALS, who, sizeof *who);
  return sendmsg(fd, &m, flags);
}

void send_with(int fd, const std::string& bytes, const std::vector<int>& fds) {
  CHECK_EQ(try_send(fd, bytes, fds), bytes.size());
}

Message receive(int fd, size_t limit, int flags, size_t room) {
  Message out;
  std::string buffer(limit, '\0');
  alignas(cmsghdr) char control[2048];
  iovec iov{buffer.data(), limit};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = room;
  ssize_t n = CHECK_OK(recvmsg(fd, &m, flags));
  out.bytes = buffer.substr(0, size_t(n));
  out.flags = m.msg_flags;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    CHECK_EQ(c->cmsg_level, SOL_SOCKET);
    if (c->cmsg_type == SCM_RIGHTS)
      for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int got;
        memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
        out.fds.push_back(got);
      }
    if (c->cmsg_type != SCM_CREDENTIALS) continue;
    out.credentials.emplace_back();
    memcpy(&out.credentials.back(), CMSG_DATA(c), sizeof(ucred));
  }
  return out;
}

Word::Word(const std::string& text) {
  int ends[2];
  CHECK_OK(pipe2(ends, O_CLOEXEC));
  in = ends[1];
  out = ends[0];
  CHECK_EQ(write(in, text.data(), text.size()), text.size());
}

std::string word_in(int fd) {
  char b[16];
  ssize_t n = CHECK_OK(read(fd, b, sizeof b));
  return std::string(b, size_t(n));
}

int open_descriptors() {
  int n = 0;
  for (int fd = 0; fd < 256; ++fd) n += fcntl(fd, F_GETFD) >= 0;
  return n;
}

}  // namespace conformance
