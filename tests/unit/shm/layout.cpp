#include "shm/layout.h"

#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>

#include "shm/protocol.h"

namespace sluice::shm {
namespace {

constexpr std::size_t line(std::size_t offset) { return offset / kCacheLine; }

// What two sides touch at high rates must not share a cache line.
static_assert(line(offsetof(Slot, tail)) != line(offsetof(Slot, head)));
static_assert(line(offsetof(PairHeader, sleeping)) != line(offsetof(PairHeader, ready_head)));
static_assert(line(offsetof(PairHeader, sleeping)) != line(offsetof(PairHeader, magic)));
static_assert(sizeof(MessageEntry) == kCacheLine && offsetof(MessageEntries, entries) % kCacheLine == 0);
static_assert(line(offsetof(SharedQueueRegion, tail)) != line(offsetof(SharedQueueRegion, head)));
static_assert(line(offsetof(SharedQueueRegion, head)) != line(offsetof(SharedQueueRegion, entries)));
static_assert(line(offsetof(ClientRegion, claim)) != line(offsetof(ClientRegion, replies_head)));
static_assert(line(offsetof(ReplyRegion, requests_head)) != line(offsetof(ReplyRegion, packets)));
static_assert(line(offsetof(DemuxWords, tail)) != line(offsetof(DemuxWords, words)));
static_assert(line(offsetof(ClientRegion, demux_replies_head)) != line(offsetof(ClientRegion, demux_requests)));
static_assert(line(offsetof(ReplyRegion, demux_requests_head)) != line(offsetof(ReplyRegion, demux_replies)));

// Everything fits where it lies.
static_assert(sizeof(PairHeader) <= kReadyOffset);
static_assert(kSlotsOffset % alignof(Slot) == 0 && kHeapOffset % kPageBytes == 0);
static_assert(kReadyOffset % kCacheLine == 0 && kPairBytes % kPageBytes == 0);
static_assert(sizeof(SharedQueueRegion) <= kSharedQueueBytes && kSharedQueueBytes % kPageBytes == 0);
static_assert((kSlots & (kSlots - 1)) == 0 && (kMessages & (kMessages - 1)) == 0);
static_assert(kHeapOffset + (std::size_t{1} << kLargestRingLog2) <= kPairBytes);
static_assert(kFallbacks + uint32_t(Fallback::kCount) <= kCounters);
static_assert(sizeof(Packet) <= kCacheLine && sizeof(Message) == kCacheLine);

TEST_CASE("a protocol's layout changes only with its version") {
  // A failure here says: raise kProtocolVersion, then change these numbers.
  CHECK(kProtocolVersion == 8);
  CHECK(sizeof(PairHeader) == 384);
  CHECK(sizeof(Slot) == 256);
  CHECK(sizeof(ClientRegion) == 5824);
  CHECK(sizeof(ReplyRegion) == 7616);
  CHECK(sizeof(Directory) == 19072);
  CHECK(sizeof(SharedEntry) == 128);
  CHECK(kSlotsOffset == 0x40000);
  CHECK(kHeapOffset == 0x480000);
}

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
std::unique_ptr<T, FreeDeleter> zeroed() {
  std::size_t bytes = (sizeof(T) + kPageBytes - 1) / kPageBytes * kPageBytes;
  void* p = std::aligned_alloc(kPageBytes, bytes);
  return std::unique_ptr<T, FreeDeleter>(new (p) T{});
}

TEST_CASE("the directory answers for every port and every domain") {
  auto directory = zeroed<Directory>();
  for (uint32_t port : {0u, 1u, 63u, 64u, 8080u, 65535u}) {
    CHECK_FALSE(directory->has_port(uint16_t(port)));
    directory->ports[port / 64] |= uint64_t{1} << port % 64;
    CHECK(directory->has_port(uint16_t(port)));
  }
  CHECK_FALSE(directory->has_port(2));
  for (DomainId domain : {DomainId{1}, kMaxDomains - 1}) {
    CHECK_FALSE(directory->is_alive(domain));
    directory->alive[domain / 64] |= uint64_t{1} << domain % 64;
    CHECK(directory->is_alive(domain));
  }
}

TEST_CASE("a domain beyond the directory is not alive") {
  auto directory = zeroed<Directory>();
  for (auto& word : directory->alive) word = UINT64_MAX;
  CHECK(directory->is_alive(kMaxDomains - 1));
  CHECK_FALSE(directory->is_alive(kMaxDomains));
  CHECK_FALSE(directory->is_alive(UINT32_MAX));
}

TEST_CASE("every reason for a fallback has a name of its own") {
  for (uint32_t i = 0; i < uint32_t(Fallback::kCount); ++i)
    for (uint32_t j = 0; j < i; ++j) CHECK(std::string(kFallbackNames[i]) != kFallbackNames[j]);
}

}  // namespace
}  // namespace sluice::shm
