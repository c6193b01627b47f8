// Answers `sluice status`, `sluice ss`, `sluice audit` and `sluice stop`.
#pragma once

#include <functional>

#include "monitor/post.h"

namespace sluice::monitor {

class TextService {
 public:
  struct Sources {
    std::function<std::string(bool)> status;   // JSON object; with what is for the owner only
    std::function<std::string()> sockets;  // JSON array
    std::function<std::string()> regions;  // JSON object
    std::function<void()> stop;
    // Somebody is about to start a client: stay for a while.
    std::function<void()> expect_client;
  };
  TextService(Post& post, Sources sources) : post_(post), sources_(std::move(sources)) {}

  static bool serves(uint16_t packet_type);
  void answer(Client& client, const shm::Packet& request);

 private:
  void send(Client& client, std::string_view text);

  Post& post_;
  Sources sources_;
};

}  // namespace sluice::monitor
