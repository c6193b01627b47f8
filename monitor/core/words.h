// The halves of a message's word.
#pragma once

#include <cstdint>

namespace sluice::monitor::core {

constexpr uint32_t low(uint64_t word) { return uint32_t(word); }
constexpr uint32_t high(uint64_t word) { return uint32_t(word >> 32); }
constexpr uint64_t both(uint64_t low, uint64_t high) { return low | high << 32; }

}  // namespace sluice::monitor::core
