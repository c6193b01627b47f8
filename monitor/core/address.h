// An IP address in IPv6 form; IPv4 is v4-mapped, so 0.0.0.0 is ::ffff:0.0.0.0.
#pragma once

#include <bit>
#include <cstdint>

#include "shm/layout.h"

namespace sluice::monitor::core {

struct Address {
  uint8_t bytes[16];
  bool operator==(const Address&) const = default;
};

// The two words of a message that carry an address, bytes in network order.
struct AddressWords {
  uint64_t first, second;
};
static_assert(sizeof(Address) == sizeof(AddressWords));

inline Address address_of(uint64_t first, uint64_t second) {
  return std::bit_cast<Address>(AddressWords{first, second});
}
inline AddressWords words_of(const Address& a) { return std::bit_cast<AddressWords>(a); }

// A name of AF_UNIX takes the place of an address; its port is 0.
inline Address address_of(const shm::UnixKey& k) { return std::bit_cast<Address>(k); }
inline shm::UnixKey key_of(const Address& a) { return std::bit_cast<shm::UnixKey>(a); }

inline constexpr Address v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}};
}

inline constexpr Address kV4Any = v4(0, 0, 0, 0);
inline constexpr Address kV4Loopback = v4(127, 0, 0, 1);
inline constexpr Address kV6Any = {};
inline constexpr Address kV6Loopback = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

constexpr bool is_v4(const Address& a) {
  for (int i = 0; i < 10; ++i)
    if (a.bytes[i] != 0) return false;
  return a.bytes[10] == 0xff && a.bytes[11] == 0xff;
}

// connect(2) to the unspecified address means this host.
constexpr Address destination(const Address& a) {
  if (a == kV4Any) return kV4Loopback;
  if (a == kV6Any) return kV6Loopback;
  return a;
}

// Whether a socket bound to wildcard `w` receives what is sent to `a`.
constexpr bool wildcard_covers(const Address& w, bool v6only, const Address& a) {
  if (w == kV4Any) return is_v4(a);
  return w == kV6Any && !(v6only && is_v4(a));
}

}  // namespace sluice::monitor::core
