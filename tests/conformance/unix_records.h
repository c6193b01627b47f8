// Records of SOCK_SEQPACKET for tests.
#pragma once

#include <functional>
#include <string>

#include "unix_sockets.h"

namespace conformance {

UnixPair record_pair(const std::string& name = abstract_name());
void meet_for_records(Where where, const std::string& name, const std::function<void(int)>& client,
                      const std::function<void(int)>& server);

void put(int fd, const std::string& record);  // one, by send(2)
std::string take(int fd);                     // one, of any size; empty also at the end

// `size` bytes that are those of record `number` only.
std::string pattern(int number, size_t size);
// Of record `number` of a long transfer: up to `most` bytes, also none.
size_t record_size(int number, size_t most);
void send_records(int fd, int count, size_t most);
void receive_records(int fd, int count, size_t most);

}  // namespace conformance
