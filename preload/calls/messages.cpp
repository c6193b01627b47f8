// recv(2), send(2) and their relatives.
#include "preload/dispatch.h"

namespace sluice::preload {

namespace {

ssize_t receive_message(TcpSocket& s, msghdr* m, int flags) {
  if (m->msg_iovlen > 1024) return -EMSGSIZE;
  ssize_t n = s.receive(m->msg_iov, int(m->msg_iovlen), flags);
  if (n < 0) return n;
  m->msg_namelen = 0;  // as tcp_recvmsg leaves it on a connected socket
  m->msg_controllen = 0;
  m->msg_flags = flags & (MSG_CMSG_CLOEXEC | MSG_OOB);
  return n;
}

ssize_t send_message(TcpSocket& s, const msghdr* m, int flags) {
  if (m->msg_iovlen > 1024) return -EMSGSIZE;
  return s.send(m->msg_iov, int(m->msg_iovlen), flags);
}

}  // namespace

INTERPOSE(ssize_t, recv, (int fd, void* buf, size_t n, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{buf, n};
                         return s.receive(&iov, 1, flags);
                       },
                       [&] { return libc.recv(fd, buf, n, flags); });
}

INTERPOSE(ssize_t, recvfrom, (int fd, void* buf, size_t n, int flags, sockaddr* addr, socklen_t* length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{buf, n};
                         ssize_t r = s.receive(&iov, 1, flags);
                         if (r >= 0 && addr != nullptr && length != nullptr) *length = 0;
                         return r;
                       },
                       [&] { return libc.recvfrom(fd, buf, n, flags, addr, length); });
}

INTERPOSE(ssize_t, recvmsg, (int fd, msghdr* m, int flags)) {
  return on_connection(fd, [&](TcpSocket& s) { return receive_message(s, m, flags); },
                       [&] { return libc.recvmsg(fd, m, flags); });
}

INTERPOSE(int, recvmmsg, (int fd, mmsghdr* m, unsigned count, int flags, timespec* timeout)) {
  return on_connection(fd,
                       [&](TcpSocket& s) -> ssize_t {
                         Deadline deadline = Deadline::in(timeout);
                         unsigned i = 0;
                         ssize_t n = 0;
                         for (; i < count && !(i > 0 && deadline.passed()); ++i) {
                           bool first_only = (flags & MSG_WAITFORONE) != 0 && i > 0;
                           n = receive_message(s, &m[i].msg_hdr, (flags & ~MSG_WAITFORONE) | (first_only ? int{MSG_DONTWAIT} : 0));
                           if (n < 0) break;
                           m[i].msg_len = unsigned(n);
                           if (n == 0) break;
                         }
                         return i > 0 ? ssize_t(i) : n;
                       },
                       [&] { return libc.recvmmsg(fd, m, count, flags, timeout); });
}

INTERPOSE(ssize_t, send, (int fd, const void* buf, size_t n, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{const_cast<void*>(buf), n};
                         return s.send(&iov, 1, flags);
                       },
                       [&] { return libc.send(fd, buf, n, flags); });
}

INTERPOSE(ssize_t, sendto, (int fd, const void* buf, size_t n, int flags, const sockaddr* addr, socklen_t length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{const_cast<void*>(buf), n};
                         return s.send(&iov, 1, flags);  // TCP ignores an address
                       },
                       [&] { return libc.sendto(fd, buf, n, flags, addr, length); });
}

INTERPOSE(ssize_t, sendmsg, (int fd, const msghdr* m, int flags)) {
  return on_connection(fd, [&](TcpSocket& s) { return send_message(s, m, flags); },
                       [&] { return libc.sendmsg(fd, m, flags); });
}

INTERPOSE(int, sendmmsg, (int fd, mmsghdr* m, unsigned count, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) -> ssize_t {
                         unsigned i = 0;
                         ssize_t n = 0;
                         for (; i < count; ++i) {
                           n = send_message(s, &m[i].msg_hdr, flags);
                           if (n < 0) break;
                           m[i].msg_len = unsigned(n);
                         }
                         return i > 0 ? ssize_t(i) : n;
                       },
                       [&] { return libc.sendmmsg(fd, m, count, flags); });
}

}  // namespace sluice::preload
