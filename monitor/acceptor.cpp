#include "monitor/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace sluice::monitor {
namespace {

constexpr int kBacklog = 1024;
constexpr int kMostPerRound = 64;

Descriptor open_spare() { return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

int Acceptor::listen(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  // Under its name only once it listens: clients that wait for it connect when it appears.
  std::string unready = path + ".new";
  if (unready.size() >= sizeof name.sun_path) return -ENAMETOOLONG;
  memcpy(name.sun_path, unready.c_str(), unready.size());
  socket_ = Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_) return -errno;
  // The directory's lock is ours, so whoever made this socket is dead.
  unlink(unready.c_str());
  if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) return -errno;
  path_ = unready;
  if (chmod(unready.c_str(), geteuid() == 0 ? 0666 : 0600) != 0) return -errno;
  // Every packet tells who sent it: a process may have become somebody else since it connected.
  int on = 1;
  if (setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return -errno;
  if (::listen(socket_.get(), kBacklog) != 0) return -errno;
  if (rename(unready.c_str(), path.c_str()) != 0) return -errno;
  path_ = path;
  spare_ = open_spare();
  return events_.add(socket_.get(), Source::kListening, 0) ? 0 : -errno;
}

void Acceptor::close() {
  if (!path_.empty()) unlink(path_.c_str());
  path_.clear();
  socket_.close();
}

void Acceptor::accept_some() {
  for (int n = 0; n < kMostPerRound; ++n) {
    Descriptor s(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (s) {
      admit(std::move(s));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE) turn_away_one();
    return;
  }
}

void Acceptor::admit(Descriptor socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
  if (!clients_.has_room_for(peer.uid)) return;
  int fd = socket.get();
  Client& client = clients_.add(std::move(socket), peer.uid, peer.pid);
  if (!events_.add(fd, Source::kSocket, client.serial)) clients_.doom(client);
}

// Otherwise the one at the head of the queue would keep the socket readable for ever.
void Acceptor::turn_away_one() {
  spare_.close();
  Descriptor refused(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  refused.close();
  spare_ = open_spare();
}

}  // namespace sluice::monitor
