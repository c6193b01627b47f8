#include "monitor/text_service.h"

#include <errno.h>
#include <unistd.h>

namespace sluice::monitor {
namespace {

// Well below what one packet may hold (net.core.wmem_default).
constexpr std::size_t kPieceBytes = 64 << 10;

}  // namespace

bool TextService::serves(uint16_t type) {
  return type == shm::kStatus || type == shm::kSockets || type == shm::kStop || type == shm::kRegions;
}

void TextService::answer(Client& client, const shm::Packet& request) {
  int error = request.version == shm::kProtocolVersion ? 0 : EPROTO;
  bool is_owner = client.uid == 0 || client.uid == geteuid();
  bool for_owners = request.type == shm::kStop || request.type == shm::kRegions;
  if (error == 0 && for_owners && !is_owner) error = EPERM;
  if (error != 0) return post_.send(client, make_packet(shm::kText, 0, 0, 0, error));
  if (request.type == shm::kSockets) return send(client, sources_.sockets());
  if (request.type == shm::kRegions) return send(client, sources_.regions());
  if (request.type == shm::kStatus && request.value != 0) sources_.expect_client();
  if (request.type == shm::kStatus) return send(client, sources_.status(is_owner));
  send(client, {});
  sources_.stop();
}

void TextService::send(Client& client, std::string_view text) {
  while (!text.empty()) {
    post_.send(client, make_packet(shm::kText), {}, text.substr(0, kPieceBytes));
    text.remove_prefix(std::min(text.size(), kPieceBytes));
  }
  post_.send(client, make_packet(shm::kText));
}

}  // namespace sluice::monitor
