// Inline functions are compiled where they are used. Here they are used so that all of them are:
//
//   template struct Emitted<&MessageProducer::try_stage, &MessageProducer::publish>;
//
// So what somebody will call on a tile is known to compile, how large it is, and which symbols it needs.
#pragma once

#include <tuple>

namespace sluice::tilera {

template <auto... kFunctions>
struct Emitted {
  static constexpr std::tuple addresses{kFunctions...};
};

}  // namespace sluice::tilera
