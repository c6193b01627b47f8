// Records in a byte ring: what SOCK_SEQPACKET has and a stream has not.
//
//        head                                      tail
//          v                                         v
//   [ free | length payload | length payload | length | free ]
//            4 bytes                           a record of no bytes
//
// A length is little-endian, at any position, across the ring's end too. Header and payload are
// published together (R0 of byte_ring.h), so a reader sees a whole record or none of it; and a writer
// takes another ring only between two records, so a record is in one ring.
//
// The largest record leaves kQuietBytes of its ring free. So a writer that waits for space knows that at least
// so many bytes are queued, and the reader that takes them looks for it (see kQuietBytes).
//
// Death:  as with bytes: what was not published was not sent.
// Trust:  the reader copies a length out once; one that says more than there is is -EPROTO.
#pragma once

#include "shm/byte_ring.h"

namespace sluice::shm {

inline constexpr std::size_t kRecordHeaderBytes = 4;

// What a ring of `size` bytes takes at most.
constexpr std::size_t largest_record(std::size_t size) { return size - kQuietBytes - kRecordHeaderBytes; }
inline constexpr std::size_t kLargestRecord = largest_record(std::size_t{1} << kLargestRingLog2);

template <class Byte>
Pieces<Byte> without_first(const Pieces<Byte>& p, std::size_t n) {
  if (n < p.first_bytes) return {p.first + n, p.first_bytes - n, p.second, p.second_bytes};
  std::size_t rest = n - p.first_bytes;
  return {p.second + rest, p.second_bytes - rest, nullptr, 0};
}

template <class Byte>
Pieces<Byte> only_first(const Pieces<Byte>& p, std::size_t n) {
  if (n <= p.first_bytes) return {p.first, n, nullptr, 0};
  return {p.first, p.first_bytes, p.second, n - p.first_bytes};
}

template <class Byte>
Byte& byte_at(const Pieces<Byte>& p, std::size_t i) {
  return i < p.first_bytes ? p.first[i] : p.second[i - p.first_bytes];
}

// At the beginning of `record`, which has room for it.
inline void put_record_length(const Pieces<std::byte>& record, std::size_t bytes) {
  for (std::size_t i = 0; i < kRecordHeaderBytes; ++i) byte_at(record, i) = std::byte(bytes >> 8 * i);
}

// The payload of the record that `queued`, which is not empty, begins with. 0 or -EPROTO.
[[nodiscard]] inline int first_record(const Pieces<const std::byte>& queued, Pieces<const std::byte>& payload) {
  if (queued.bytes() < kRecordHeaderBytes) return -EPROTO;
  std::size_t length = 0;  // each byte is read once: the compiler may not look again after the check
  for (std::size_t i = 0; i < kRecordHeaderBytes; ++i)
    length |= std::size_t(__atomic_load_n(reinterpret_cast<const uint8_t*>(&byte_at(queued, i)), __ATOMIC_RELAXED)) << 8 * i;  // ordered by S0
  if (length > queued.bytes() - kRecordHeaderBytes) return -EPROTO;
  payload = only_first(without_first(queued, kRecordHeaderBytes), length);
  return 0;
}

}  // namespace sluice::shm
