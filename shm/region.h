// Regions as files: create, seal, verify, map. See DESIGN: a region has one writer, because
// the writer seals it against any further writable mapping before the descriptor leaves it.
#pragma once

#include <cstddef>

namespace sluice::shm {

enum class Protect { kNone, kRegions };
// Whether a program protects its shim's memory from itself (preload/keys.h), and what it thinks of code that could undo that.
enum class Keys { kNone, kKeys, kStrict };

// A new memfd of `bytes`, CLOEXEC. Returns the descriptor or -errno.
[[nodiscard]] int create_region(const char* name, std::size_t bytes);

// Maps for writing. Call before seal_region. Returns null with errno set.
[[nodiscard]] void* map_writable(int fd, std::size_t bytes);

// Forbids shrinking, growing, and (kRegions) every writable mapping from now on; and
// further seals. Returns 0 or -errno.
[[nodiscard]] int seal_region(int fd, Protect protect);

// Whether somebody else's descriptor may be trusted as a region: a memfd of exactly
// `bytes`, sealed as seal_region does, not of huge pages. Returns 0 or -EBADF.
[[nodiscard]] int verify_region(int fd, std::size_t bytes, Protect protect);

// Maps somebody else's region for reading. Returns null with errno set.
[[nodiscard]] void* map_readable(int fd, std::size_t bytes);

// Whether a descriptor is a memfd whose name begins so: create_region() gave it, or somebody else who says so, so it is to be
// verified.
[[nodiscard]] bool is_region_called(int fd, const char* name);

}  // namespace sluice::shm
