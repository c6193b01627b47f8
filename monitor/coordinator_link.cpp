#include "monitor/coordinator_link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <vector>

#include "monitor/descriptor.h"
#include "monitor/run_directory.h"

namespace sluice::monitor {
namespace {

constexpr time_t kPatienceSeconds = 5;
constexpr std::size_t kLargestPacket = 256 << 10;

Descriptor connect_to(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) return {};
  memcpy(name.sun_path, path.c_str(), path.size());
  Descriptor s(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  timeval patience{kPatienceSeconds, 0};
  setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(s.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(s.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) s.close();
  return s;
}

bool is_trusted(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  bool known = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
  return known && (peer.uid == 0 || peer.uid == geteuid());
}

// Collects the pieces of a text up to the empty one.
Answer receive(int socket) {
  Answer answer{Outcome::kSilent, {}};
  std::vector<char> buffer(kLargestPacket);
  for (;;) {
    ssize_t n = recv(socket, buffer.data(), buffer.size(), 0);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return {Outcome::kAbsent, {}};
    if (n < ssize_t(sizeof(shm::Packet))) return {Outcome::kSilent, {}};
    shm::Packet header;
    memcpy(static_cast<void*>(&header), buffer.data(), sizeof header);
    bool same = header.magic == shm::kMagic && header.version == shm::kProtocolVersion;
    if (!same || header.status == EPROTO) return {Outcome::kOtherVersion, {}};
    if (header.status != 0) return {Outcome::kRefused, {}};
    if (n == sizeof header) break;
    answer.text.append(buffer.data() + sizeof header, std::size_t(n) - sizeof header);
  }
  answer.outcome = Outcome::kAnswered;
  return answer;
}

}  // namespace

Answer ask(const std::string& directory, shm::PacketType request, uint32_t value) {
  Descriptor s = connect_to(socket_path(directory));
  if (!s) return {Outcome::kAbsent, {}};
  if (!is_trusted(s.get())) return {Outcome::kForeign, {}};
  shm::Packet packet{shm::kMagic, shm::kProtocolVersion, request, 0, 0, value, 0, 0};
  ssize_t sent = send(s.get(), &packet, sizeof packet, MSG_NOSIGNAL);
  if (sent != sizeof packet) return {errno == EPIPE ? Outcome::kAbsent : Outcome::kSilent, {}};
  return receive(s.get());
}

std::string explain(Outcome outcome, const std::string& directory) {
  switch (outcome) {
    case Outcome::kAnswered:
      return {};
    case Outcome::kAbsent:
      return "no coordinator runs in " + directory;
    case Outcome::kForeign:
      return "the coordinator in " + directory + " is another user's";
    case Outcome::kOtherVersion:
      return "the coordinator in " + directory + " is of another version";
    case Outcome::kRefused:
      return "the coordinator in " + directory + " does not allow that";
    case Outcome::kSilent:
      return "the coordinator in " + directory + " does not answer";
  }
  return {};
}

}  // namespace sluice::monitor
