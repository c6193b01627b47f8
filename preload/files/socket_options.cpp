#include "preload/files/socket_options.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

#include "preload/libc.h"
#include "preload/materialize.h"
#include "preload/user_memory.h"

namespace sluice::preload {

namespace {

struct Value {
  alignas(8) unsigned char bytes[256];
  socklen_t length;
  template <class T>
  static Value of(const T& v) {
    Value out{};
    memcpy(out.bytes, &v, sizeof v);
    out.length = sizeof v;
    return out;
  }
  int as_int() const {
    int v;
    memcpy(&v, bytes, sizeof v);
    return v;
  }
};

Value timeout_of(int64_t us) { return Value::of(timeval{us / 1'000'000, us % 1'000'000}); }

int set_timeout(int64_t& us, const Value& v) {
  timeval t;
  if (v.length < sizeof t) return -EINVAL;
  memcpy(&t, v.bytes, sizeof t);
  if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) return -EDOM;
  us = t.tv_sec < 0 ? 1 : t.tv_sec > INT32_MAX ? 0 : t.tv_sec * 1'000'000 + t.tv_usec;
  return 0;
}

Value tcp_info_of(TcpSocket& s) {
  tcp_info i{};
  bool up = s.state == TcpState::kConnected && !s.reset_noted;
  uint32_t remote = s.theirs != nullptr ? s.theirs->state.load(std::memory_order_acquire) : 0;
  bool ended = (remote & shm::kFin) != 0 || s.dead;
  i.tcpi_state = s.state == TcpState::kListening ? TCP_LISTEN : !up ? TCP_CLOSE
                 : ended && s.shut_write()       ? TCP_CLOSE
                 : ended                         ? TCP_CLOSE_WAIT
                 : s.shut_write()                ? TCP_FIN_WAIT2 : TCP_ESTABLISHED;
  i.tcpi_snd_mss = i.tcpi_rcv_mss = i.tcpi_advmss = 32768;
  i.tcpi_pmtu = 65535;
  i.tcpi_snd_cwnd = 10;
  i.tcpi_rcv_space = 65536;
  i.tcpi_rtt = 10;
  if (s.state == TcpState::kListening) {
    i.tcpi_unacked = s.backlog.count;
    i.tcpi_sacked = uint32_t(s.backlog_limit);
  }
  return Value::of(i);
}

// What a default-sized kernel buffer reports is asked of the kernel; a set one is doubled, as
// socket(7) says.
struct Option {
  int level, name;
  socklen_t at_least;  // EINVAL for shorter values
  Value (*get)(TcpSocket&);
  int (*set)(TcpSocket&, const Value&);  // null: cannot be set (ENOPROTOOPT)
};

#define FLAG(level, name, member)                                              \
  {level, name, sizeof(int), [](TcpSocket& s) { return Value::of(int(s.member)); }, \
   [](TcpSocket& s, const Value& v) { s.member = v.as_int() != 0; return 0; }}

constexpr Option kOptions[] = {
    FLAG(IPPROTO_TCP, TCP_NODELAY, nodelay),
    FLAG(IPPROTO_TCP, TCP_CORK, cork),
    FLAG(IPPROTO_TCP, TCP_QUICKACK, quickack),
    FLAG(SOL_SOCKET, SO_KEEPALIVE, keepalive),
    FLAG(SOL_SOCKET, SO_OOBINLINE, urgent_inline),
    {SOL_SOCKET, SO_ERROR, 0, [](TcpSocket& s) { return Value::of(s.take_error()); }, nullptr},
    {SOL_SOCKET, SO_ACCEPTCONN, 0,
     [](TcpSocket& s) { return Value::of(int(s.state == TcpState::kListening)); }, nullptr},
    {SOL_SOCKET, SO_LINGER, sizeof(linger), [](TcpSocket& s) { return Value::of(s.linger_option); },
     [](TcpSocket& s, const Value& v) {
       memcpy(&s.linger_option, v.bytes, sizeof(linger));
       s.linger_option.l_onoff = s.linger_option.l_onoff != 0;
       return 0;
     }},
    {SOL_SOCKET, SO_RCVTIMEO, sizeof(timeval), [](TcpSocket& s) { return timeout_of(s.receive_timeout_us); },
     [](TcpSocket& s, const Value& v) { return set_timeout(s.receive_timeout_us, v); }},
    {SOL_SOCKET, SO_SNDTIMEO, sizeof(timeval), [](TcpSocket& s) { return timeout_of(s.send_timeout_us); },
     [](TcpSocket& s, const Value& v) { return set_timeout(s.send_timeout_us, v); }},
    {SOL_SOCKET, SO_RCVLOWAT, sizeof(int), [](TcpSocket& s) { return Value::of(s.receive_low); },
     [](TcpSocket& s, const Value& v) {
       s.receive_low = v.as_int() < 0 ? INT32_MAX : v.as_int() == 0 ? 1 : v.as_int();
       return 0;
     }},
    {SOL_SOCKET, SO_INCOMING_CPU, sizeof(int), [](TcpSocket&) { return Value::of(int(current_cpu())); },
     [](TcpSocket&, const Value&) { return 0; }},
    {IPPROTO_TCP, TCP_INFO, 0, tcp_info_of, nullptr},
};

constexpr int kPeerPidFd = 77;  // SO_PEERPIDFD, Linux 6.5

// AF_UNIX besides. What else there is, is the kernel's.
constexpr Option kUnixOptions[] = {
    {SOL_SOCKET, SO_PEERCRED, 0, [](TcpSocket& s) { return Value::of(s.peer); }, nullptr},
    FLAG(SOL_SOCKET, SO_PASSCRED, pass_credentials),
    {SOL_SOCKET, kPeerPidFd, 0, [](TcpSocket& s) { return Value::of(int(libc.syscall(SYS_pidfd_open, s.peer.pid, 0))); }, nullptr},
};

// These change what every receive returns, in ways that only the kernel can.
bool only_kernel_can(const TcpSocket& s, int level, int name) {
  constexpr int kPassPidFd = 76;  // SO_PASSPIDFD, Linux 6.5
  if (s.records && level == SOL_SOCKET) {  // a stream of AF_UNIX knows none of these
    constexpr int kFirstNewTime = 63, kLastNewTime = 65;  // SO_TIMESTAMP_NEW to SO_TIMESTAMPING_NEW
    bool new_time = name >= kFirstNewTime && name <= kLastNewTime;
    if (new_time || name == SO_TIMESTAMP || name == SO_TIMESTAMPNS || name == SO_TIMESTAMPING) return true;
    if (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF) return true;
  }
  return level == SOL_SOCKET && (name == SO_PEEK_OFF || name == SO_PASSSEC || name == kPassPidFd);
}

const Option* find(const TcpSocket& s, int level, int name) {
  if (s.is_unix()) {
    if (level != SOL_SOCKET) return nullptr;
    for (const Option& o : kUnixOptions)
      if (o.name == name) return &o;
  }
  for (const Option& o : kOptions)
    if (o.level == level && o.name == name) return &o;
  return nullptr;
}

// A socket that has a kernel socket of its own says it there as well, for when it listens
// or connects in the kernel.
bool kernel_has_it(const TcpSocket& s) { return s.real; }

// What the kernel made of it, which answers with twice the value.
void note_buffer_sizes(TcpSocket& s, int fd, int name) {
  bool send = name == SO_SNDBUF || name == SO_SNDBUFFORCE, receive = name == SO_RCVBUF || name == SO_RCVBUFFORCE;
  if (!send && !receive) return;
  int doubled;
  socklen_t length = sizeof doubled;
  if (libc.getsockopt(fd, SOL_SOCKET, send ? SO_SNDBUF : SO_RCVBUF, &doubled, &length) != 0) return;
  (send ? s.send_buffer : s.receive_buffer) = doubled / 2;
}

}  // namespace

int get_option(TcpSocket& s, int fd, int level, int name, void* value, socklen_t* length) {
  const Option* o = find(s, level, name);
  bool of_connection = name == SO_ERROR || name == TCP_INFO;
  if (o == nullptr && s.state == TcpState::kConnected) {  // SO_COOKIE and the like are each socket's own
    Guard guard(control_lock);
    (void)make_real(fd, s);
  }
  if (o == nullptr || (kernel_has_it(s) && s.state != TcpState::kConnected && !(of_connection && level == SOL_SOCKET)))
    return outside([&] { return libc.getsockopt(fd, level, name, value, length); }) == 0 ? 0 : -errno;
  if (value == nullptr || length == nullptr) return -EFAULT;
  socklen_t room;
  if (int error = get_user(room, length); error != 0) return error;
  if (int(room) < 0) return -EINVAL;
  Value v = o->get(s);
  if (s.is_unix() && level == SOL_SOCKET && name == kPeerPidFd && v.as_int() < 0) return -ENODATA;
  if (room > v.length) room = v.length;
  int error = put_user(length, room);
  return error != 0 ? error : copy_to_user(value, v.bytes, room);
}

int set_option(TcpSocket& s, int fd, int level, int name, const void* value, socklen_t length) {
  const Option* o = find(s, level, name);
  bool ours = o != nullptr && o->set != nullptr;
  if (!ours || kernel_has_it(s)) {
    Guard guard(control_lock);
    if (int error = make_real(fd, s); error != 0) return error;
    if (libc.setsockopt(fd, level, name, value, length) != 0) return -errno;
    if (s.is_unix() && only_kernel_can(s, level, name)) {
      if (s.state == TcpState::kConnected) return -EOPNOTSUPP;
      s.become_kernels_alone();
    }
    if (level == SOL_SOCKET) note_buffer_sizes(s, fd, name);
    if (!ours) return 0;
  }
  if (value == nullptr) return -EFAULT;
  if (length < o->at_least) return -EINVAL;
  Value v{};
  v.length = length < sizeof v.bytes ? length : socklen_t(sizeof v.bytes);
  int error = copy_user(v.bytes, value, v.length);
  return error != 0 ? error : o->set(s, v);
}

}  // namespace sluice::preload
