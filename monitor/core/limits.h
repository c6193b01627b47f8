// Capacities of the coordinator's tables. Memory is touched only as far as it is used.
#pragma once

#include <cstdint>

#include "shm/layout.h"

namespace sluice::monitor::core {

// Position in a table; 0 is none, so that zeroed memory is an empty table.
using Index = uint32_t;

using shm::kListenerBits;
using shm::kMaxListeners;
inline constexpr uint32_t kMaxWaiters = 1u << 16;
inline constexpr uint32_t kMaxMemberships = 1u << 16;
inline constexpr uint32_t kMaxGrants = 1u << 16;
inline constexpr uint32_t kMaxAdmissions = 1u << 16;
inline constexpr uint32_t kMaxEdges = 1u << 18;
inline constexpr uint32_t kMaxCandidates = 1024;

// What one domain may take, so that it cannot starve the others.
inline constexpr uint32_t kListenersPerDomain = 2048;
inline constexpr uint32_t kWaitsPerDomain = 256;
inline constexpr uint32_t kAdmissionsPerDomain = 1024;
inline constexpr uint32_t kAnnouncementsPerDomain = 16384;

// Small, because every process that connects takes one: 27,000 ports are enough for 3,400.
inline constexpr uint32_t kPortsPerLease = 8;
inline constexpr uint32_t kMaxLeases = 65536 / kPortsPerLease;
// A domain that holds this many must leave a quarter of all ports to others.
inline constexpr uint32_t kUnquestionedLeases = 64;

}  // namespace sluice::monitor::core
