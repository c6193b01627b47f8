// Asks a running coordinator for a text.
#pragma once

#include <string>

#include "shm/protocol.h"

namespace sluice::monitor {

enum class Outcome {
  kAnswered,
  kAbsent,        // nobody listens there
  kForeign,       // somebody does who is neither root nor this user
  kOtherVersion,  // it speaks another protocol
  kRefused,       // it may not do that for this user
  kSilent,        // no answer in time
};

struct Answer {
  Outcome outcome;
  std::string text;
};

// `value` goes along with the request. Waits at most 5 s.
Answer ask(const std::string& directory, shm::PacketType request, uint32_t value = 0);

// One line on what came instead of an answer.
std::string explain(Outcome outcome, const std::string& directory);

}  // namespace sluice::monitor
