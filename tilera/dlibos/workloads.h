// What a request costs, by default, and where each figure comes from.
#pragma once

#include <span>
#include <string_view>

#include "tilera/dlibos/model.h"

namespace sluice::tilera::dlibos {

struct Workload {
  std::string_view name;
  Costs costs;
};

// nullptr: there is none of that name.
const Workload* find_workload(std::string_view name);
std::span<const Workload> all_workloads();

// One of the figures.
struct Input {
  std::string_view name;
  uint32_t Costs::* figure;
  std::string_view meaning;
  std::string_view source;  // "assumed: why" where there is none
};
std::span<const Input> all_inputs();

}  // namespace sluice::tilera::dlibos
