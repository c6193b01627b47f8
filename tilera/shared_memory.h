// What tiles share besides the network: memory in which each part has one writer.
//
//     directory         written by the coordinator, read by all: ports, who lives (shm/layout.h)
//     to[tile]          written by the coordinator, read by that tile: notices
//     of[tile]          written by that tile: requests too long for a packet, how far it has read
//
// What a client and another say to each other is in pair regions (shm/layout.h), as between processes.
#pragma once

#include "shm/layout.h"
#include "tilera/credits.h"

namespace sluice::tilera {

using shm::Shared;

struct NoticeMemory {
  shm::MessageEntries notices;
  alignas(shm::kCacheLine) Shared<uint64_t> overruns;  // grows when there was no room for one
};

struct ClientMemory {
  alignas(shm::kCacheLine) Shared<uint64_t> notices_head;
  // While it waits for a doorbell: odd, another number each time. The listener at which it waits; kEveryListener,
  // or 0: none.
  alignas(shm::kCacheLine) Shared<uint32_t> sleeping;
  Shared<uint32_t> accepting;
  // Requests that do not fit a packet, one for each credit.
  alignas(shm::kCacheLine) shm::Message lines[kMostDepth];
  // How many doorbells of each tile it has taken; a line for each, which those two alone look at.
  struct alignas(shm::kCacheLine) Taken {
    Shared<uint32_t> bells;
  };
  Taken taken[kMostTiles];
  // How many it has sent to each: nobody else looks.
  alignas(shm::kCacheLine) uint32_t rung[kMostTiles];
};

struct SharedMemory {
  alignas(shm::kCacheLine) shm::Directory directory;
  alignas(shm::kCacheLine) NoticeMemory to[kMostTiles];
  alignas(shm::kCacheLine) ClientMemory of[kMostTiles];
};

}  // namespace sluice::tilera
