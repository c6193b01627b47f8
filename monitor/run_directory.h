// The directory where a coordinator and its clients meet.
#pragma once

#include <string>

#include "monitor/descriptor.h"

namespace sluice::monitor {

// /run/sluice for root, else $XDG_RUNTIME_DIR/sluice, else /tmp/sluice-UID.
std::string standard_directory();

// The path made absolute.
std::string absolute_directory(const std::string& path);

std::string socket_path(const std::string& directory);

// What is wrong with an existing directory, empty if nothing: it must be a real directory that
// belongs to this user, or to root where `trust_root`, and that no other user may write to.
std::string problem_with_directory(const std::string& path, bool trust_root);

// Creates the directory if it is missing. Returns what went wrong, or empty.
std::string create_directory(const std::string& path);

// Programs that start from now on are told to protect the shim's memory by a key (shm::kKeys, kKeysStrict), or, if it is
// empty, no longer. What went wrong, or empty.
std::string mark_keys(const std::string& directory, const std::string& kind);

// Held while a coordinator lives; the kernel drops it with the process. Empty if another holds it.
Descriptor lock_directory(const std::string& path);

}  // namespace sluice::monitor
