// recv(2), send(2) and their relatives.
#include <string.h>

#include "preload/dispatch.h"
#include "preload/files/ancillary.h"
#include "preload/materialize.h"
#include "preload/passing.h"
#include "preload/peers.h"
#include "preload/user_memory.h"

namespace sluice::preload {

namespace {

// Whether there were bytes, if only `n` of them were wanted, which may be none.
bool has_come(const TcpSocket& s, ssize_t n) {
  if (n != 0) return n > 0;
  Looking looking;
  return s.state == TcpState::kConnected && s.readable_bytes() > 0;
}

// The peer's name, as unix_stream_recvmsg tells it with bytes.
socklen_t put_name(const TcpSocket& s, bool came, void* name, socklen_t length) {
  if (name == nullptr || !came) return 0;
  Guard guard(control_lock);
  UnixName peer = s.peer_name();
  if (peer.empty()) return 0;
  (void)peer.format(static_cast<sockaddr*>(name), &length);
  return length;
}

// What recvfrom(2) tells of the sender. 0 or -EFAULT.
int tell_sender(const TcpSocket& s, ssize_t n, sockaddr* addr, socklen_t* length) {
  socklen_t room;
  int error = get_user(room, length);
  return error != 0 ? error : put_user(length, s.is_unix() ? put_name(s, has_come(s, n), addr, room) : 0);
}

// As for a stream, but a record may be empty and is then told all the same.
ssize_t receive_one_record(TcpSocket& s, msghdr* m, int flags) {
  RecordInfo info;
  int flags_before = m->msg_flags;
  size_t room = m->msg_controllen;
  ssize_t n = s.receive_record(m->msg_iov, int(m->msg_iovlen), flags, m, info);
  if (n < 0) {
    m->msg_flags = flags_before;
    m->msg_controllen = room;
    return n;
  }
  if (!info.has_control) {
    bool tell = s.pass_credentials && info.came;
    m->msg_flags = 0;
    m->msg_controllen = tell ? room : 0;
    if (tell) put_credentials(*m, s.peer);
  }
  m->msg_flags |= (flags & MSG_CMSG_CLOEXEC) | (info.truncated ? int{MSG_TRUNC} : 0);
  m->msg_namelen = put_name(s, info.came, m->msg_name, m->msg_namelen);
  unpack_if_any(m);
  return n;
}

ssize_t receive_on_unix(TcpSocket& s, msghdr* m, int flags) {
  if (s.records) return receive_one_record(s, m, flags);
  constexpr int kNothingCame = -1;
  int flags_before = m->msg_flags;
  size_t room = m->msg_controllen;
  m->msg_flags = kNothingCame;
  ssize_t n = s.receive(m->msg_iov, int(m->msg_iovlen), flags, m);
  bool came = m->msg_flags != kNothingCame;
  if (n < 0) {
    m->msg_flags = flags_before;
    return n;
  }
  bool bytes_came = has_come(s, n);
  if (!came) {
    constexpr ucred kNobodySends{0, 0, 0};  // at the end, as the kernel says it
    m->msg_flags = 0;
    m->msg_controllen = s.pass_credentials ? room : 0;
    if (s.pass_credentials) put_credentials(*m, bytes_came ? s.peer : kNobodySends);
  }
  m->msg_flags |= flags & (MSG_CMSG_CLOEXEC | MSG_OOB);
  m->msg_namelen = put_name(s, bytes_came, m->msg_name, m->msg_namelen);
  unpack_if_any(m);
  return n;
}

ssize_t receive_record_from(TcpSocket& s, iovec iov, int flags, sockaddr* addr, socklen_t* length) {
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_name = addr;
  if (int e = get_user(m.msg_namelen, length); e != 0) return e;
  ssize_t n = receive_one_record(s, &m, flags);
  int error = n >= 0 ? put_user(length, m.msg_namelen) : 0;
  return error != 0 ? error : n;
}

ssize_t receive_on_tcp(TcpSocket& s, msghdr* m, int flags) {
  ssize_t n = s.receive(m->msg_iov, int(m->msg_iovlen), flags);
  if (n < 0) return n;
  m->msg_namelen = 0;  // as tcp_recvmsg leaves it on a connected socket
  m->msg_controllen = 0;
  m->msg_flags = flags & (MSG_CMSG_CLOEXEC | MSG_OOB);
  return n;
}

ssize_t receive_message(TcpSocket& s, msghdr* to, int flags) {
  UserMessage m(to);
  if (m.error() != 0) return m.error();
  if (s.is_unix() && m.get()->msg_control != nullptr && is_guarded(m.get()->msg_control, m.get()->msg_controllen)) return -EFAULT;
  ssize_t n = s.is_unix() ? receive_on_unix(s, m.get(), flags) : receive_on_tcp(s, m.get(), flags);
  int error = n >= 0 ? m.give_back(to) : 0;
  return error != 0 ? error : n;
}

ssize_t send_message(TcpSocket& s, const msghdr* from, int flags) {
  UserMessage message(from);
  if (message.error() != 0) return message.error();
  const msghdr* m = message.get();
  if (s.is_unix()) {
    if (m->msg_namelen != 0 && !s.records) return -EISCONN;
    if (!may_pass(m)) return s.send_with_control(*m, flags);
    // Whoever is at the other end has the shim.
    Parcel parcel(s.peer.uid == geteuid() ? Takers::kShim : Takers::kStrangers, m);
    return parcel.error() != 0 ? parcel.error() : s.send_with_control(*parcel.message(), flags);
  }
  return s.send(m->msg_iov, int(m->msg_iovlen), flags);
}

// MSG_FASTOPEN connects, in the kernel.
void leave_for_fast_open(int fd, int flags) {
  if ((flags & MSG_FASTOPEN) == 0) return;
  Entrance entrance;
  FileReference f(fd);
  if (f.get() == nullptr || f.get()->kind() != FileKind::kTcpSocket) return;
  auto& s = static_cast<TcpSocket&>(*f.get());
  uint32_t released = 0;
  {
    Guard guard(control_lock);
    if (s.state != TcpState::kUnconnected || make_real(fd, s) != 0) return;
    hand_to_kernel(s, -1, released);
  }
  while (released-- > 0) s.release();
}

ssize_t send_parcel(int channel, const msghdr* m, int flags) {
  Entrance entrance;
  Parcel parcel(channel, m);
  return parcel.error() != 0 ? finish(ssize_t{parcel.error()}) : outside([&] { return libc.sendmsg(channel, parcel.message(), flags); });
}

int send_parcels(int channel, mmsghdr* m, unsigned count, int flags) {
  unsigned sent = 0;
  for (; sent < count; ++sent) {
    ssize_t n = send_parcel(channel, &m[sent].msg_hdr, flags);
    if (n < 0) break;
    m[sent].msg_len = unsigned(n);
  }
  return sent > 0 || count == 0 ? int(sent) : -1;
}

ssize_t receive_message_on_pair(int fd, msghdr* to, int flags) {
  return on_pair(fd,
                 [&](PairEnd& p) -> ssize_t {
                   UserMessage m(to);
                   if (m.error() != 0 || (flags & ~kPlainReceive) != 0) return kNowTheKernels;
                   bool by_kernel = false;
                   auto at_once = [&](size_t) -> ssize_t {
                     ssize_t n = outside([&] { return kernel::recvmsg(fd, to, flags | MSG_DONTWAIT); });
                     by_kernel = n >= 0;
                     return n < 0 ? -errno : n;
                   };
                   ssize_t n = p.receive(m.get()->msg_iov, int(m.get()->msg_iovlen), KernelCall(at_once));
                   if (n < 0 || by_kernel) return n;
                   m.get()->msg_namelen = 0;
                   m.get()->msg_controllen = 0;
                   m.get()->msg_flags = flags & MSG_CMSG_CLOEXEC;
                   int error = m.give_back(to);
                   return error != 0 ? error : n;
                 },
                 [&] { return libc.recvmsg(fd, to, flags); });
}

ssize_t send_message_on_pair(int fd, const msghdr* from, int flags) {
  auto kernel = [&] { return may_pass(from) ? send_parcel(fd, from, flags) : libc.sendmsg(fd, from, flags); };
  if (pair_at(fd) == nullptr) return kernel();
  UserMessage m(from);
  bool plain = m.error() == 0 && m.get()->msg_controllen == 0 && m.get()->msg_namelen == 0;
  if (!plain) return bypass_pair(fd, kernel);
  return send_on_pair(fd, m.get()->msg_iov, int(m.get()->msg_iovlen), flags, kernel);
}

}  // namespace

INTERPOSE(ssize_t, recv, (int fd, void* buf, size_t n, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{buf, n};
                         return s.receive(&iov, 1, flags);
                       },
                       [&] {
                         iovec iov{buf, n};
                         return receive_on_pair(fd, &iov, 1, flags, [&] { return libc.recv(fd, buf, n, flags); });
                       });
}

INTERPOSE(ssize_t, recvfrom, (int fd, void* buf, size_t n, int flags, sockaddr* addr, socklen_t* length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{buf, n};
                         if (s.records && addr != nullptr && length != nullptr) return receive_record_from(s, iov, flags, addr, length);
                         ssize_t r = s.receive(&iov, 1, flags);
                         if (r < 0 || addr == nullptr || length == nullptr) return r;
                         int error = tell_sender(s, r, addr, length);
                         return error != 0 ? error : r;
                       },
                       [&] {
                         iovec iov{buf, n};
                         auto kernel = [&] { return libc.recvfrom(fd, buf, n, flags, addr, length); };
                         return addr != nullptr ? kernel() : receive_on_pair(fd, &iov, 1, flags, kernel);
                       });
}

INTERPOSE(ssize_t, recvmsg, (int fd, msghdr* m, int flags)) {
  return on_connection(fd, [&](TcpSocket& s) { return receive_message(s, m, flags); },
                       [&] {
                         ssize_t n = receive_message_on_pair(fd, m, flags);
                         Entrance entrance;
                         if (n >= 0) unpack_if_any(m);
                         return n;
                       });
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
                           if (int e = put_user(&m[i].msg_len, unsigned(n)); e != 0) return e;
                         }
                         return i > 0 ? ssize_t(i) : n;
                       },
                       [&] {
                         int n = libc.recvmmsg(fd, m, count, flags, timeout);
                         Entrance entrance;
                         for (int i = 0; i < n; ++i) unpack_if_any(&m[i].msg_hdr);
                         return n;
                       });
}

INTERPOSE(ssize_t, send, (int fd, const void* buf, size_t n, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{const_cast<void*>(buf), n};
                         return s.send(&iov, 1, flags);
                       },
                       [&] {
                         iovec iov{const_cast<void*>(buf), n};
                         return send_on_pair(fd, &iov, 1, flags, [&] { return libc.send(fd, buf, n, flags); });
                       });
}

INTERPOSE(ssize_t, sendto, (int fd, const void* buf, size_t n, int flags, const sockaddr* addr, socklen_t length)) {
  return on_connection(fd,
                       [&](TcpSocket& s) {
                         iovec iov{const_cast<void*>(buf), n};
                         if (s.is_unix() && !s.records && addr != nullptr && length != 0) return ssize_t{-EISCONN};
                         return s.send(&iov, 1, flags);  // TCP ignores an address, and so does SOCK_SEQPACKET
                       },
                       [&] {
                         leave_for_fast_open(fd, flags);
                         iovec iov{const_cast<void*>(buf), n};
                         auto kernel = [&] { return libc.sendto(fd, buf, n, flags, addr, length); };
                         return addr != nullptr ? bypass_pair(fd, kernel) : send_on_pair(fd, &iov, 1, flags, kernel);
                       });
}

INTERPOSE(ssize_t, sendmsg, (int fd, const msghdr* m, int flags)) {
  return on_connection(fd, [&](TcpSocket& s) { return send_message(s, m, flags); },
                       [&] {
                         leave_for_fast_open(fd, flags);
                         return send_message_on_pair(fd, m, flags);
                       });
}

INTERPOSE(int, sendmmsg, (int fd, mmsghdr* m, unsigned count, int flags)) {
  return on_connection(fd,
                       [&](TcpSocket& s) -> ssize_t {
                         unsigned i = 0;
                         ssize_t n = 0;
                         for (; i < count; ++i) {
                           n = send_message(s, &m[i].msg_hdr, flags);
                           if (n < 0) break;
                           if (int e = put_user(&m[i].msg_len, unsigned(n)); e != 0) return e;
                         }
                         return i > 0 ? ssize_t(i) : n;
                       },
                       [&] {
                         bool any = false;
                         for (unsigned i = 0; i < count; ++i) any |= may_pass(&m[i].msg_hdr);
                         return bypass_pair(fd, [&] {
                           return any ? send_parcels(fd, m, count, flags) : libc.sendmmsg(fd, m, count, flags);
                         });
                       });
}

}  // namespace sluice::preload
